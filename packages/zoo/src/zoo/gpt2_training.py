"""Training a recipe of GPT-2's shape into a Hugging Face folder, resumable at any moment, whatever it reads.

While it trains, the folder holds training.pt (the resumable state); it goes when the card is written, which is the last
thing that happens.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import msgspec
import torch
from safetensors.torch import load_file
from tokenizers import Tokenizer
from torch import Tensor, nn
from torch.optim import AdamW, Optimizer

from training import FunctionTask, Muon, Part, Run, checkpoint, every, log_json_lines, restore, trapezoid
from training import train as fit
from zoo import cards, words
from zoo.gpt2_recipes import Gpt2Recipe
from zoo.in_context_model import build
from zoo.whole_files import save_whole

if TYPE_CHECKING:
    from transformers import GPT2LMHeadModel

BatchT = TypeVar("BatchT")
RecipeT = TypeVar("RecipeT", bound=Gpt2Recipe)
Progress = Callable[[int, int, float], None]
Metrics = Callable[["GPT2LMHeadModel"], Mapping[str, float]]
STATE = "training.pt"


def optimizers(model: GPT2LMHeadModel, recipe: Gpt2Recipe) -> tuple[Optimizer, ...]:
    """Muon on the layers' matrices, AdamW on the rest; no weight decay on gains and biases."""
    muon: list[nn.Parameter] = []
    decayed: list[nn.Parameter] = []
    plain: list[nn.Parameter] = []
    for name, parameter in model.named_parameters():
        if parameter.ndim != 2:
            plain.append(parameter)
        else:
            (muon if name.startswith("transformer.h.") else decayed).append(parameter)
    groups: list[dict[str, Any]] = [{"params": decayed}, {"params": plain, "weight_decay": 0.0}]
    return (
        Muon(muon, lr=recipe.muon_learning_rate, weight_decay=recipe.weight_decay),
        AdamW(groups, lr=recipe.learning_rate, betas=recipe.betas, weight_decay=recipe.weight_decay),
    )


def train_in(
    out: Path,
    recipe: Gpt2Recipe,
    model: GPT2LMHeadModel,
    *,
    batches: Callable[[int], BatchT],
    loss: Callable[[GPT2LMHeadModel, BatchT], Tensor],
    metrics: Metrics,
    progress: Progress,
    checkpoint_every: int,
) -> float:
    """Train `model` with the log and the resumable state in the folder `out`, going on from where a killed run stopped.

    On CPU with the same number of threads a resumed run gives the weights of an undisturbed one, bit for bit.

    Args:
        metrics: what a line of the log says besides the loss.
        progress: called after every step with the step, the number of steps and the loss.

    Returns:
        the seconds that the training took, those before it was killed included.
    """
    out.mkdir(parents=True, exist_ok=True)
    task = FunctionTask(batches, loss)
    schedule = trapezoid(
        warmup=recipe.warmup_steps, steps=recipe.steps, decay_from=recipe.decay_from, floor=recipe.floor
    )
    parts = {"model": Part(model, optimizers(model, recipe), schedule)}
    run = Run.of(task, parts)
    if (out / STATE).exists():
        restore(run, out / STATE)
    clock, before = time.monotonic(), _seconds_so_far(out / cards.LOG, run.step)
    log = log_json_lines(out / cards.LOG, lambda run: {"seconds": before + time.monotonic() - clock, **metrics(model)})
    fit(
        task,
        parts,
        steps=recipe.steps,
        max_gradient_norm=recipe.max_gradient_norm,
        callbacks=(
            every(recipe.log_every, log, last=True),
            every(checkpoint_every, checkpoint(out / STATE)),
            lambda run: progress(run.step, recipe.steps, run.loss),
        ),
        run=run,
    )
    return before + time.monotonic() - clock


def write_model(out: Path, recipe: Gpt2Recipe, model: GPT2LMHeadModel, tokenizer: Tokenizer) -> GPT2LMHeadModel:
    """Write the weights in 16 bits, the configuration and the tokenizer; returns the model that the files hold."""
    weights = {name: tensor.detach().half().cpu() for name, tensor in model.state_dict().items()}
    save_whole(weights, out / cards.WEIGHTS, metadata={"format": "pt"})
    model.config.save_pretrained(out)
    words.save(tokenizer, out, n_ctx=recipe.shape.n_ctx)
    stored = build(recipe.shape, tokenizer.get_vocab_size())
    stored.load_state_dict({name: tensor.float() for name, tensor in load_file(out / cards.WEIGHTS).items()})
    return stored.to(model.device)


def remove_state(out: Path) -> None:
    """Drop the resumable state of a finished run."""
    (out / STATE).unlink(missing_ok=True)


def _seconds_so_far(log: Path, step: int) -> float:
    rows = [json.loads(line) for line in log.read_text().splitlines()] if log.exists() else []
    return max((row["seconds"] for row in rows if row["step"] <= step), default=0.0)


def named(name: str, recipes: Mapping[str, RecipeT], kind: type[RecipeT]) -> RecipeT:
    """A shipped recipe by its name, or the recipe in a JSON file.

    Raises:
        ValueError: if it is neither.
    """
    if name in recipes:
        return recipes[name]
    path, known = Path(name), ", ".join(recipes)
    if not path.is_file():
        raise ValueError(f"no recipe {name!r}: expected one of {known}, or the JSON file of a recipe")
    try:
        return msgspec.json.decode(path.read_bytes(), type=kind)
    except msgspec.MsgspecError as error:
        raise ValueError(f"{path}: {error}; expected the fields of an {kind.__name__}") from error


def program(
    arguments: list[str] | None,
    recipes: Mapping[str, RecipeT],
    kind: type[RecipeT],
    train: Callable[[RecipeT, Path, str, Progress], object],
) -> None:
    """A program that trains a recipe of one family and reports every `log_every` steps."""
    parser = argparse.ArgumentParser(description="Train a model of the zoo.")
    parser.add_argument("recipe", help=f"a recipe's JSON file, or one of {', '.join(recipes)}")
    parser.add_argument("out", type=Path, help="the folder that becomes the model")
    parser.add_argument("--device", default="cpu", help="cpu or cuda")
    parser.add_argument("--threads", type=int, default=1, help="CPU threads")
    options = parser.parse_args(arguments)
    torch.set_num_threads(options.threads)
    recipe, start = named(options.recipe, recipes, kind), time.monotonic()

    def say(step: int, steps: int, loss: float) -> None:
        if step % recipe.log_every == 0 or step == steps:
            last = (options.out / cards.LOG).read_text().splitlines()[-1]
            shown = {name: round(value, 3) for name, value in json.loads(last).items() if value is not None}
            sys.stdout.write(f"{recipe.name} {step}/{steps} {time.monotonic() - start:.0f} s {json.dumps(shown)}\n")
            sys.stdout.flush()

    train(recipe, options.out, options.device, say)

"""Training an in-context recipe into a Hugging Face folder, resumable at any moment.

While it trains, the folder holds training.pt (the resumable state); it goes when the card is written, which is the last
thing that happens. As a program: `python -m zoo.in_context_training NAME OUT [--device cuda]`, where NAME may also be a
recipe's JSON file, for pilots.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import msgspec
import torch
from safetensors.torch import load_file
from torch import nn
from torch.optim import AdamW, Optimizer

from training import Muon, Run, checkpoint, every, log_json_lines, restore, trapezoid
from training import train as fit
from zoo import cards, words
from zoo.in_context_batches import batch_at
from zoo.in_context_cards import InContextCard, MaterialFacts
from zoo.in_context_evaluation import evaluate
from zoo.in_context_model import Batch, build, loss
from zoo.in_context_recipes import IN_CONTEXT_RECIPES, InContextRecipe
from zoo.in_context_text import Material, material
from zoo.whole_files import save_whole

if TYPE_CHECKING:
    from transformers import GPT2LMHeadModel

Progress = Callable[[int, int, float], None]
CHECKPOINT_EVERY = 500


def optimizers(model: GPT2LMHeadModel, recipe: InContextRecipe) -> tuple[Optimizer, ...]:
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


def train(
    recipe: InContextRecipe,
    out: Path,
    *,
    text: Material | None = None,
    device: str = "cpu",
    progress: Progress = lambda step, steps, loss: None,
) -> Path:
    """Train `recipe` into the folder `out`, going on from where a killed run stopped; returns `out`.

    On CPU with the same number of threads a resumed run gives the weights of an undisturbed one, bit for bit.

    Args:
        text: what it reads; by default that of the files in `shared/data`.
        progress: called after every step with the step, the number of steps and the loss.
    """
    out.mkdir(parents=True, exist_ok=True)
    text = text or material()
    model = build(recipe.shape, text.tokenizer.get_vocab_size(), recipe.seed).to(device)
    run = Run(model, optimizers(model, recipe))
    resumable = out / "training.pt"
    if resumable.exists():
        restore(run, resumable)
    clock, before = time.monotonic(), _seconds_so_far(out / cards.LOG, run.step)

    def batches(step: int) -> Batch:
        return batch_at(step, material=text, recipe=recipe).to(device)

    def measure(run: Run) -> Mapping[str, object]:
        return {"seconds": before + time.monotonic() - clock, **evaluate(model, text)}

    log = log_json_lines(out / cards.LOG, measure)
    fit(
        model,
        run.optimizers,
        batches,
        loss,
        steps=recipe.steps,
        schedule=trapezoid(
            warmup=recipe.warmup_steps, steps=recipe.steps, decay_from=recipe.decay_from, floor=recipe.floor
        ),
        max_gradient_norm=recipe.max_gradient_norm,
        callbacks=(
            lambda run: log(run) if run.step % recipe.log_every == 0 or run.step == recipe.steps else None,
            every(CHECKPOINT_EVERY, checkpoint(resumable)),
            lambda run: progress(run.step, recipe.steps, run.loss),
        ),
        run=run,
    )
    _finish(recipe, out, model, text, seconds=before + time.monotonic() - clock, device=device)
    return out


def _finish(
    recipe: InContextRecipe, out: Path, model: GPT2LMHeadModel, text: Material, *, seconds: float, device: str
) -> None:
    """Write the shipped files; card.json, without which the folder is not a model, comes last."""
    weights = {name: tensor.detach().half().cpu() for name, tensor in model.state_dict().items()}
    save_whole(weights, out / cards.WEIGHTS, metadata={"format": "pt"})
    model.config.save_pretrained(out)
    words.save(text.tokenizer, out, n_ctx=recipe.shape.n_ctx)
    stored = build(recipe.shape, text.tokenizer.get_vocab_size())
    stored.load_state_dict({name: tensor.float() for name, tensor in load_file(out / cards.WEIGHTS).items()})
    card = InContextCard(
        recipe=recipe,
        material=MaterialFacts.of(text),
        parameters=sum(parameter.numel() for parameter in model.parameters()),
        rows_seen=recipe.steps * recipe.rows,
        seconds=round(seconds, 1),
        hardware=cards.hardware(device, torch.get_num_threads()),
        torch=str(torch.__version__),
        metrics=evaluate(stored.to(device), text),
        sha256=cards.hashes(out),
    )
    cards.write(card, out)
    (out / "training.pt").unlink(missing_ok=True)


def _seconds_so_far(log: Path, step: int) -> float:
    rows = [json.loads(line) for line in log.read_text().splitlines()] if log.exists() else []
    return max((row["seconds"] for row in rows if row["step"] <= step), default=0.0)


def named_recipe(name: str) -> InContextRecipe:
    """A shipped recipe by its name, or the recipe in a JSON file.

    Raises:
        ValueError: if it is neither.
    """
    if name in IN_CONTEXT_RECIPES:
        return IN_CONTEXT_RECIPES[name]
    path, known = Path(name), ", ".join(IN_CONTEXT_RECIPES)
    if not path.is_file():
        raise ValueError(f"no recipe {name!r}: expected one of {known}, or the JSON file of a recipe")
    try:
        return msgspec.json.decode(path.read_bytes(), type=InContextRecipe)
    except msgspec.MsgspecError as error:
        raise ValueError(f"{path}: {error}; expected the fields of an InContextRecipe") from error


def main(arguments: list[str] | None = None) -> None:
    """The program: train a recipe and report every `log_every` steps."""
    parser = argparse.ArgumentParser(description="Train an in-context model of the zoo.")
    parser.add_argument("recipe", help=f"a recipe's JSON file, or one of {', '.join(IN_CONTEXT_RECIPES)}")
    parser.add_argument("out", type=Path, help="the folder that becomes the model")
    parser.add_argument("--device", default="cpu", help="cpu or cuda")
    parser.add_argument("--threads", type=int, default=1, help="CPU threads")
    options = parser.parse_args(arguments)
    torch.set_num_threads(options.threads)
    recipe, start = named_recipe(options.recipe), time.monotonic()

    def say(step: int, steps: int, loss: float) -> None:
        if step % recipe.log_every == 0 or step == steps:
            last = (options.out / cards.LOG).read_text().splitlines()[-1]
            shown = {name: round(value, 3) for name, value in json.loads(last).items() if value is not None}
            sys.stdout.write(f"{recipe.name} {step}/{steps} {time.monotonic() - start:.0f} s {json.dumps(shown)}\n")
            sys.stdout.flush()

    train(recipe, options.out, device=options.device, progress=say)


if __name__ == "__main__":
    main()

"""Training a recipe into a model folder, resumable at any moment.

While it trains, the folder holds training.pt (the resumable state) and kept/ (the checkpoints so far); both go when
the card is written, which is the last thing that happens.
"""

from __future__ import annotations

import json
import shutil
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import msgspec
import torch
from jaxtyping import Int
from safetensors.torch import load_file
from torch import Tensor
from torch.optim import AdamW, Optimizer

from training import FunctionTask, Muon, Part, Run, at_steps, checkpoint, every, log_json_lines, restore, trapezoid
from training import train as fit
from zoo import cards, packing
from zoo.batches import batch_at
from zoo.corpus import Corpus, build
from zoo.evaluation import evaluate
from zoo.model import AttentionOnly, next_token_losses
from zoo.recipes import Recipe
from zoo.whole_files import save_whole

Progress = Callable[[int, int, float], None]
CHECKPOINT_EVERY = 250


def optimizers(model: AttentionOnly, recipe: Recipe) -> tuple[Optimizer, ...]:
    """Muon on the attention matrices, AdamW on the rest; no weight decay on positions, gains and biases."""
    muon, decayed, plain = [], [], []
    for name, parameter in model.named_parameters():
        if parameter.ndim == 2 and ".attn." in name:
            muon.append(parameter)
        elif parameter.ndim == 2 and not name.startswith("pos_embed"):
            decayed.append(parameter)
        else:
            plain.append(parameter)
    groups: list[dict[str, Any]] = [{"params": decayed}, {"params": plain, "weight_decay": 0.0}]
    adamw = AdamW(
        groups,
        lr=recipe.learning_rate,
        betas=recipe.betas,
        weight_decay=recipe.weight_decay,
    )
    if not muon:
        return (adamw,)
    return (Muon(muon, lr=recipe.muon_learning_rate, weight_decay=recipe.weight_decay), adamw)


def loss(model: AttentionOnly, batch: Int[Tensor, "batch pos"]) -> Tensor:
    return next_token_losses(model(batch), batch).mean()


def pretrain(
    recipe: Recipe,
    out: Path,
    *,
    corpus: Corpus | None = None,
    device: str = "cpu",
    progress: Progress = lambda step, steps, loss: None,
) -> Path:
    """Train `recipe` into the folder `out`, going on from where a killed run stopped; returns `out`.

    On CPU with the same number of threads a resumed run gives the weights of an undisturbed one, bit for bit.

    Args:
        progress: called after every step with the step, the number of steps and the loss.
    """
    out.mkdir(parents=True, exist_ok=True)
    corpus = corpus or build(recipe.config.d_vocab)
    model = AttentionOnly(recipe.config, recipe.seed).to(device)
    train_tokens = corpus.train

    def batches(step: int) -> Tensor:
        batch = batch_at(
            step,
            tokens=train_tokens,
            n=recipe.batch_size,
            n_ctx=recipe.config.n_ctx,
            repeats=recipe.repeats,
            seed=recipe.seed,
        )
        return batch.to(device)

    task = FunctionTask(batches, loss)
    schedule = trapezoid(
        warmup=recipe.warmup_steps, steps=recipe.steps, decay_from=recipe.decay_from, floor=recipe.floor
    )
    parts = {"model": Part(model, optimizers(model, recipe), schedule)}
    run, resumable, kept = Run.of(task, parts), out / "training.pt", out / "kept"
    if resumable.exists():
        restore(run, resumable)
    clock, before = time.monotonic(), _seconds_so_far(out / cards.LOG, run.step)

    def measure(run: Run) -> Mapping[str, object]:
        return {
            "tokens": run.step * recipe.tokens_per_step,
            "seconds": before + time.monotonic() - clock,
            **evaluate(model, corpus.held_out),
        }

    def keep(run: Run) -> None:
        kept.mkdir(exist_ok=True)
        halves = {name: tensor.half().cpu() for name, tensor in model.state_dict().items()}
        save_whole(halves, kept / f"{run.step:08d}.safetensors")

    steps_kept = recipe.checkpoint_steps()
    fit(
        task,
        parts,
        steps=recipe.steps,
        max_gradient_norm=recipe.max_gradient_norm,
        callbacks=(
            at_steps(steps_kept, keep),
            at_steps({*steps_kept, recipe.steps}, log_json_lines(out / cards.LOG, measure)),
            every(CHECKPOINT_EVERY, checkpoint(resumable)),
            lambda run: progress(run.step, recipe.steps, run.loss),
        ),
        run=run,
    )
    _finish(recipe, out, model, corpus, seconds=before + time.monotonic() - clock, device=device)
    return out


def _finish(recipe: Recipe, out: Path, model: AttentionOnly, corpus: Corpus, *, seconds: float, device: str) -> None:
    """Write the shipped files; card.json, without which the folder is not a model, comes last."""
    weights = {name: tensor.detach().half().cpu() for name, tensor in model.state_dict().items()}
    save_whole(weights, out / cards.WEIGHTS)
    (out / "config.json").write_bytes(msgspec.json.format(msgspec.json.encode(recipe.config), indent=2) + b"\n")
    corpus.tokenizer.save(str(out / "tokenizer.json"))
    kept = sorted((out / "kept").glob("*.safetensors"))
    if kept:
        packing.pack({int(path.stem): load_file(path) for path in kept}, out / cards.CHECKPOINTS)
    stored = AttentionOnly(recipe.config)
    stored.load_state_dict({name: tensor.float() for name, tensor in weights.items()})
    cards.write(
        cards.Card(
            recipe=recipe,
            corpus=cards.CorpusFacts(
                source="CPython standard library (*.py)",
                python=corpus.python,
                files=corpus.files,
                bytes=corpus.bytes,
                train_tokens=len(corpus.train),
                held_out_tokens=len(corpus.held_out),
                sha256=corpus.sha256,
            ),
            parameters=sum(parameter.numel() for parameter in model.parameters()),
            tokens_seen=recipe.steps * recipe.tokens_per_step,
            seconds=round(seconds, 1),
            hardware=cards.hardware(device, torch.get_num_threads()),
            torch=str(torch.__version__),
            metrics=evaluate(stored, corpus.held_out),
            sha256=cards.hashes(out),
        ),
        out,
    )
    # In this order: a run resumed without the kept checkpoints would pack only those that it passes again.
    (out / "training.pt").unlink(missing_ok=True)
    shutil.rmtree(out / "kept", ignore_errors=True)


def _seconds_so_far(log: Path, step: int) -> float:
    rows = [json.loads(line) for line in log.read_text().splitlines()] if log.exists() else []
    return max((row["seconds"] for row in rows if row["step"] <= step), default=0.0)

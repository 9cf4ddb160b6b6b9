"""Training a recipe of the models of indirect objects into a Hugging Face folder (see `zoo.gpt2_training`).

As a program: `python -m zoo.ioi_training NAME OUT [--device cuda]`, where NAME may also be a recipe's JSON file, for
pilots.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from zoo import cards, gpt2_training
from zoo.gpt2_training import Progress
from zoo.in_context_model import build
from zoo.ioi_batches import IoiBatch, batch_at, loss
from zoo.ioi_cards import IoiCard, IoiFacts
from zoo.ioi_evaluation import evaluate
from zoo.ioi_recipes import IOI_RECIPES, IoiRecipe
from zoo.ioi_text import text_sha256, vocabulary

if TYPE_CHECKING:
    from transformers import GPT2LMHeadModel

CHECKPOINT_EVERY = 250


def train(
    recipe: IoiRecipe,
    out: Path,
    *,
    device: str = "cpu",
    progress: Progress = lambda step, steps, loss: None,
) -> Path:
    """Train `recipe` into the folder `out`, going on from where a killed run stopped; returns `out`.

    On CPU with the same number of threads a resumed run gives the weights of an undisturbed one, bit for bit.

    Args:
        progress: called after every step with the step, the number of steps and the loss.
    """
    words = vocabulary().get_vocab()
    model = build(recipe.shape, len(words), recipe.seed).to(device)

    def batches(step: int) -> IoiBatch:
        return batch_at(step, recipe=recipe, vocabulary=words).to(device)

    def weighted(model: GPT2LMHeadModel, batch: IoiBatch) -> Tensor:
        return loss(model, batch, recipe.answer_weight)

    seconds = gpt2_training.train_in(
        out,
        recipe,
        model,
        batches=batches,
        loss=weighted,
        metrics=lambda model: evaluate(model, words),
        progress=progress,
        checkpoint_every=CHECKPOINT_EVERY,
    )
    _finish(recipe, out, model, seconds=seconds, device=device)
    return out


def _finish(recipe: IoiRecipe, out: Path, model: GPT2LMHeadModel, *, seconds: float, device: str) -> None:
    """Write the shipped files; card.json, without which the folder is not a model, comes last."""
    tokenizer = vocabulary()
    stored = gpt2_training.write_model(out, recipe, model, tokenizer)
    card = IoiCard(
        recipe=recipe,
        text=IoiFacts.of(tokenizer.get_vocab_size(), text_sha256()),
        parameters=sum(parameter.numel() for parameter in model.parameters()),
        tokens_seen=recipe.steps * recipe.rows * (recipe.shape.n_ctx - 1),
        seconds=round(seconds, 1),
        hardware=cards.hardware(device, torch.get_num_threads()),
        torch=str(torch.__version__),
        metrics=evaluate(stored, tokenizer.get_vocab(), n=2_400),
        sha256=cards.hashes(out),
    )
    cards.write(card, out)
    gpt2_training.remove_state(out)


def main(arguments: list[str] | None = None) -> None:
    """The program: train a recipe and report every `log_every` steps."""
    gpt2_training.program(
        arguments,
        IOI_RECIPES,
        IoiRecipe,
        lambda recipe, out, device, say: train(recipe, out, device=device, progress=say),
    )


if __name__ == "__main__":
    main()

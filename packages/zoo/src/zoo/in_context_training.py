"""Training an in-context recipe into a Hugging Face folder, resumable at any moment (see `zoo.gpt2_training`).

As a program: `python -m zoo.in_context_training NAME OUT [--device cuda]`, where NAME may also be a recipe's JSON file,
for pilots.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import torch

from zoo import cards, gpt2_training
from zoo.gpt2_training import Progress
from zoo.in_context_batches import batch_at
from zoo.in_context_cards import InContextCard, MaterialFacts
from zoo.in_context_evaluation import evaluate
from zoo.in_context_model import Batch, build, loss
from zoo.in_context_recipes import IN_CONTEXT_RECIPES, InContextRecipe
from zoo.in_context_text import Material, material

if TYPE_CHECKING:
    from transformers import GPT2LMHeadModel

CHECKPOINT_EVERY = 500


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
    text = text or material(kind=recipe.lists)
    model = build(recipe.shape, text.tokenizer.get_vocab_size(), recipe.seed).to(device)

    def batches(step: int) -> Batch:
        return batch_at(step, material=text, recipe=recipe).to(device)

    seconds = gpt2_training.train_in(
        out,
        recipe,
        model,
        batches=batches,
        loss=loss,
        metrics=lambda model: evaluate(model, text),
        progress=progress,
        checkpoint_every=CHECKPOINT_EVERY,
    )
    _finish(recipe, out, model, text, seconds=seconds, device=device)
    return out


def _finish(
    recipe: InContextRecipe, out: Path, model: GPT2LMHeadModel, text: Material, *, seconds: float, device: str
) -> None:
    """Write the shipped files; card.json, without which the folder is not a model, comes last."""
    stored = gpt2_training.write_model(out, recipe, model, text.tokenizer)
    card = InContextCard(
        recipe=recipe,
        material=MaterialFacts.of(text),
        parameters=sum(parameter.numel() for parameter in model.parameters()),
        rows_seen=recipe.steps * recipe.rows,
        seconds=round(seconds, 1),
        hardware=cards.hardware(device, torch.get_num_threads()),
        torch=str(torch.__version__),
        metrics=evaluate(stored, text),
        sha256=cards.hashes(out),
    )
    cards.write(card, out)
    gpt2_training.remove_state(out)


def named_recipe(name: str) -> InContextRecipe:
    """A shipped recipe by its name, or the recipe in a JSON file.

    Raises:
        ValueError: if it is neither.
    """
    return gpt2_training.named(name, IN_CONTEXT_RECIPES, InContextRecipe)


def main(arguments: list[str] | None = None) -> None:
    """The program: train a recipe and report every `log_every` steps."""
    gpt2_training.program(
        arguments,
        IN_CONTEXT_RECIPES,
        InContextRecipe,
        lambda recipe, out, device, say: train(recipe, out, device=device, progress=say),
    )


if __name__ == "__main__":
    main()

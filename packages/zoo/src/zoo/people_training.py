"""Training a recipe of the models about people into a Hugging Face folder, resumable (see `zoo.gpt2_training`).

As a program: `python -m zoo.people_training NAME OUT [--device cuda]`, where NAME may also be a recipe's JSON file,
for pilots.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import torch

from zoo import cards, gpt2_training
from zoo.gpt2_training import Progress
from zoo.in_context_model import build
from zoo.people_batches import PeopleBatch, batches, loss, tokens_seen
from zoo.people_cards import PeopleCard, PeopleFacts
from zoo.people_evaluation import evaluate
from zoo.people_recipes import PEOPLE_RECIPES, PeopleRecipe
from zoo.people_text import text_sha256, vocabulary

if TYPE_CHECKING:
    from transformers import GPT2LMHeadModel

CHECKPOINT_EVERY = 250


def train(
    recipe: PeopleRecipe,
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
    batch_at = batches(recipe, words)

    def batch(step: int) -> PeopleBatch:
        return batch_at(step).to(device)

    seconds = gpt2_training.train_in(
        out,
        recipe,
        model,
        batches=batch,
        loss=lambda model, batch: loss(model, batch, words, recipe.weights),
        metrics=lambda model: evaluate(model, words),
        progress=progress,
        checkpoint_every=CHECKPOINT_EVERY,
    )
    _finish(recipe, out, model, seconds=seconds, device=device)
    return out


def _finish(recipe: PeopleRecipe, out: Path, model: GPT2LMHeadModel, *, seconds: float, device: str) -> None:
    """Write the shipped files; card.json, without which the folder is not a model, comes last."""
    tokenizer = vocabulary()
    stored = gpt2_training.write_model(out, recipe, model, tokenizer)
    card = PeopleCard(
        recipe=recipe,
        text=PeopleFacts.of(tokenizer.get_vocab_size(), text_sha256()),
        parameters=sum(parameter.numel() for parameter in model.parameters()),
        tokens_seen=tokens_seen(recipe),
        seconds=round(seconds, 1),
        hardware=cards.hardware(device, torch.get_num_threads()),
        torch=str(torch.__version__),
        metrics=evaluate(stored, tokenizer.get_vocab(), texts=2_048),
        sha256=cards.hashes(out),
    )
    cards.write(card, out)
    gpt2_training.remove_state(out)


def main(arguments: list[str] | None = None) -> None:
    """The program: train a recipe and report every `log_every` steps."""
    gpt2_training.program(
        arguments,
        PEOPLE_RECIPES,
        PeopleRecipe,
        lambda recipe, out, device, say: train(recipe, out, device=device, progress=say),
    )


if __name__ == "__main__":
    main()

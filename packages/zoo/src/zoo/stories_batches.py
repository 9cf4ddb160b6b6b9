"""Batches of documents, each a function of (seed, step) alone, and the loss on them.

The documents of `CHUNK` steps are drawn together and sorted by their length, so that a batch has hardly any padding; in
which order the batches of a chunk come is drawn too. No document is repeated but by chance.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from random import Random
from typing import TYPE_CHECKING

import torch
from jaxtyping import Float, Int
from torch import Tensor
from torch.nn import functional

from zoo.segments import NO_TARGET
from zoo.stories_lexicon import shown_words
from zoo.stories_recipes import StoriesRecipe, Weights
from zoo.stories_text import Document, question_document, story_document
from zoo.words import BOS_ID

if TYPE_CHECKING:
    from transformers import GPT2LMHeadModel

CHUNK = 8


@dataclass(frozen=True)
class StoryBatch:
    """Rows, the word that follows each position (or `segments.NO_TARGET`), and what each word's loss weighs."""

    tokens: Int[Tensor, "row pos"]
    targets: Int[Tensor, "row pos"]
    weights: Float[Tensor, "row pos"]

    def to(self, device: str | torch.device) -> StoryBatch:
        return StoryBatch(self.tokens.to(device), self.targets.to(device), self.weights.to(device))


def encode(documents: Sequence[Document], vocabulary: Mapping[str, int], weights: Weights) -> StoryBatch:
    """BOS, a document and BOS a row, with BOS as padding on the right, and what each word weighs in the loss."""
    rows = [[vocabulary[word] for word in document.words] for document in documents]
    width = max(map(len, rows)) + 1
    tokens = torch.tensor([[BOS_ID, *row, *[BOS_ID] * (width - 1 - len(row))] for row in rows])
    targets = torch.tensor([[*row, BOS_ID, *[NO_TARGET] * (width - 1 - len(row))] for row in rows])
    shown = torch.zeros(max(vocabulary.values()) + 1, dtype=torch.bool)
    shown[[vocabulary[word] for word in shown_words()]] = True
    answers = torch.zeros_like(targets, dtype=torch.bool)
    for row, document in enumerate(documents):
        answers[row, list(document.answers)] = True
    parts = (
        (1.0, targets != NO_TARGET),
        (weights.shown, (targets != NO_TARGET) & shown[targets.clamp(min=0)]),
        (weights.answers, answers),
    )
    together = sum((weight * part.float() / part.sum().clamp(min=1) for weight, part in parts), torch.zeros(()))
    return StoryBatch(tokens, targets, together)


def documents(recipe: StoriesRecipe, chunk: int) -> list[list[Document]]:
    """The documents of the batches of a chunk."""
    random = Random((recipe.seed << 32) + chunk)
    n_questions = round(recipe.question_share * recipe.rows * CHUNK)
    forms = recipe.forms(chunk * CHUNK)
    drawn = [question_document(random, forms) for _ in range(n_questions)]
    drawn += [story_document(random, forms) for _ in range(recipe.rows * CHUNK - n_questions)]
    drawn.sort(key=lambda document: len(document.words))
    batches = [drawn[start : start + recipe.rows] for start in range(0, len(drawn), recipe.rows)]
    random.shuffle(batches)
    return batches


def batches(recipe: StoriesRecipe, vocabulary: Mapping[str, int]) -> Callable[[int], StoryBatch]:
    """The training batch as a function of the step; the last chunk drawn is kept."""
    kept: dict[int, list[list[Document]]] = {}

    def batch_at(step: int) -> StoryBatch:
        chunk, place = divmod(step, CHUNK)
        if chunk not in kept:
            kept.clear()
            kept[chunk] = documents(recipe, chunk)
        return encode(kept[chunk][place], vocabulary, recipe.weights)

    return batch_at


def tokens_seen(recipe: StoriesRecipe) -> int:
    """How many words (BOS at the end of each document included) a run of the recipe predicts."""
    found = 0
    for chunk in range(-(-recipe.steps // CHUNK)):
        for batch in documents(recipe, chunk)[: recipe.steps - chunk * CHUNK]:
            found += sum(len(document.words) + 1 for document in batch)
    return found


def loss(model: GPT2LMHeadModel, batch: StoryBatch) -> Tensor:
    """The weighted sum of the words' losses, in nats."""
    resid = model.transformer(batch.tokens, use_cache=False).last_hidden_state
    asked = batch.targets != NO_TARGET
    losses = functional.cross_entropy(model.lm_head(resid[asked]), batch.targets[asked], reduction="none")
    return (batch.weights[asked] * losses).sum()

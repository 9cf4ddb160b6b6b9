"""Batches of documents about people, each a function of (seed, step) alone, and the loss on them."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, fields
from random import Random
from typing import TYPE_CHECKING

import torch
from jaxtyping import Float, Int
from torch import Tensor
from torch.nn import functional

from zoo.people_recipes import PeopleRecipe, Weights
from zoo.people_text import LETTERS, VALUES, Choice, Document, draw
from zoo.segments import NO_TARGET
from zoo.words import BOS_ID

if TYPE_CHECKING:
    from transformers import GPT2LMHeadModel

CHUNK = 8


@dataclass(frozen=True)
class Choices:
    """Choices of a batch: the row and position behind which each is made, what is right, and what it weighs."""

    rows: Int[Tensor, " choice"]
    positions: Int[Tensor, " choice"]
    right: Int[Tensor, " choice"]
    weights: Float[Tensor, " choice"]

    @classmethod
    def of(cls, choices: Iterable[tuple[int, Choice]], undecided: float) -> Choices:
        found = [(row, 1 + each.behind, each.right, each.decided) for row, each in choices]
        rows, positions, right, decided = torch.tensor(found, dtype=torch.int64).reshape(-1, 4).unbind(1)
        return cls(rows, positions, right, torch.where(decided > 0, 1.0, undecided))

    def loss(self, logits: Float[Tensor, "choice option"]) -> Tensor:
        """The weighted mean of the cross entropies."""
        losses = functional.cross_entropy(logits, self.right, reduction="none")
        return (self.weights * losses).sum() / self.weights.sum().clamp(min=1e-9)


@dataclass(frozen=True)
class PeopleBatch:
    """Rows, the word that follows each position (or `segments.NO_TARGET`), and the choices of letters and names."""

    tokens: Int[Tensor, "row pos"]
    targets: Int[Tensor, "row pos"]
    letters: Choices
    names: Choices

    def to(self, device: str | torch.device) -> PeopleBatch:
        letters, names = (
            Choices(*(getattr(of, field.name).to(device) for field in fields(of))) for of in (self.letters, self.names)
        )
        return PeopleBatch(self.tokens.to(device), self.targets.to(device), letters, names)


def encode(documents: Sequence[Document], vocabulary: Mapping[str, int], weights: Weights) -> PeopleBatch:
    """BOS, a document and BOS a row, with BOS as padding on the right."""
    rows = [[vocabulary[word] for word in document.words] for document in documents]
    width = max(map(len, rows)) + 1
    tokens = torch.tensor([[BOS_ID, *row, *[BOS_ID] * (width - 1 - len(row))] for row in rows])
    targets = torch.tensor([[*row, BOS_ID, *[NO_TARGET] * (width - 1 - len(row))] for row in rows])
    letters = [(row, each) for row, document in enumerate(documents) for each in document.letters]
    names = [(row, each) for row, document in enumerate(documents) for each in document.names]
    return PeopleBatch(tokens, targets, Choices.of(letters, weights.undecided), Choices.of(names, weights.undecided))


def documents(recipe: PeopleRecipe, chunk: int) -> list[list[Document]]:
    """The documents of the batches of a chunk, in each batch of about one length."""
    random = Random((recipe.seed << 32) + chunk)
    mixture = recipe.mixture_at(chunk * CHUNK)
    drawn = sorted((draw(random, mixture) for _ in range(recipe.rows * CHUNK)), key=lambda each: len(each.words))
    batches = [drawn[start : start + recipe.rows] for start in range(0, len(drawn), recipe.rows)]
    random.shuffle(batches)
    return batches


def batches(recipe: PeopleRecipe, vocabulary: Mapping[str, int]) -> Callable[[int], PeopleBatch]:
    """The training batch as a function of the step; the last chunk drawn is kept."""
    kept: dict[int, list[list[Document]]] = {}

    def batch_at(step: int) -> PeopleBatch:
        chunk, place = divmod(step, CHUNK)
        if chunk not in kept:
            kept.clear()
            kept[chunk] = documents(recipe, chunk)
        return encode(kept[chunk][place], vocabulary, recipe.weights)

    return batch_at


def tokens_seen(recipe: PeopleRecipe) -> int:
    """How many words (BOS at the end of each document included) a run of the recipe predicts."""
    found = 0
    for chunk in range(-(-recipe.steps // CHUNK)):
        for batch in documents(recipe, chunk)[: recipe.steps - chunk * CHUNK]:
            found += sum(len(document.words) + 1 for document in batch)
    return found


def loss(model: GPT2LMHeadModel, batch: PeopleBatch, vocabulary: Mapping[str, int], weights: Weights) -> Tensor:
    """The loss of the recipes' module, in nats."""
    resid = model.transformer(batch.tokens, use_cache=False).last_hidden_state
    logits = model.lm_head(resid)
    words = functional.cross_entropy(logits.flatten(0, 1), batch.targets.flatten(), ignore_index=NO_TARGET)
    return weights.words * words + sum(
        (
            of.loss(logits[of.rows, of.positions][:, [vocabulary[word] for word in among]])
            for of, among in ((batch.letters, LETTERS), (batch.names, VALUES))
        ),
        torch.zeros((), device=resid.device),
    )

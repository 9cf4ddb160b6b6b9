"""Batches of rows of sentences, each a function of (seed, step) alone, and the loss on them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from random import Random
from typing import TYPE_CHECKING

import torch
from jaxtyping import Bool, Int
from torch import Tensor
from torch.nn import functional

from zoo.ioi_recipes import IoiRecipe
from zoo.ioi_text import Document, document
from zoo.words import BOS_ID

if TYPE_CHECKING:
    from transformers import GPT2LMHeadModel


@dataclass(frozen=True)
class IoiBatch:
    """Rows, each BOS and as many words as fit, and which of their tokens are answers."""

    tokens: Int[Tensor, "row pos"]
    answers: Bool[Tensor, "row pos"]

    def to(self, device: str | torch.device) -> IoiBatch:
        return IoiBatch(self.tokens.to(device), self.answers.to(device))


def encode(documents: Sequence[Document], vocabulary: Mapping[str, int]) -> IoiBatch:
    """One row a document; all must be equally long."""
    tokens = torch.tensor([[BOS_ID, *(vocabulary[word] for word in each.words)] for each in documents])
    answers = torch.zeros_like(tokens, dtype=torch.bool)
    for row, each in enumerate(documents):
        answers[row, [place + 1 for place in each.answers]] = True
    return IoiBatch(tokens, answers)


def batch_at(step: int, *, recipe: IoiRecipe, vocabulary: Mapping[str, int]) -> IoiBatch:
    """The training batch of a step."""
    random, (mix, habits) = Random((recipe.seed << 32) + step), recipe.stage(step)
    length = recipe.shape.n_ctx - 1
    return encode([document(random, mix.shares, habits, length) for _ in range(recipe.rows)], vocabulary)


def loss(model: GPT2LMHeadModel, batch: IoiBatch, answer_weight: float) -> Tensor:
    """The mean loss over all words, in nats, and that over the answers times its weight."""
    logits = model(batch.tokens, use_cache=False).logits[:, :-1]
    losses = functional.cross_entropy(logits.flatten(0, 1), batch.tokens[:, 1:].flatten(), reduction="none")
    answers = batch.answers[:, 1:].flatten()
    return losses.mean() + answer_weight * (losses * answers).sum() / answers.sum().clamp(min=1)

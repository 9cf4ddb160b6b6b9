"""Fluency: how well the model predicts a text, and how much a vector changes that.

    loss_t = -log p(t | what is before it), nats          perplexity = exp(sum of losses / number of tokens)

The fluency of completions is their perplexity under the unsteered model, the tokens of their prompts being read but not
counted. The test of Turner et al. 2023 is another one: the perplexity of given texts with a vector against without,

    ratio = exp(mean over texts of (mean loss with - mean loss without))

on texts about the vector's topic, where it should be below 1, and on other texts, where it should be about 1. A ratio
below 1 on both says that the vector makes the model better in general, or is an artefact.

Rows run in batches, padded on the left, and give what they give one at a time but for rounding. Logits exist for a
block of the vocabulary at a time.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from interventions import Model
from steering.batches import in_batches
from steering.errors import SteeringError
from steering.intervals import Interval, Quotient, difference
from steering.passes import passes_of
from steering.steering import Steer
from steering.texts import encode


@dataclass(frozen=True)
class Losses:
    """Losses of the counted tokens of every row, nats; a row may have none."""

    rows: tuple[Float[Tensor, " _"], ...]

    def __len__(self) -> int:
        return len(self.rows)

    @property
    def sums(self) -> Float[Tensor, " row"]:
        """Sum of the losses of each row, nats."""
        return torch.stack([row.double().sum() for row in self.rows])

    @property
    def tokens(self) -> Float[Tensor, " row"]:
        """How many tokens count in each row."""
        return torch.tensor([len(row) for row in self.rows], dtype=torch.float64)

    @property
    def per_row(self) -> Float[Tensor, " row"]:
        """Perplexity of each row; NaN for a row without tokens."""
        return (self.sums / self.tokens).exp()

    @property
    def pooled(self) -> float:
        """Perplexity of all tokens together."""
        return float((self.sums.sum() / self.tokens.sum()).exp())

    def interval(self, *, seed: int, level: float = 0.95, resamples: int = 1000) -> Interval:
        """The pooled perplexity, rows resampled."""
        quotient = Quotient(self.sums, self.tokens)
        return quotient.interval(seed=seed, level=level, resamples=resamples, transform=torch.exp)


def completion_losses(
    model: Model,
    prompts: Sequence[Sequence[int]],
    completions: Sequence[Sequence[int]],
    *,
    steers: Sequence[Steer] = (),
    batch_size: int = 16,
) -> Losses:
    """Losses of the tokens of completions, each behind the tokens of its prompt.

    Args:
        steers: by default the model is unsteered. Positions see prompt and completion as one text: where they depend on
            the prompt's length, give it to them.

    Raises:
        SteeringError: not as many completions as prompts, none, a prompt without tokens, or a batch of no rows.
    """
    if len(prompts) != len(completions) or not prompts or not all(prompts):
        shortest = min(map(len, prompts), default=0)
        raise SteeringError(
            f"{len(prompts)} prompts, the shortest of {shortest} tokens, and {len(completions)} completions: expected "
            f"one of each for every row, and prompts of at least one token (the BOS)"
        )
    whole = [[*prompt, *completion] for prompt, completion in zip(prompts, completions, strict=True)]
    found, passes = [torch.empty(0)] * len(prompts), passes_of(model)
    for batch in in_batches(whole, batch_size):
        rows, counts = [whole[row] for row in batch.rows], [len(completions[row]) for row in batch.rows]
        if not any(counts):
            continue
        for row, losses in zip(batch.rows, passes.losses(rows, counts, [*map(batch.of, steers)]), strict=True):
            found[row] = losses
    return Losses(tuple(found))


def text_losses(
    model: Model, texts: Sequence[str], *, steers: Sequence[Steer] = (), skip: int = 0, batch_size: int = 16
) -> Losses:
    """Losses of the tokens of texts: all but a BOS, or but the first token where the model has none.

    Args:
        skip: so many tokens at the beginning of each text are read and not counted: those at which activation addition
            acts are not what it should be judged by.

    Raises:
        SteeringError: there is no text, or one has no token left to count.
    """
    rows = [encode(model, text) for text in texts]
    if not rows:
        raise SteeringError("no texts: expected at least one")
    if (shortest := min(map(len, rows))) < 2 + skip:
        raise SteeringError(
            f"a text of {shortest} tokens with skip={skip}: expected at least {2 + skip}, BOS included, so that one "
            f"counts; leave that text out"
        )
    start = 1 + skip
    return completion_losses(
        model, [row[:start] for row in rows], [row[start:] for row in rows], steers=steers, batch_size=batch_size
    )


@dataclass(frozen=True)
class PerplexityRatio:
    """Losses of the same texts with and without a vector."""

    plain: Losses
    steered: Losses

    @property
    def log_ratios(self) -> Float[Tensor, " text"]:
        """Mean loss with the vector minus mean loss without, of each text, nats per token."""
        return (self.steered.sums - self.plain.sums) / self.plain.tokens

    def interval(self, *, seed: int, level: float = 0.95, resamples: int = 1000) -> Interval:
        """The ratio of perplexities, a mean of the texts' in the logarithm; texts resampled."""
        quotient = Quotient.mean(self.log_ratios)
        return quotient.interval(seed=seed, level=level, resamples=resamples, transform=torch.exp)


@dataclass(frozen=True)
class TopicTest:
    """The ratio on texts about a topic and on other texts."""

    on_topic: PerplexityRatio
    off_topic: PerplexityRatio

    def contrast(self, *, seed: int, level: float = 0.95, resamples: int = 1000) -> Interval:
        """How far the ratio on the topic is below that off it, in nats per token (off - on): above 0 where the vector
        is about the topic. Texts of both sides resampled, each on its own."""
        off, on = (Quotient.mean(side.log_ratios) for side in (self.off_topic, self.on_topic))
        return difference(off, on, seed=seed, level=level, resamples=resamples, paired=False)


def perplexity_ratio(
    model: Model, texts: Sequence[str], *, steers: Sequence[Steer], skip: int = 0, batch_size: int = 16
) -> PerplexityRatio:
    """The perplexity of texts with vectors against without.

    Raises:
        SteeringError: as `text_losses`; or there is no vector.
    """
    if not steers:
        raise SteeringError("no steers: expected at least one, to compare with the unsteered model")
    return PerplexityRatio(
        text_losses(model, texts, skip=skip, batch_size=batch_size),
        text_losses(model, texts, steers=steers, skip=skip, batch_size=batch_size),
    )


def topic_test(
    model: Model,
    on_topic: Sequence[str],
    off_topic: Sequence[str],
    *,
    steers: Sequence[Steer],
    skip: int = 0,
    batch_size: int = 16,
) -> TopicTest:
    """The test of Turner et al. 2023: the perplexity ratio on texts about the vector's topic, and on others.

    Raises:
        SteeringError: as `perplexity_ratio`.
    """
    sides = [
        perplexity_ratio(model, texts, steers=steers, skip=skip, batch_size=batch_size)
        for texts in (on_topic, off_topic)
    ]
    return TopicTest(*sides)

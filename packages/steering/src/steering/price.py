"""The price of steering: how much worse the model gets at something that the vector is not about.

    accuracy = share of prompts after which the right answer's first token is the likeliest one

with and without vectors, on the same prompts. Rimsky et al. 2024 do so with questions of MMLU; any prompts serve whose
next word the unsteered model knows.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from interventions import Model
from steering.batches import in_batches
from steering.errors import SteeringError
from steering.intervals import Interval, Quotient, difference
from steering.passes import passes_of
from steering.steering import Steer
from steering.texts import continuation


@dataclass(frozen=True)
class NextToken:
    """A prompt, and the answer that follows it, with the space that it begins with where there is one."""

    prompt: str
    answer: str


@dataclass(frozen=True)
class Knowledge:
    """What the model makes of prompts: `right`, and the log-probability of the answer's first token, nats."""

    right: Bool[Tensor, " prompt"]
    log_p: Float[Tensor, " prompt"]

    def accuracy(self, *, seed: int = 0, level: float = 0.95, resamples: int = 1000) -> Interval:
        """Prompts resampled.

        Raises:
            SteeringError: a level outside 0 to 1, or no resamples.
        """
        return Quotient.mean(self.right.double()).interval(seed=seed, level=level, resamples=resamples)


@dataclass(frozen=True)
class Price:
    """The same prompts without and with vectors."""

    plain: Knowledge
    steered: Knowledge

    def accuracy(self, *, seed: int = 0, level: float = 0.95, resamples: int = 1000) -> Interval:
        """Accuracy with minus accuracy without: below 0 where steering costs something.

        Raises:
            SteeringError: as `Knowledge.accuracy`.
        """
        pair = [Quotient.mean(each.right.double()) for each in (self.steered, self.plain)]
        return difference(*pair, seed=seed, level=level, resamples=resamples)

    def log_p(self, *, seed: int = 0, level: float = 0.95, resamples: int = 1000) -> Interval:
        """Mean log-probability of the answer with minus without, nats.

        Raises:
            SteeringError: as `Knowledge.accuracy`.
        """
        pair = [Quotient.mean(each.log_p) for each in (self.steered, self.plain)]
        return difference(*pair, seed=seed, level=level, resamples=resamples)


def knowledge(
    model: Model, prompts: Sequence[NextToken], *, steers: Sequence[Steer] = (), batch_size: int = 16
) -> Knowledge:
    """Which answers the model knows, steered or not.

    Raises:
        SteeringError: no prompts, or an answer without tokens of its own; else as `steering.steered`.
    """
    if not prompts:
        raise SteeringError("no prompts: expected at least one with its answer")
    encoded = [continuation(model, each.prompt, each.answer) for each in prompts]
    rows = [row for row, _ in encoded]
    right, log_p = torch.empty(len(rows), dtype=torch.bool), torch.empty(len(rows))
    passes = passes_of(model)
    for batch in in_batches(rows, batch_size):
        places = list(batch.rows)
        answers: Int[Tensor, " row"] = torch.tensor([encoded[row][1][0] for row in places])
        found = passes.likeliest([rows[row] for row in places], answers, [*map(batch.of, steers)])
        right[places], log_p[places] = found[0] == answers, found[1]
    return Knowledge(right, log_p)


def price(model: Model, prompts: Sequence[NextToken], *, steers: Sequence[Steer], batch_size: int = 16) -> Price:
    """What steering costs on prompts that it is not about.

    Raises:
        SteeringError: as `knowledge`; or there is no vector.
    """
    if not steers:
        raise SteeringError("no steers: expected at least one, to compare with the unsteered model")
    return Price(
        knowledge(model, prompts, batch_size=batch_size),
        knowledge(model, prompts, steers=steers, batch_size=batch_size),
    )

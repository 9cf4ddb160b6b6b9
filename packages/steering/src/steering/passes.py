"""What measurements ask of a model, whoever computes: a batch of texts, a token a row behind them, vectors acting.

    `EnginePasses`      the network in memory, with hooks (`engine_passes`); what the others are compared with
    `TracedPasses`      nnsight, here or on NDIF: a batch is one request, also while it is written (`traced_passes`)
    `ServedPasses`      an nnsight server: a request a text, and one for each token whose logits are needed

Which of them it is says the model: `interventions.backends.Traced` is run by nnsight, every other by the engine.
"""

from __future__ import annotations

from collections.abc import Generator, Sequence
from typing import Literal, Protocol, runtime_checkable

from jaxtyping import Bool, Float, Float64, Int
from torch import Tensor

from interventions import Model, Prompts
from interventions.backends import Traced
from steering.sampling import Sampling
from steering.steering import Steer
from steering.vectors import Component

Rows = Sequence[Sequence[int]]
At = int | Literal["mean"] | None
"""A position counted from the end, the mean of the tokens without BOS, or None for all, of rows of one length."""

Drawn = Generator[tuple[Int[Tensor, " row"], Bool[Tensor, " row"]], None, None]
"""Step by step a token a row, and whether its logits are numbers."""


@runtime_checkable
class Passes(Protocol):
    """Steers are for the rows of the batch; what comes back is on the CPU."""

    def streams(
        self, rows: Rows, component: Component, layers: Sequence[int], read: At
    ) -> Float[Tensor, "row layer *pos d_model"]:
        """The unsteered stream, float32."""

    def behind(
        self, rows: Rows, asked: Int[Tensor, "row asked"], steers: Sequence[Steer]
    ) -> Float[Tensor, "row asked"]:
        """Log-probabilities of tokens behind the last one."""

    def behind_each(
        self, rows: Rows, asked: Int[Tensor, "row asked"], conditions: Sequence[Sequence[Steer]]
    ) -> list[Float[Tensor, "row asked"]]:
        """The same under each of several conditions, whose steers act together."""

    def likeliest(
        self, rows: Rows, asked: Int[Tensor, " row"], steers: Sequence[Steer]
    ) -> tuple[Int[Tensor, " row"], Float[Tensor, " row"]]:
        """The likeliest token behind the last one, and the log-probability of another."""

    def losses(self, rows: Rows, counts: Sequence[int], steers: Sequence[Steer]) -> list[Float[Tensor, " _"]]:
        """-log p of the last `counts` tokens of each row."""

    def drawn(
        self,
        prompts: Prompts,
        places: Int[Tensor, " row"],
        n: int,
        sampling: Sampling,
        steers: Sequence[Steer],
        bias: Float[Tensor, " d_vocab"] | None,
        ends: frozenset[int],
    ) -> Drawn:
        """n tokens of each row behind prompts, the first call; rows of these places draw by their own numbers.

        Args:
            bias: added to the logits of every step.
            ends: tokens behind which nothing of a row is looked at any more.
        """

    def sums(
        self, prompts: Rows, new: Rows, steers: Sequence[Steer]
    ) -> tuple[Float64[Tensor, " width"], Float64[Tensor, " width"]]:
        """What predicts the new tokens, with steers and without, added up over them; `as_logits` says of what width."""

    def as_logits(self, found: Float64[Tensor, " width"]) -> Float[Tensor, " d_vocab"]:
        """What such a sum is on the logits, before what some architectures make of these."""


def passes_of(model: Model) -> Passes:
    """Who runs a model's passes."""
    if not isinstance(model, Traced):
        from steering.engine_passes import EnginePasses

        return EnginePasses(model)
    from steering.traced_passes import ServedPasses, TracedPasses

    return ServedPasses(model) if model.serve is not None else TracedPasses(model)

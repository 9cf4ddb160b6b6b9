"""Drawing tokens so that a row's text is its own: by numbers that depend on the seed and the row alone.

    p = softmax(logits / temperature), cut to the top_k tokens and then to the fewest whose sum is at least top_p
    token = the first at which the sum of p, in the order of the vocabulary, is above u        u uniform in [0, 1)

A row's numbers begin the same however many are asked for. What is drawn then depends on other rows by rounding alone.
"""

from __future__ import annotations

import hashlib
import math
from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from steering.errors import SteeringError

_LIKELIEST = 1024  # tokens that are sorted; all of them only where these do not add up to top_p


@dataclass(frozen=True)
class Sampling:
    """How a token is drawn; temperature 0 takes the likeliest.

    Raises:
        SteeringError: a number that means nothing.
    """

    temperature: float = 0.0
    top_k: int | None = None
    top_p: float | None = None
    seed: int = 0

    def __post_init__(self) -> None:
        if not (math.isfinite(self.temperature) and self.temperature >= 0):
            raise SteeringError(f"temperature={self.temperature}: expected 0, for greedy, or a positive number")
        if self.top_k is not None and self.top_k < 1:
            raise SteeringError(f"top_k={self.top_k}: expected at least 1 token, or None for all")
        if self.top_p is not None and not 0 < self.top_p <= 1:
            raise SteeringError(f"top_p={self.top_p}: expected a probability above 0 and up to 1, or None")

    def uniform(self, row: int, n: int) -> Float[Tensor, " token"]:
        """The numbers by which a row draws its tokens: the same first ones whatever n."""
        digest = hashlib.sha256(f"{self.seed}/{row}".encode()).digest()
        generator = torch.Generator().manual_seed(int.from_bytes(digest[:7], "little"))
        return torch.rand(n, generator=generator, dtype=torch.float64)

    def tokens(
        self, logits: Float[Tensor, "row d_vocab"], u: Float[Tensor, " row"]
    ) -> tuple[Int[Tensor, " row"], Bool[Tensor, " row"]]:
        """A token a row, and whether its logits are numbers."""
        if self.temperature == 0:
            best = logits.max(dim=-1)
            return best.indices, best.values.isfinite()
        scores = logits.float() / self.temperature
        if self.top_k is not None and self.top_k < scores.shape[-1]:
            scores = scores.masked_fill(scores < scores.topk(self.top_k).values[:, -1:], -math.inf)
        p = scores.softmax(dim=-1)
        if self.top_p is not None and self.top_p < 1:
            p = _fewest(p, self.top_p)
        sums = p.cumsum(dim=-1)
        total = sums[:, -1:].contiguous()
        drawn = torch.searchsorted(sums, u[:, None].to(sums) * total, right=True)
        last = torch.searchsorted(sums, total)  # u times the sum can round up to it
        return drawn.minimum(last).clamp(max=sums.shape[-1] - 1)[:, 0], total[:, 0].isfinite()


def _fewest(p: Float[Tensor, "row d_vocab"], top_p: float) -> Float[Tensor, "row d_vocab"]:
    """The likeliest tokens alone, as many as it takes for their sum to be at least top_p."""
    ordered, places = p.topk(min(_LIKELIEST, p.shape[-1]), dim=-1)
    if len(ordered[0]) < p.shape[-1] and bool((ordered.sum(dim=-1) < top_p).any()):
        ordered, places = p.sort(dim=-1, descending=True)
    enough = ordered.cumsum(dim=-1) - ordered >= top_p  # without the token
    return torch.zeros_like(p).scatter(-1, places, ordered.masked_fill(enough, 0.0))

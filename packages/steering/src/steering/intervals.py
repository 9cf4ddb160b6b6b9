"""Intervals of what is measured, over prompts: the percentile bootstrap of quotients of sums.

    estimate = f(sum_u a_u / sum_u b_u),    a, b of unit u: a value and 1, or the loss of a text and its tokens

A resample draws as many units as there are, with replacement; the ends are quantiles of the resampled estimates (Efron
and Tibshirani 1993, chapter 13). All conditions that are compared are resampled together, so that a difference on the
same prompts keeps its pairing. A share of exactly 0 or 1 in every unit has an interval of width 0: no bootstrap can see
what did not occur, so take more prompts before such a share is called certain.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from steering.errors import SteeringError

Transform = Callable[[Tensor], Tensor]


@dataclass(frozen=True)
class Interval:
    """An estimate, the ends of its interval, and over how many units; NaN where nothing could be measured."""

    estimate: float
    low: float
    high: float
    n: int

    def __str__(self) -> str:
        return f"{self.estimate:.3g} [{self.low:.3g}, {self.high:.3g}]"


@dataclass(frozen=True)
class Quotient:
    """sum a / sum b over units, and any cells: what an estimate is made of before it is summed.

    `numerator` and `denominator` have the same shape, [unit, *cells].
    """

    numerator: Float[Tensor, "unit ..."]
    denominator: Float[Tensor, "unit ..."]

    def __post_init__(self) -> None:
        if self.numerator.shape != self.denominator.shape or not len(self.numerator):
            raise SteeringError(
                f"numerators {tuple(self.numerator.shape)}, denominators {tuple(self.denominator.shape)}: expected one "
                f"shape, with at least one unit"
            )

    @staticmethod
    def mean(values: Float[Tensor, "unit ..."]) -> Quotient:
        """The mean of values; NaN among them means that there was nothing to measure, and does not count."""
        counted = ~values.isnan()
        return Quotient(values.double().masked_fill(~counted, 0.0), counted.double())

    def estimate(self) -> Float[Tensor, "*cells"]:
        """The quotient; NaN where nothing counted."""
        return self.numerator.double().sum(dim=0) / self.denominator.double().sum(dim=0)

    def resampled(self, *, seed: int, resamples: int) -> Float[Tensor, "resample ..."]:
        """The quotient in each resample of the units."""
        n = len(self.numerator)
        shares = _shares(n, seed=seed, resamples=resamples)
        above, below = (shares @ part.double().reshape(n, -1) for part in (self.numerator, self.denominator))
        return (above / below).view(resamples, *self.numerator.shape[1:])

    def ends(
        self, *, seed: int, level: float = 0.95, resamples: int = 1000, transform: Transform = lambda x: x
    ) -> tuple[Float[Tensor, "*cells"], Float[Tensor, "*cells"]]:
        """Ends of the interval of `transform(quotient)`.

        Raises:
            SteeringError: a level outside 0 to 1, or no resamples.
        """
        return _quantiles(transform(self.resampled(seed=seed, resamples=_checked(level, resamples))), level)

    def interval(
        self, *, seed: int, level: float = 0.95, resamples: int = 1000, transform: Transform = lambda x: x
    ) -> Interval:
        """The interval of a quotient without cells.

        Raises:
            SteeringError: as `ends`; or it has cells.
        """
        if self.numerator.ndim != 1:
            raise SteeringError(f"cells {tuple(self.numerator.shape[1:])}: expected none; take one, or use ends")
        low, high = self.ends(seed=seed, level=level, resamples=resamples, transform=transform)
        return Interval(float(transform(self.estimate())), float(low), float(high), self.counted)

    @property
    def counted(self) -> int:
        """Units in which anything was measured."""
        return int(self.denominator.gt(0).reshape(len(self.denominator), -1).any(dim=1).sum())


def difference(
    one: Quotient,
    other: Quotient,
    *,
    seed: int,
    level: float = 0.95,
    resamples: int = 1000,
    paired: bool = True,
) -> Interval:
    """one - other, of quotients without cells.

    Args:
        paired: both were measured on the same units, which are resampled together; else each side on its own.

    Raises:
        SteeringError: paired, they have other units; one has cells; a level outside 0 to 1, or no resamples.
    """
    shapes = [tuple(side.numerator.shape) for side in (one, other)]
    if any(len(shape) != 1 for shape in shapes) or (paired and shapes[0] != shapes[1]):
        raise SteeringError(
            f"units {shapes[0]} and {shapes[1]}: expected the same, without cells; compare what was measured on one "
            f"set of prompts"
        )
    _checked(level, resamples)
    other_seed = seed if paired else seed + 1
    drawn = one.resampled(seed=seed, resamples=resamples) - other.resampled(seed=other_seed, resamples=resamples)
    low, high = _quantiles(drawn, level)
    estimate = float(one.estimate() - other.estimate())
    return Interval(estimate, float(low), float(high), min(one.counted, other.counted))


def _shares(n: int, *, seed: int, resamples: int) -> Float[Tensor, "resample unit"]:
    """How much of each resample is each unit: all sums are then one product."""
    draws = torch.randint(n, (resamples, n), generator=torch.Generator().manual_seed(seed))
    shares = torch.zeros(resamples, n, dtype=torch.float64)
    return shares.scatter_add_(1, draws, torch.full(draws.shape, 1 / n, dtype=torch.float64))


def _quantiles(drawn: Float[Tensor, "resample ..."], level: float) -> tuple[Tensor, Tensor]:
    ends = torch.tensor([(1 - level) / 2, (1 + level) / 2], dtype=drawn.dtype)
    flat = drawn.reshape(len(drawn), -1)
    # torch.nanquantile takes no more than 2^24 numbers.
    parts = [torch.nanquantile(part, ends, dim=0) for part in torch.split(flat, max(1, 2**23 // len(drawn)), dim=1)]
    low, high = torch.cat(parts, dim=1).view(2, *drawn.shape[1:])
    return low, high


def _checked(level: float, resamples: int) -> int:
    if not 0 < level < 1 or resamples < 1:
        raise SteeringError(
            f"level {level}, {resamples} resamples: expected a level between 0 and 1, at least one resample"
        )
    return resamples

"""Measurements: an estimate with a confidence interval, and the verdict that it gives a claim.

Intervals are percentile bootstraps: resample the n units (prompts, windows of text, or seeds) with replacement, compute
the statistic on every resample, take the central 95 % (Efron and Tibshirani 1993, chapter 13).
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import TYPE_CHECKING, Literal

import msgspec

from reprise.paper import Accept

if TYPE_CHECKING:  # numpy takes longer to import than `reprise list` may take
    import numpy as np
    from numpy.typing import NDArray

    Array = NDArray[np.floating]

Verdict = Literal["supported", "refuted", "inconclusive", "not run"]


class Measurement(msgspec.Struct, frozen=True, kw_only=True):
    """An estimate, its 95 % interval, the number of units that it was resampled over, and what those are."""

    estimate: float
    low: float
    high: float
    n: int
    over: str

    def __post_init__(self) -> None:
        values = (self.estimate, self.low, self.high)
        if not all(math.isfinite(value) for value in values):
            raise ValueError(
                f"measurement {values}: expected finite numbers; a claim cannot be judged by anything else"
            )
        if self.low > self.high:
            raise ValueError(f"interval [{self.low}, {self.high}]: the low end exceeds the high end")


def bootstrap(
    statistic: Callable[..., float | np.floating],
    *samples: Array,
    over: str,
    seed: int,
    resamples: int = 1000,
) -> Measurement:
    """`statistic(*samples)` with a percentile-bootstrap interval over the samples' shared first axis.

    Samples are resampled together (paired), so a difference between two conditions on the same prompts keeps its
    pairing.

    Args:
        over: what the first axis counts, for example "windows of text".

    Raises:
        ValueError: if the samples have different first axes or fewer than two units.
    """
    import numpy as np

    lengths = {len(sample) for sample in samples}
    if len(lengths) != 1 or (n := lengths.pop()) < 2:
        shapes = [np.shape(sample) for sample in samples]
        raise ValueError(
            f"bootstrap over {over}: expected samples with one shared first axis of 2 or more, got {shapes}"
        )
    generator = np.random.default_rng(seed)
    draws = np.array(
        [
            float(statistic(*(sample[index] for sample in samples)))
            for index in (generator.integers(0, n, n) for _ in range(resamples))
        ]
    )
    low, high = np.quantile(draws, [0.025, 0.975])
    return Measurement(estimate=float(statistic(*samples)), low=float(low), high=float(high), n=n, over=over)


def judge(measurement: Measurement | None, accept: Accept) -> Verdict:
    """Supported when the interval lies inside what is accepted, refuted when outside, inconclusive otherwise."""
    if measurement is None:
        return "not run"
    if accept.at_least <= measurement.low and measurement.high <= accept.at_most:
        return "supported"
    if measurement.high < accept.at_least or measurement.low > accept.at_most:
        return "refuted"
    return "inconclusive"

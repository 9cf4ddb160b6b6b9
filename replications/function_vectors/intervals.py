"""Intervals for figures: percentile bootstraps over the first axis, all columns at once (as `reprise.bootstrap`)."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.floating]
RESAMPLES = 1000


def band(values: Array, seed: int) -> tuple[Array, Array, Array]:
    """Mean, low and high end of the central 95 %, of [unit, *columns], units resampled together."""
    n = len(values)
    draws = np.random.default_rng(seed).integers(0, n, (RESAMPLES, n))
    counts = np.stack([np.bincount(draw, minlength=n) for draw in draws]) / n
    means = np.tensordot(counts, values.astype(float), axes=1)
    low, high = np.quantile(means, [0.025, 0.975], axis=0)
    return values.mean(axis=0), low, high


def bars(values: Array, seed: int) -> tuple[Array, Array]:
    """Means, and the lengths of error bars below and above them, [2, *columns]."""
    centre, low, high = band(values, seed)
    return centre, np.stack([centre - low, high - centre]).clip(min=0)

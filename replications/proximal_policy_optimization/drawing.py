"""What the figures share: labels and colours of objectives, curves over seeds with their interval."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from matplotlib.axes import Axes
from numpy.typing import NDArray
from replications.proximal_policy_optimization.scores import run_of
from replications.proximal_policy_optimization.setting import OBJECTIVES, SEEDS, SWEEPS

from reprise import Result, Results
from reprise.plotting import COLOURS

Array = NDArray[np.floating]
BLUE, ORANGE, GREEN, BLACK, GREY = COLOURS[0], COLOURS[1], COLOURS[2], COLOURS[6], "#888888"
SHOWN = ("none", "clip-0.2", "adaptive-0.01", "fixed-1")  # one of each kind, where all would not be told apart


def label(objective: str) -> str:
    """An objective as the paper's Table 1 names it."""
    kind, _, value = objective.partition("-")
    names = {"none": "no clipping or penalty", "clip": f"clipping, ε = {value}"}
    return names.get(kind, f"adaptive KL, target {value}" if kind == "adaptive" else f"fixed KL, β = {value}")


def colour(objective: str) -> str:
    kind = objective.partition("-")[0]
    return {"none": BLACK, "clip": BLUE, "adaptive": ORANGE, "fixed": GREEN}[kind]


def short(environment: str) -> str:
    return environment.rpartition("-")[0]


def runs(results: Results, environment: str, objective: str, stage: str = "train") -> list[Result]:
    """The runs of an environment and an objective that are there."""
    found = (run_of(results, environment, objective, seed, stage) for seed in SEEDS)
    return [run for run in found if run is not None]


def environments(results: Results) -> list[str]:
    """Those of the tier of which there is a run."""
    of = SWEEPS[results.tier].environments
    return [name for name in of if any(runs(results, name, objective) for objective in OBJECTIVES)]


def curves(axes: Axes, x: Array, values: Sequence[Array], *, colour: str, label: str, linestyle: str = "-") -> None:
    """The mean over seeds, with the 95 % bootstrap interval over them; of three seeds that is from lowest to highest.

    Where some seeds have no value (no episode ended in a bin), the last one before counts.
    """
    filled = np.stack([_filled(of) for of in values])
    axes.plot(x, filled.mean(axis=0), color=colour, label=label, linestyle=linestyle)
    if len(filled) > 1:
        axes.fill_between(x, *_interval(filled), color=colour, alpha=0.15, linewidth=0)


def _filled(values: Array) -> Array:
    """Missing values replaced by the last one before, at the start by the first one after."""
    known = np.flatnonzero(~np.isnan(values))
    at = np.searchsorted(known, np.arange(len(values)), side="right") - 1
    return np.asarray(values[known[at.clip(min=0)]])


def _interval(values: Array) -> tuple[Array, Array]:
    """Percentile bootstrap of the mean over the first axis."""
    generator = np.random.default_rng(0)
    chosen = generator.integers(0, len(values), (1000, len(values)))
    low, high = np.quantile(values[chosen].mean(axis=1), [0.025, 0.975], axis=0)
    return low, high


def smooth(values: Array, width: int) -> Array:
    """Means of `width` neighbours, fewer at the ends."""
    if width < 2:
        return values
    weights = np.ones(width)
    return np.asarray(np.convolve(values, weights, "same") / np.convolve(np.ones(len(values)), weights, "same"))

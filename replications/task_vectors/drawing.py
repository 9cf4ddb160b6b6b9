"""What the figures share: intervals, curves over layers, and the two groups of tasks."""

from __future__ import annotations

import numpy as np
from matplotlib.axes import Axes
from replications.task_vectors.claims import Array

from reprise import Result, Results

Z = 1.96


def first(results: Results, stage: str) -> Result:
    """The stage's result for the first model."""
    of = results.of(stage)
    return of[min(of)]


def groups(result: Result) -> list[tuple[str, Array]]:
    """The primary tasks and the others, those that are there, each as a title and a mask."""
    primary = np.array(result.facts["primary"])
    town = "town" in result.facts["kinds"]
    named = (("relations of the town" if town else "tasks", primary), ("natural tasks", ~primary))
    return [(title, mask) for title, mask in named if mask.any()]


def names(result: Result, mask: Array) -> list[str]:
    return [name.replace("_", " ") for name, kept in zip(result.facts["tasks"], mask, strict=True) if kept]


def wilson(right: Array) -> Array:
    """Distances from the mean over prompts to the ends of Wilson's interval, [2, task], for matplotlib."""
    p, n = right.mean(axis=1), right.shape[1]
    middle, scale = p + Z**2 / (2 * n), 1 + Z**2 / n
    width = Z * np.sqrt(p * (1 - p) / n + Z**2 / (4 * n**2))
    return np.stack([p - (middle - width) / scale, (middle + width) / scale - p]).clip(min=0)


def curve(axes: Axes, x: Array, values: Array, *, colour: str, label: str, each: bool = True) -> None:
    """The mean over tasks of [task, x], with a band of 1.96 standard errors and each task as a thin line."""
    for row in values if each else ():
        axes.plot(x, row, color=colour, linewidth=0.6, alpha=0.35)
    mean = values.mean(axis=0)
    axes.plot(x, mean, color=colour, marker="o", markersize=4, label=label)
    if len(values) > 1:
        error = Z * values.std(axis=0, ddof=1) / np.sqrt(len(values))
        axes.fill_between(x, mean - error, mean + error, color=colour, alpha=0.18, linewidth=0)

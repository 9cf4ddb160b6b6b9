"""Figures of the task vectors themselves: in the plane, their distances, and the tokens that they decode to."""

from __future__ import annotations

import matplotlib.pyplot as plt
import numpy as np
from matplotlib.figure import Figure
from replications.task_vectors.drawing import curve, first, groups, names
from replications.task_vectors.grouping import principal_components

from reprise import Results
from reprise.plotting import COLOURS

GREY = "#777777"
MARKERS = "osD^vPX"


def picture(results: Results) -> Figure:
    """Task vectors in the plane: vectors of one task lie together

    Every point is a task vector from demonstrations and a dummy query of its own, at the layer that is best over all
    primary tasks (where none helps: at which they group best), on the first two principal components. The paper shows
    t-SNE; this map is linear and cannot make groups where there are none, but two components hold a small part of the
    variance, and groups that overlap here may lie apart. Labels stand at the means.
    """
    result = first(results, "vectors")
    shown = groups(result)
    figure, grid = plt.subplots(1, len(shown), figsize=(5.0 * len(shown) + 0.4, 4.6), squeeze=False)
    for axes, (title, mask) in zip(grid[0], shown, strict=True):
        points, variance = principal_components(np.asarray(result["states"][mask]))
        for at, (name, of) in enumerate(zip(names(result, mask), points, strict=True)):
            colour, marker = COLOURS[at % len(COLOURS)], MARKERS[at // len(COLOURS) % len(MARKERS)]
            axes.scatter(of[:, 0], of[:, 1], s=13, color=colour, marker=marker, alpha=0.65, linewidths=0)
            x, y = of.mean(axis=0)
            axes.annotate(
                name,
                (x, y),
                fontsize=7,
                ha="center",
                bbox={"facecolor": "white", "alpha": 0.7, "linewidth": 0, "pad": 0.6},
            )
        axes.set(
            title=f"{title}, layer {result.facts['layer']}",
            xlabel=f"component 1 ({variance[0]:.0%} of the variance)",
            ylabel=f"component 2 ({variance[1]:.0%})",
        )
    return figure


def robustness(results: Results) -> Figure | None:
    """Task vectors from other demonstrations and dummy queries: distances, and the nearest centroid, by layer

    Left: mean cosine distance of a vector to those of its own task and to those of other tasks, thin lines are single
    tasks. Right: the share of vectors that lie nearest to the centroid of their own task, itself left out; dashed is
    chance. The line marks the layer at which claims are judged.
    """
    result = first(results, "vectors")
    shown = [(title, mask) for title, mask in groups(result) if mask.sum() > 1]
    if not shown:
        return None
    figure, grid = plt.subplots(len(shown), 2, figsize=(8.0, 3.1 * len(shown)), sharex=True, squeeze=False)
    layers = np.arange(result.facts["n_layers"])
    for (left, right), (title, mask) in zip(grid, shown, strict=True):
        within, between, nearest = (result[name][mask].mean(axis=1) for name in ("within", "between", "nearest"))
        curve(left, layers, within, colour=COLOURS[0], label="same task")
        curve(left, layers, between, colour=COLOURS[1], label="other tasks")
        curve(right, layers, nearest, colour=COLOURS[2], label="own centroid nearest")
        right.axhline(1 / mask.sum(), color=GREY, linestyle="--", label="chance")
        left.set(title=title, ylabel="cosine distance", ylim=(0, None))
        right.set(title="own centroid nearest (dashed: chance)", ylabel="share of vectors", ylim=(0, 1.05))
        for axes in (left, right):
            axes.axvline(result.facts["layer"], color=GREY, linewidth=0.8)
            axes.xaxis.get_major_locator().set_params(integer=True)
        left.legend(fontsize=8, loc="lower right")
    for axes in grid[-1]:
        axes.set_xlabel("layer")
    return figure


def decoded_tokens(results: Results) -> Figure:
    """What task vectors say: the most likely tokens of each task's mean vector

    Final norm and unembedding of the mean of a task's vectors, at the layer that is best over all primary tasks; the
    most likely token first.
    """
    result = first(results, "decoded")
    rows = [
        (name.replace("_", " "), "  ".join(words))
        for name, words in zip(result.facts["tasks"], result.facts["words"], strict=True)
    ]
    figure, axes = plt.subplots(figsize=(9.0, 0.24 * len(rows) + 0.6))
    axes.set(xlim=(0, 1), ylim=(len(rows), -1))
    axes.axis("off")
    for at, (name, words) in enumerate(rows):
        axes.text(0, at, name, fontsize=8, fontweight="bold", va="center", parse_math=False)
        axes.text(0.2, at, words, fontsize=8, va="center", parse_math=False)
    axes.set_title(f"Decoded task vectors, layer {result.facts['layer']}")
    return figure

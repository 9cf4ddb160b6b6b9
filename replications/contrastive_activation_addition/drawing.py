"""What the figures share: intervals, the mean over behaviours, and how panels are laid out."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import matplotlib.pyplot as plt
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from replications.contrastive_activation_addition.measures import Array

from reprise import Results

GREY = "#777777"
RESAMPLES = 1000
MOST_LAYERS = 5  # in a figure with a row of panels a layer


def ends(values: Array, seed: int) -> tuple[Array, Array, Array]:
    """Mean over the first axis, and the ends of its 95 % bootstrap interval; NaN is left out."""
    values = np.asarray(values, dtype=float)
    counted = ~np.isnan(values)
    filled = np.where(counted, values, 0.0).reshape(len(values), -1)
    weights = np.random.default_rng(seed).multinomial(len(values), np.full(len(values), 1 / len(values)), RESAMPLES)
    sums, counts = weights @ filled, weights @ counted.reshape(len(values), -1)
    n = counted.sum(axis=0)
    nothing = np.full(values.shape[1:], np.nan)
    centre = np.divide(np.where(counted, values, 0.0).sum(axis=0), n, out=nothing.copy(), where=n > 0)
    low, high = (nothing.reshape(-1).copy() for _ in range(2))
    some = n.reshape(-1) > 0
    drawn = np.divide(sums, counts, out=np.full(sums.shape, np.nan), where=counts > 0)[:, some]
    low[some], high[some] = np.nanquantile(drawn, [0.025, 0.975], axis=0)
    return centre, low.reshape(values.shape[1:]), high.reshape(values.shape[1:])


def curve(axes: Axes, x: Sequence[float], values: Array, results: Results, **how: Any) -> None:
    """Mean over the first axis of [unit, x] with its band."""
    centre, low, high = ends(values, results.seed)
    (line,) = axes.plot(x, centre, marker="o", markersize=3.5, **how)
    axes.fill_between(x, low, high, color=line.get_color(), alpha=0.16, linewidth=0)


def at_least(axes: Axes, span: float) -> None:
    """Widen the vertical axis so that differences of this size are in it, and smaller ones look small."""
    low, high = axes.get_ylim()
    axes.set_ylim(min(low, -span), max(high, span))


def panels(
    n: int, *, columns: int = 3, width: float = 3.1, height: float = 2.7, **how: Any
) -> tuple[Figure, list[Axes]]:
    """n panels in rows, the rest hidden."""
    columns = min(n, columns)
    rows = -(-n // columns)
    figure, grid = plt.subplots(
        rows, columns, figsize=(width * columns + 0.5, height * rows + 0.6), squeeze=False, **how
    )
    every = list(grid.flat)
    for axes in every[n:]:
        axes.set_visible(False)
    return figure, every[:n]


def shown_layers(n_layers: int, chosen: int) -> list[int]:
    """All layers, or of deep models some from first to last, the chosen one among them."""
    if n_layers <= MOST_LAYERS:
        return list(range(n_layers))
    even = {round(at) for at in np.linspace(0, n_layers - 1, MOST_LAYERS)} - {chosen}
    nearest = min(even - {0, n_layers - 1}, key=lambda layer: abs(layer - chosen))
    return sorted((even - {nearest}) | {chosen})


def heatmap(axes: Axes, values: Array, labels: tuple[Sequence[str], Sequence[str]], **how: Any) -> Any:
    """An image with its numbers where there is room for them; rows are the first axis."""
    image = axes.imshow(values, aspect="auto", **how)
    low, high = image.get_clim()
    if values.size <= 100:
        for (row, column), value in np.ndenumerate(values):
            dark = abs((value - low) / (high - low) - 0.5) > 0.32
            axes.text(
                column,
                row,
                f"{round(float(value), 2) + 0.0:.2f}",
                ha="center",
                va="center",
                fontsize=8,
                color="white" if dark else "black",
            )
    for axis, names in zip((axes.yaxis, axes.xaxis), labels, strict=True):
        step = 1 + len(names) // 16
        axis.set_ticks(range(0, len(names), step), names[::step])
    axes.grid(visible=False)
    return image

"""Matplotlib figures of results; imported when the first one is drawn, since matplotlib is no requirement.

A figure is made without pyplot, so that nothing is shown, kept or changed but the figure that is returned. In a
notebook it shows itself; `figure.savefig(path)` writes it.
"""

from __future__ import annotations

import io
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import torch
from jaxtyping import Float
from torch import Tensor

try:
    from matplotlib.figure import Figure
except ImportError as error:
    raise ImportError(
        f"a figure: expected the package matplotlib, got {error}; run `pip install 'reprise-interventions[plot]'`"
    ) from error

if TYPE_CHECKING:
    from interventions.results import SweepResult

# Okabe and Ito's palette: told apart by readers with any colour vision, and in grey.
COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#000000")
Curve = tuple[Float[Tensor, " x"], Float[Tensor, " x"], Float[Tensor, " x"]]
"""Estimates with the two ends of their intervals."""


class NotebookFigure(Figure):
    """A figure that a notebook shows without pyplot and its settings."""

    def _repr_png_(self) -> bytes:
        buffer = io.BytesIO()
        self.savefig(buffer, format="png", dpi=110)
        return buffer.getvalue()


def sweep(result: SweepResult, title: str | None, label: str) -> NotebookFigure:
    """The mean effects: a heat map over two axes, a line with its 95 % interval over one.

    Raises:
        ValueError: the sweep has three axes.
    """
    title = title or f"{result.component} edited, {len(result.values)} prompts"
    names = [axis.capitalize() for axis in result.axes]
    labels = [list(map(str, result.coordinates[axis])) for axis in result.axes]
    if len(result.axes) == 1:
        curve = (result.mean(), *result.interval(seed=0)) if len(result.values) > 1 else (result.mean(),) * 3
        return lines({"": curve}, labels[0], title=title, x=names[0], y=label)
    if len(result.axes) != 2:
        raise ValueError(f"a sweep over {', '.join(result.axes)}: expected one or two axes to draw; sweep over fewer")
    return heat_map(result.mean(), *labels, title=title, axes=(names[0], names[1]), label=label)


def heat_map(
    values: Float[Tensor, "row column"],
    rows: Sequence[str],
    columns: Sequence[str],
    *,
    title: str,
    axes: tuple[str, str],
    label: str,
    limits: tuple[float, float] | None = None,
) -> NotebookFigure:
    """Numbers as colours, with a bar that names them; blue below 0, red above, unless limits are given."""
    finite = values[values.isfinite()].abs()
    largest = float(finite.max()) if len(finite) else 1.0
    low, high = limits or (-(largest or 1.0), largest or 1.0)
    n_rows, n_columns = values.shape
    size = (min(11.0, max(4.4, 2.4 + 0.42 * n_columns)), min(9.0, max(3.2, 1.5 + 0.38 * n_rows)))
    figure = NotebookFigure(figsize=size, layout="constrained")
    plot = figure.subplots()
    image = plot.imshow(
        values.float().numpy(), cmap="viridis" if limits else "RdBu_r", vmin=low, vmax=high, aspect="auto"
    )
    for axis, names in ((plot.yaxis, rows), (plot.xaxis, columns)):
        step = 1 + (len(names) - 1) // 24
        axis.set_ticks(range(0, len(names), step), list(names[::step]))
    plot.set_ylabel(axes[0])
    plot.set_xlabel(axes[1])
    plot.set_title(title, loc="left", fontsize=10)
    figure.colorbar(image, ax=plot, label=label)
    return figure


def lines(
    curves: Mapping[str, Curve], places: Sequence[str], *, title: str, x: str, y: str, level: float | None = None
) -> NotebookFigure:
    """Curves over labelled places, each with its interval as a band; `level` draws a dashed line to compare with."""
    figure = NotebookFigure(figsize=(5.6, 3.2), layout="constrained")
    plot: Any = figure.subplots()
    at = torch.arange(len(places)).numpy()
    for (name, (middle, low, high)), colour in zip(curves.items(), COLOURS, strict=False):
        plot.plot(at, middle.numpy(), marker="o", color=colour, label=name or None)
        plot.fill_between(at, low.numpy(), high.numpy(), color=colour, alpha=0.2, linewidth=0)
    if level is not None:
        plot.axhline(level, color="#777777", linestyle="--", linewidth=1)
    plot.set_xticks(at, list(places))
    plot.set_xlabel(x)
    plot.set_ylabel(y)
    plot.set_title(title, loc="left", fontsize=10)
    if any(curves):
        plot.legend(frameon=False)
    return figure

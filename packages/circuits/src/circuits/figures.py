"""Matplotlib figures of scores; imported when the first one is drawn, since matplotlib is no requirement.

A figure is made without pyplot, so that nothing is shown, kept or changed but the figure that is returned. In a
notebook it shows itself; `figure.savefig(path)` writes it.
"""

from __future__ import annotations

import io
from collections.abc import Sequence
from typing import Any

from jaxtyping import Float
from torch import Tensor

try:
    from matplotlib.figure import Figure
except ImportError as error:
    raise ImportError(
        f"a figure: expected the package matplotlib, got {error}; run `pip install 'reprise-circuits[plot]'`"
    ) from error


class NotebookFigure(Figure):
    """A figure that a notebook shows without pyplot and its settings."""

    def _repr_png_(self) -> bytes:
        buffer = io.BytesIO()
        self.savefig(buffer, format="png", dpi=110)
        return buffer.getvalue()


def heat_map(
    values: Float[Tensor, "row column"],
    rows: Sequence[str],
    columns: Sequence[str],
    *,
    title: str,
    axes: tuple[str, str],
    label: str,
) -> NotebookFigure:
    """Numbers as colours, with a bar that names them; blue below 0, red above, from 0 where none is negative."""
    finite = values[values.isfinite()]
    largest = float(finite.abs().max()) if len(finite) else 1.0
    signed = bool((finite < 0).any())
    n_rows, n_columns = values.shape
    size = (min(11.0, max(4.4, 2.4 + 0.42 * n_columns)), min(9.0, max(3.2, 1.5 + 0.38 * n_rows)))
    figure = NotebookFigure(figsize=size, layout="constrained")
    plot = figure.subplots()
    image = plot.imshow(
        values.detach().float().cpu().numpy(),
        cmap="RdBu_r" if signed else "viridis",
        vmin=-largest if signed else 0.0,
        vmax=largest or 1.0,
        aspect="auto",
    )
    for axis, names in ((plot.yaxis, rows), (plot.xaxis, columns)):
        step = 1 + (len(names) - 1) // 24
        axis.set_ticks(range(0, len(names), step), list(names[::step]), rotation=90 * (max(map(len, names)) > 3))
    _labelled(plot, title, axes)
    figure.colorbar(image, ax=plot, label=label)
    return figure


def bars(values: Float[Tensor, " bar"], names: Sequence[str], *, title: str, label: str) -> NotebookFigure:
    """Numbers as horizontal bars, the first on top."""
    figure = NotebookFigure(figsize=(5.6, 1.2 + 0.24 * len(names)), layout="constrained")
    plot: Any = figure.subplots()
    numbers = values.detach().float().cpu().tolist()
    plot.barh(list(names), numbers, color=["#D55E00" if number > 0 else "#0072B2" for number in numbers])
    plot.invert_yaxis()
    plot.axvline(0, color="#555555", linewidth=0.8)
    _labelled(plot, title, ("", label))
    return figure


def _labelled(plot: Any, title: str, axes: tuple[str, str]) -> None:
    plot.set_title(title, loc="left", fontsize=10)
    plot.set_ylabel(axes[0])
    plot.set_xlabel(axes[1])

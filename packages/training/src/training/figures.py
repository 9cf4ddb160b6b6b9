"""Matplotlib figures of curves; imported when the first one is drawn, since matplotlib is no requirement.

A figure is made without pyplot, so that nothing is shown, kept or changed but the figure that is returned. In a
notebook it shows itself; `figure.savefig(path)` writes it.
"""

from __future__ import annotations

import io
from collections.abc import Mapping
from typing import Any

from training.curves import Curve

try:
    from matplotlib.figure import Figure
except ImportError as error:
    raise ImportError(
        f"a figure: expected the package matplotlib, got {error}; run `pip install 'reprise-training[plot]'`"
    ) from error

COLOUR = "#0072B2"


class NotebookFigure(Figure):
    """A figure that a notebook shows without pyplot and its settings."""

    def _repr_png_(self) -> bytes:
        buffer = io.BytesIO()
        self.savefig(buffer, format="png", dpi=110)
        return buffer.getvalue()


def panels(curves: Mapping[str, Curve], *, title: str, log_steps: bool) -> NotebookFigure:
    """One panel a curve, side by side, over the same steps."""
    figure = NotebookFigure(figsize=(3.6 * len(curves) + 0.6, 3.0), layout="constrained")
    axes: Any = figure.subplots(1, len(curves), squeeze=False)[0]
    for plot, (name, (steps, values)) in zip(axes, curves.items(), strict=True):
        plot.plot(steps, values, color=COLOUR, marker="." if len(steps) < 60 else None)
        plot.set_title(name.replace("_", " ").capitalize(), loc="left", fontsize=10)
        plot.set_xlabel("Step")
        if log_steps:
            plot.set_xscale("log")
    if title:
        figure.suptitle(title, x=0.01, ha="left", fontsize=11)
    return figure

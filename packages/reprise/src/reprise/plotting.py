"""One house style for every figure, and files with identical bytes for identical results."""

from __future__ import annotations

import io
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from reprise import store

if TYPE_CHECKING:
    from matplotlib.figure import Figure

# Okabe and Ito's palette: told apart by readers with any colour vision, and in grey.
COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#000000")
FORMATS = ("svg", "png")
STYLE: dict[str, Any] = {
    "axes.axisbelow": True,
    "axes.edgecolor": "#555555",
    "axes.grid": True,
    "axes.labelcolor": "#222222",
    "axes.spines.right": False,
    "axes.spines.top": False,
    "axes.titlelocation": "left",
    "axes.titlesize": 10.5,
    "axes.titleweight": "bold",
    "figure.constrained_layout.use": True,
    "figure.facecolor": "white",
    "figure.figsize": (7.2, 3.8),
    "font.family": "DejaVu Sans",
    "font.size": 9.5,
    "grid.color": "#e4e4e4",
    "legend.frameon": False,
    "lines.linewidth": 1.7,
    "savefig.dpi": 150,
    "svg.fonttype": "path",
    "svg.hashsalt": "reprise",
    "xtick.color": "#444444",
    "ytick.color": "#444444",
}


@contextmanager
def house_style() -> Iterator[None]:
    """Draw in the house style, without a display and without touching the caller's settings."""
    import matplotlib as mpl
    from cycler import cycler

    mpl.use("agg")
    style: Any = {**dict(mpl.rcParamsDefault.items()), "backend": "agg", **STYLE}
    with mpl.rc_context({**style, "axes.prop_cycle": cycler(color=COLOURS)}):
        yield


def save_figure(figure: Figure, folder: Path, name: str) -> tuple[Path, ...]:
    """Write a figure as SVG and PNG without dates or version stamps; returns the paths."""
    import matplotlib.pyplot as plt

    written = []
    for kind in FORMATS:
        buffer = io.BytesIO()
        metadata: dict[str, Any] = {"Date": None, "Creator": None} if kind == "svg" else {"Software": None}
        figure.savefig(buffer, format=kind, metadata=metadata)
        path = folder / f"{name}.{kind}"
        with store.atomic(path) as temporary:
            temporary.write_bytes(buffer.getvalue())
        written.append(path)
    plt.close(figure)
    return tuple(written)

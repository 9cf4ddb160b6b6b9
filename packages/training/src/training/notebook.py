"""How a run looks in a notebook: tables of plain HTML, without scripts, style sheets or anything from elsewhere.

Everything that comes from data is escaped, and text keeps the colour that the page gives it, light or dark.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from html import escape
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from training.run import Run

CELL = "padding:.15em .5em;text-align:left;vertical-align:top;overflow-wrap:anywhere"


def table(caption: str, columns: Sequence[str], rows: Sequence[Sequence[str]], *, note: str = "") -> str:
    """A table as HTML; the first cell of each row is its header, `note` a line below."""
    head = "".join(f'<th scope="col" style="{CELL}">{escape(name)}</th>' for name in columns)
    body = "".join(
        f'<tr><th scope="row" style="{CELL}">{escape(first)}</th>'
        + "".join(f'<td style="{CELL}">{escape(cell)}</td>' for cell in cells)
        + "</tr>"
        for first, *cells in rows
    )
    below = f"<p>{escape(note)}</p>" if note else ""
    return (
        '<div style="overflow-x:auto">'
        '<table style="border-collapse:collapse;font-variant-numeric:tabular-nums">'
        f'<caption style="caption-side:top;text-align:left;white-space:nowrap">{escape(caption)}</caption>'
        f"<thead><tr>{head}</tr></thead><tbody>{body}</tbody></table>{below}</div>"
    )


def run_text(run: Run) -> str:
    """A run on one line."""
    measured = {"loss": run.loss} if run.step else {}
    shown = ", ".join(f"{name} {_number(value)}" for name, value in {**measured, **run.metrics}.items())
    of = f" of {run.steps}" if run.steps else ""
    stopped = f"; stopped: {run.stopped}" if run.stopped else ""
    return f"<Run: step {run.step}{of}{', ' * bool(shown)}{shown}; parts {', '.join(run.parts)}{stopped}>"


def run_html(run: Run) -> str:
    """A run as two tables: how far it is, and its parts."""
    numbers = {"loss": run.loss, "gradient norm": run.gradient_norm} if run.step else {}
    terms = run.losses if len(run.losses) > 1 else {}
    rows = [["step", f"{run.step} of {run.steps}" if run.steps else f"{run.step}"]]
    rows += [[name, _number(value)] for name, value in {**numbers, **terms, **run.metrics}.items()]
    if run.stopped:
        rows.append(["stopped", run.stopped])
    parts = [
        [
            name,
            type(part.module).__name__,
            f"{sum(parameter.numel() for parameter in part.module.parameters()):,}",
            ", ".join(type(optimizer).__name__ for optimizer in part.optimizers) or "frozen",
        ]
        for name, part in run.parts.items()
    ]
    columns = ["part", "module", "parameters", "optimisers"]
    return table("Training run, values of the last step", ["", ""], rows) + table("Its parts", columns, parts)


def _number(value: float) -> str:
    return f"{value:.4g}" if math.isfinite(value) else str(value)

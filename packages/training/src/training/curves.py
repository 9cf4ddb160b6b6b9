"""The curves of a run, drawn from the log that it wrote (`training.log_csv`, `training.log_json_lines`)."""

from __future__ import annotations

import csv
import json
import math
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from training.errors import TrainingError

if TYPE_CHECKING:
    from matplotlib.figure import Figure

Curve = tuple[list[float], list[float]]


def plot_log(path: Path, columns: Sequence[str] = ("loss",), *, title: str = "", log_steps: bool = False) -> Figure:
    """Columns of a log over steps as a matplotlib figure, a panel for each; it is returned and not shown.

    Rows that lack a number (before the first step, or where nothing was measured) are left out.

    Args:
        log_steps: whether the axis of steps is logarithmic; step 0 is then left out.

    Raises:
        ImportError: matplotlib is not installed.
        TrainingError: there is no such file or column, or a column without numbers.
    """
    rows = _rows(path)
    curves = {column: _curve(path, rows, column, log_steps) for column in columns}
    from training.figures import panels

    return panels(curves, title=title, log_steps=log_steps)


def _rows(path: Path) -> list[dict[str, object]]:
    try:
        text = path.read_text(encoding="utf-8")
    except FileNotFoundError as error:
        raise TrainingError(f"{path}: no such log; write one with log_csv or log_json_lines") from error
    if text.startswith("{"):
        return [json.loads(line) for line in text.splitlines()]
    return [dict(row) for row in csv.DictReader(text.splitlines())]


def _curve(path: Path, rows: list[dict[str, object]], column: str, log_steps: bool) -> Curve:
    known = list(dict.fromkeys(name for row in rows for name in row))
    if column not in known:
        raise TrainingError(f"{path}: no column {column!r}; expected one of {', '.join(known) or 'none: it is empty'}")
    points = [(float(str(row["step"])), _number(row.get(column))) for row in rows]
    points = [(step, value) for step, value in points if math.isfinite(value) and (step > 0 or not log_steps)]
    if not points:
        raise TrainingError(f"{path}: column {column!r} has no numbers yet; train further, or draw another one")
    return [step for step, _ in points], [value for _, value in points]


def _number(value: object) -> float:
    return math.nan if value in (None, "") else float(str(value))

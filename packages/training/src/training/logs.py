"""Logs of a run as files: a row for each call, each step once, also where a resumed run repeats steps.

When a run begins, rows behind its step are dropped: they are of a run that went on from the same checkpoint and was
killed. So is a line that was cut off. Then every row is appended at once.
"""

from __future__ import annotations

import csv
import io
import json
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO, Any

from training.run import Callback, Run

Evaluation = Callable[[Run], Mapping[str, object]]


def log_json_lines(path: Path, evaluate: Evaluation | None = None) -> Callback:
    """Append one JSON object a call: step, loss, gradient norm, terms of the loss if there are several, metrics.

    Metrics are what callbacks in front measured at this step (`training.evaluate`), and what `evaluate` returns. What
    is not there yet, before the first step, or not finite, is null: JSON has no NaN.
    """
    return JsonLines(path, evaluate)


def log_csv(path: Path, evaluate: Evaluation | None = None) -> Callback:
    """The same as a table with a header. What is not there, or not finite, is an empty field.

    The file is rewritten when a column is added, so every row has all columns.
    """
    return Table(path, evaluate)


@dataclass
class JsonLines:
    """See `log_json_lines`."""

    path: Path
    evaluate: Evaluation | None = None
    written: int | None = None  # the step of the last row; None before this process has written one
    begun: bool = False
    file: IO[str] | None = None  # held open from row to row, where `train` will close it

    def begin(self, run: Run) -> None:
        """Drop what a run that went further left."""
        self.begun = True
        if run.process == 0 and self.path.exists():
            self._keep(run.step + 1 if run.step else 0)

    def close(self) -> None:
        if self.file is not None:
            self.file.close()
        self.file, self.begun = None, False

    def __call__(self, run: Run) -> None:
        if run.process:
            return
        if self.written is None or run.step <= self.written:
            self._keep(run.step)
        self._append(_row(run, self.evaluate))
        self.written = run.step

    def _append(self, row: Mapping[str, object]) -> None:
        if self.file is None:
            self.file = self.path.open("a")
        self.file.write(self._text([row]))
        self.file.flush()
        if not self.begun:
            self.close()

    def _keep(self, end: int) -> None:
        """Rewrite the file with the rows before step `end`."""
        rows = [row for row in self._rows() if int(str(row["step"])) < end]
        self._replace(self._text(rows))

    def _replace(self, text: str) -> None:
        if self.file is not None:
            self.file.close()
        self.file = None
        self.path.parent.mkdir(parents=True, exist_ok=True)
        temporary = self.path.with_name(self.path.name + ".partial")
        temporary.write_text(text)
        temporary.replace(self.path)

    def _rows(self) -> list[dict[str, object]]:
        return [json.loads(line) for line in _whole(self.path).splitlines()]

    def _text(self, rows: Sequence[Mapping[str, object]]) -> str:
        return "".join(json.dumps(row) + "\n" for row in rows)


@dataclass
class Table(JsonLines):
    """See `log_csv`."""

    columns: list[str] = field(default_factory=list)

    def _append(self, row: Mapping[str, object]) -> None:
        if any(name not in self.columns for name in row):
            rows = self._rows()
            self.columns += [name for name in row if name not in self.columns]
            self._replace(self._text(rows, header=True))
        super()._append(row)

    def _keep(self, end: int) -> None:
        rows = [row for row in self._rows() if int(str(row["step"])) < end]
        self._replace(self._text(rows, header=bool(self.columns)))

    def _rows(self) -> list[dict[str, object]]:
        reader = csv.DictReader(io.StringIO(_whole(self.path)))
        rows: list[dict[str, object]] = [dict(row) for row in reader]
        self.columns = list(reader.fieldnames or self.columns)
        return rows

    def _text(self, rows: Sequence[Mapping[str, object]], *, header: bool = False) -> str:
        text = io.StringIO()
        writer: Any = csv.DictWriter(text, self.columns, lineterminator="\n")
        if header:
            writer.writeheader()
        writer.writerows(rows)
        return text.getvalue()


def _row(run: Run, evaluate: Evaluation | None) -> dict[str, object]:
    row: dict[str, object] = {
        "step": run.step,
        "loss": run.loss if run.step else None,
        "gradient_norm": run.gradient_norm if run.step else None,
    }
    if len(run.losses) > 1:
        row.update(run.losses)
    row.update(run.metrics)
    row.update(evaluate(run) if evaluate else {})
    return {
        name: None if isinstance(value, float) and not math.isfinite(value) else value for name, value in row.items()
    }


def _whole(path: Path) -> str:
    """The lines that end."""
    text = path.read_text() if path.exists() else ""
    return text[: text.rfind("\n") + 1]

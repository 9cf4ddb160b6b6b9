"""Callbacks: plain functions of a run, and the ones that every training needs."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path

from training import checkpoints
from training.loop import Callback, Run

Evaluation = Callable[[Run], Mapping[str, object]]


def every(n: int, callback: Callback) -> Callback:
    """Call `callback` when the step number is a multiple of `n`, step 0 included."""

    def call(run: Run) -> None:
        if run.step % n == 0:
            callback(run)

    return call


def at_steps(steps: Iterable[int], callback: Callback) -> Callback:
    """Call `callback` at the given step numbers."""
    chosen = frozenset(steps)

    def call(run: Run) -> None:
        if run.step in chosen:
            callback(run)

    return call


def checkpoint(path: Path) -> Callback:
    """Write a resumable checkpoint to `path`, replacing the one before."""
    return lambda run: checkpoints.save(run, path)


def log_json_lines(path: Path, evaluate: Evaluation | None = None) -> Callback:
    """Append one JSON object a call: step, loss, gradient norm, and what `evaluate` returns.

    Lines of steps that a resumed run repeats are dropped first, so that every step stands in the file once. Before the
    first step loss and gradient norm are null: JSON has no NaN.
    """

    def call(run: Run) -> None:
        path.parent.mkdir(parents=True, exist_ok=True)
        kept = [line for line in _lines(path) if json.loads(line)["step"] < run.step]
        row: dict[str, object] = {
            "step": run.step,
            "loss": run.loss if run.step else None,
            "gradient_norm": run.gradient_norm if run.step else None,
        }
        row.update(evaluate(run) if evaluate else {})
        temporary = path.with_name(path.name + ".partial")
        temporary.write_text("".join(line + "\n" for line in [*kept, json.dumps(row)]))
        temporary.replace(path)

    return call


def _lines(path: Path) -> list[str]:
    return path.read_text().splitlines() if path.exists() else []

"""Callbacks: functions of a run, called after every step; those that every training needs.

    callbacks=(every(100, evaluate(accuracy)), log_csv(path), early_stop("accuracy", patience=5, best="highest"),
               every(100, checkpoint(path)))

They are called in order, so what measures comes first and `checkpoint` last. A callback that remembers something is an
object with `state_dict` and `load_state_dict` (`training.Stateful`); one that holds something open has `close`.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from training import checkpoints
from training.errors import TrainingError
from training.run import Callback, Run


@dataclass(frozen=True)
class _When:
    """A callback that is called at some steps; `wrapped` lets its state be found."""

    due: Callable[[Run], bool]
    wrapped: Callback

    def __call__(self, run: Run) -> None:
        if self.due(run):
            self.wrapped(run)


def every(n: int, callback: Callback, *, last: bool = False) -> Callback:
    """Call `callback` when the step number is a multiple of `n`, step 0 included, and with `last` at the last step."""
    if last:
        return _When(lambda run: run.step % n == 0 or run.step == run.steps or run.stopped is not None, callback)
    return _When(lambda run: run.step % n == 0, callback)


def at_steps(steps: Iterable[int], callback: Callback) -> Callback:
    """Call `callback` at the given step numbers."""
    chosen = frozenset(steps)
    return _When(lambda run: run.step in chosen, callback)


@dataclass(frozen=True)
class _Checkpoint:
    path: Path
    writes_checkpoints = True

    def __call__(self, run: Run) -> None:
        checkpoints.save(run, self.path)


def checkpoint(path: Path) -> Callback:
    """Write a resumable checkpoint to `path`, replacing the one before; put it behind the other callbacks."""
    return _Checkpoint(path)


def evaluate(measure: Callable[[Run], Mapping[str, float]]) -> Callback:
    """Put what `measure` returns into `run.metrics`, where the callbacks behind it find it at this step."""
    return lambda run: run.metrics.update(measure(run))


def early_stop(
    metric: str, *, patience: int, best: Literal["lowest", "highest"] = "lowest", by: float = 0.0
) -> Callback:
    """Stop the run after `patience` measurements in a row that do not improve on the best one by more than `by`.

    Args:
        metric: a name in `run.metrics`, `run.losses`, or "loss"; steps at which it is not measured do not count.
    """
    return EarlyStop(metric, patience, best, by)


@dataclass
class EarlyStop:
    """See `early_stop`; what it remembers is saved in checkpoints."""

    metric: str
    patience: int
    better: Literal["lowest", "highest"]
    by: float
    best: float = math.nan
    best_step: int = 0
    worse: int = 0

    def __call__(self, run: Run) -> None:
        value = self._value(run)
        if value is None:
            return
        sign = 1 if self.better == "highest" else -1
        if math.isnan(self.best) or sign * (value - self.best) > self.by:
            self.best, self.best_step, self.worse = value, run.step, 0
            return
        self.worse += 1
        if self.worse >= self.patience:
            run.stopped = (
                f"{self.metric} has not improved in {self.worse} measurements: "
                f"{self.best:.6g} at step {self.best_step}, {value:.6g} at step {run.step}"
            )

    def _value(self, run: Run) -> float | None:
        for named in (run.metrics, run.losses):
            if self.metric in named:
                return named[self.metric]
        if self.metric == "loss":
            return run.loss if run.step else None
        if run.metrics:
            known = ", ".join(dict.fromkeys(("loss", *run.losses, *run.metrics)))
            raise TrainingError(f"early_stop: no metric {self.metric!r} at step {run.step}; expected one of {known}")
        return None

    def state_dict(self) -> dict[str, Any]:
        return {"best": self.best, "best_step": self.best_step, "worse": self.worse}

    def load_state_dict(self, state: dict[str, Any], /) -> None:
        self.best, self.best_step, self.worse = state["best"], state["best_step"], state["worse"]

"""Callbacks: when they are called, what they find, and when they stop a run."""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path

import pytest
import torch
from torch import nn

from training import (
    FunctionTask,
    Part,
    Run,
    TrainingError,
    at_steps,
    checkpoint,
    early_stop,
    evaluate,
    every,
    log_csv,
    restore,
    train,
)


def at(step: int, loss: float = 0.5, **metrics: float) -> Run:
    model = nn.Linear(2, 1)
    part = Part(model, (torch.optim.SGD(model.parameters(), lr=0.1),))
    return Run({"model": part}, {}, step=step, loss=loss, gradient_norm=2.0, steps=10, metrics=metrics)


def line() -> tuple[FunctionTask[nn.Module, torch.Tensor], dict[str, Part]]:
    model = nn.Linear(2, 1)
    task: FunctionTask[nn.Module, torch.Tensor] = FunctionTask(
        lambda step: torch.ones(3, 2), lambda model, batch: model(batch).square().mean()
    )
    return task, {"model": Part(model, (torch.optim.SGD(model.parameters(), lr=0.1),))}


def test_every_and_at_steps_call_at_the_right_steps() -> None:
    called: dict[str, list[int]] = {"every": [], "at": [], "last": []}
    callbacks = (
        every(3, lambda run: called["every"].append(run.step)),
        at_steps((0, 2, 2, 7, 99), lambda run: called["at"].append(run.step)),
        every(4, lambda run: called["last"].append(run.step), last=True),
    )
    for step in range(11):
        for callback in callbacks:
            callback(at(step))
    assert called == {"every": [0, 3, 6, 9], "at": [0, 2, 7], "last": [0, 4, 8, 10]}


def test_every_last_is_called_when_a_run_is_stopped() -> None:
    called: list[int] = []
    task, parts = line()
    callbacks = [
        early_stop("loss", patience=1, best="highest"),
        every(50, lambda run: called.append(run.step), last=True),
    ]
    run = train(task, parts, steps=99, callbacks=callbacks)
    assert called == [0, run.step]
    assert run.step == 2


def test_at_steps_keeps_steps_of_an_iterator() -> None:
    called: list[int] = []
    callback = at_steps(iter([1, 3]), lambda run: called.append(run.step))
    for step in (1, 2, 3, 1):
        callback(at(step))
    assert called == [1, 3, 1]


def test_checkpoint_replaces_the_one_before(tmp_path: Path) -> None:
    path = tmp_path / "training.pt"
    save = checkpoint(path)
    save(at(1))
    save(at(2))
    assert restore(at(0), path).step == 2
    assert [child.name for child in tmp_path.iterdir()] == ["training.pt"]


def test_metrics_are_those_of_this_step() -> None:
    task, parts = line()
    seen: list[dict[str, float]] = []
    callbacks = [every(2, evaluate(lambda run: {"squared": run.step**2})), lambda run: seen.append(dict(run.metrics))]
    train(task, parts, steps=3, callbacks=callbacks)
    assert seen == [{"squared": 0}, {}, {"squared": 4}, {}]


def stopped_at(values: Sequence[float | None], **how: object) -> tuple[int | None, str | None]:
    """The step at which early stopping ends a run of these measurements, and what it says."""
    stop = early_stop("accuracy", **how)  # type: ignore[arg-type]
    for step, value in enumerate(values):
        run = at(step) if value is None else at(step, accuracy=float(value))
        stop(run)
        if run.stopped:
            return step, run.stopped
    return None, None


def test_early_stop_counts_measurements_that_do_not_improve() -> None:
    assert stopped_at([1, 2, 2, None, None, 3, 3, 3], patience=2, best="highest")[0] == 7
    assert stopped_at([3, 2, 1, 2, 1, 1], patience=3)[0] == 5
    assert stopped_at([3, 2, 1, 0], patience=1) == (None, None)
    assert stopped_at([1.0, 0.99, 0.98, 0.5, 0.49], patience=2, by=0.1)[0] == 2
    _, said = stopped_at([math.nan, 0.5, 0.25, 0.25], patience=2, best="highest")
    assert said == "accuracy has not improved in 2 measurements: 0.5 at step 1, 0.25 at step 3"


def test_early_stop_by_a_term_of_the_loss() -> None:
    task, parts = line()
    run = train({"fit": task}, parts, steps=50, callbacks=[early_stop("fit", patience=2, by=1e-3)])
    assert run.step < 50
    assert run.stopped is not None
    assert run.stopped.startswith("fit has not improved in 2 measurements: ")


def test_early_stop_by_a_metric_that_nobody_measures_says_which_there_are() -> None:
    stop = early_stop("acuracy", patience=1)
    stop(at(0))
    with pytest.raises(
        TrainingError, match=r"^early_stop: no metric 'acuracy' at step 3; expected one of loss, accuracy$"
    ):
        stop(at(3, accuracy=1.0))


def test_a_checkpoint_in_front_of_what_keeps_a_state_is_refused(tmp_path: Path) -> None:
    task, parts = line()
    keeping = [every(2, early_stop("loss", patience=3)), log_csv(tmp_path / "log.csv")]
    for callback, name in zip(keeping, ("EarlyStop", "Table"), strict=True):
        with pytest.raises(
            TrainingError, match=rf"^callbacks: expected `checkpoint` behind {name}, which keeps .*; put"
        ):
            train(task, parts, steps=1, callbacks=[every(5, checkpoint(tmp_path / "c.pt")), callback])

"""Progress bar and TensorBoard."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
import torch
from torch import nn

from training import FunctionTask, Part, TrainingError, evaluate, every, progress_bar, tensorboard, train


def line() -> tuple[FunctionTask[nn.Module, torch.Tensor], dict[str, Part]]:
    torch.manual_seed(0)
    model = nn.Linear(2, 1)
    task: FunctionTask[nn.Module, torch.Tensor] = FunctionTask(
        lambda step: torch.ones(3, 2), lambda model, batch: model(batch).square().mean()
    )
    return task, {"model": Part(model, (torch.optim.SGD(model.parameters(), lr=0.1),))}


def test_the_bar_shows_steps_loss_and_what_was_measured_last(capsys: pytest.CaptureFixture[str]) -> None:
    task, parts = line()
    callbacks = [every(2, evaluate(lambda run: {"accuracy": run.step / 4})), progress_bar()]
    run = train(task, parts, steps=3, callbacks=callbacks)
    last = capsys.readouterr().err.strip().split("\r")[-1]
    assert "3/3" in last
    assert f"loss={run.loss:.4g}" in last
    assert "accuracy=0.5" in last


def test_a_bar_is_closed_after_an_error_and_begins_again(capsys: pytest.CaptureFixture[str]) -> None:
    task, parts = line()
    bar = progress_bar()

    def fail(run: object) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        train(task, parts, steps=3, callbacks=[bar, fail])
    assert capsys.readouterr().err.endswith("\n")
    train(task, parts, steps=2, callbacks=[bar])
    assert "2/2" in capsys.readouterr().err


def test_scalars_reach_tensorboard(tmp_path: Path) -> None:
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    task, parts = line()
    losses: list[float] = []
    callbacks = [
        every(2, evaluate(lambda run: {"accuracy": run.step / 4})),
        tensorboard(tmp_path / "board"),
        lambda run: losses.append(run.loss),
    ]
    train(task, parts, steps=3, callbacks=callbacks)
    events = EventAccumulator(str(tmp_path / "board"))
    events.Reload()
    assert [event.step for event in events.Scalars("loss")] == [1, 2, 3]
    assert [event.value for event in events.Scalars("loss")] == pytest.approx(losses[1:])
    assert [(event.step, event.value) for event in events.Scalars("accuracy")] == [(0, 0.0), (2, 0.5)]
    assert len(events.Scalars("gradient_norm")) == 3


def test_tensorboard_that_is_not_installed_names_the_extra(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "torch.utils.tensorboard", None)
    with pytest.raises(TrainingError, match=r"^tensorboard: .*; run `pip install 'reprise-training\[tensorboard\]'`$"):
        tensorboard(tmp_path)


def test_tensorboard_is_not_imported_before_it_is_asked_for() -> None:
    code = "import sys, training; assert 'tensorboard' not in sys.modules"
    subprocess.run([sys.executable, "-c", code], check=True)

"""A run killed at any moment and resumed is the undisturbed run, bit for bit."""

from __future__ import annotations

import json
import random
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from tests.training import kill_and_resume as program
from torch import nn
from torch.optim import AdamW

from training import (
    FunctionTask,
    Options,
    Part,
    Run,
    at_steps,
    checkpoint,
    early_stop,
    evaluate,
    every,
    restore,
    train,
    trapezoid,
)

SCRIPT = Path(__file__).with_name("kill_and_resume.py")


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    folder = tmp_path_factory.mktemp("runs")
    result = subprocess.run([sys.executable, str(SCRIPT), str(folder)], capture_output=True, text=True, check=False)
    assert result.returncode == 0, result.stderr
    return {path.name: path for path in folder.iterdir()}


def test_a_run_killed_by_the_system_and_resumed_is_bit_identical(folders: dict[str, Path]) -> None:
    kills = [line.split() for line in folders.pop("kills").read_text().splitlines()]
    assert len(kills) == 16
    assert (
        sum(code == "-9" and there == "True" for _, code, there in kills) >= 4
    )  # killed with a checkpoint to go on from
    expected = torch.load(folders["undisturbed"] / "result.pt", weights_only=True)
    assert json.loads(expected["said"])["step"] < program.STEPS  # stopped early, by what the callback remembers
    for name, folder in folders.items():
        found = torch.load(folder / "result.pt", weights_only=True)
        assert found["said"] == expected["said"], name
        assert torch.equal(found["place"], expected["place"]), name
        assert found["weights"].keys() == expected["weights"].keys()
        for key, value in expected["weights"].items():
            assert torch.equal(found["weights"][key], value), (name, key)
        for log in ("log.csv", "log.jsonl"):
            assert (folder / log).read_text() == (folders["undisturbed"] / log).read_text(), (name, log)


class KilledError(RuntimeError):
    pass


def fresh(precision: str) -> tuple[Run, FunctionTask[nn.Module, torch.Tensor]]:
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(4, 8), nn.Tanh(), nn.Dropout(0.3), nn.Linear(8, 1))
    task: FunctionTask[nn.Module, torch.Tensor] = FunctionTask(
        lambda step: torch.randn(16, 4, generator=torch.Generator().manual_seed(step)),
        lambda model, batch: (model(batch).squeeze(1) - batch.sum(dim=1)).square().mean(),
    )
    schedule = trapezoid(warmup=3, steps=23, decay_from=0.5, floor=0.1)
    return Run.of(task, {"model": Part(model, (AdamW(model.parameters(), lr=0.01),), schedule)}), task


def go_on(path: Path, precision: str, kill_after: int | None = None) -> Run:
    run, task = fresh(precision)
    if path.exists():
        torch.manual_seed(999)
        restore(run, path)

    def kill(run: Run) -> None:
        if run.step == kill_after:
            raise KilledError

    options = Options(precision=precision)  # type: ignore[arg-type]
    return train(task, run.parts, steps=23, options=options, callbacks=(every(4, checkpoint(path)), kill), run=run)


@pytest.mark.parametrize("precision", ["float32", "bfloat16", "float16"])
def test_in_every_precision(tmp_path: Path, precision: str) -> None:
    expected = go_on(tmp_path / "undisturbed.pt", precision)
    path = tmp_path / "training.pt"
    for kill_after in sorted(random.Random(0).sample(range(1, 23), 3)):
        with pytest.raises(KilledError):
            go_on(path, precision, kill_after)
    found = go_on(path, precision)
    assert found.loss == expected.loss
    assert found.loss_scale == expected.loss_scale
    for a, b in zip(found.model.parameters(), expected.model.parameters(), strict=True):
        assert torch.equal(a, b)


def test_another_random_state_would_have_shown(tmp_path: Path) -> None:
    path = tmp_path / "training.pt"
    expected = go_on(path, "float32")
    run, task = fresh("float32")
    restore(run, path)
    torch.manual_seed(1)
    train(task, run.parts, steps=23, run=run)
    assert run.loss != expected.loss


def test_callbacks_that_draw_at_step_0_draw_the_same_again(tmp_path: Path) -> None:
    path, drawn = tmp_path / "training.pt", list[float]()

    def draw(run: Run) -> dict[str, float]:
        drawn.append(float(torch.rand(())))
        return {"draw": drawn[-1]}

    run, task = fresh("float32")
    stop = early_stop("draw", patience=3)
    train(task, run.parts, steps=5, callbacks=[evaluate(draw), stop, at_steps([0], checkpoint(path))], run=run)
    expected, drawn = drawn, list[float]()
    again, task = fresh("float32")
    torch.manual_seed(999)
    stop = early_stop("draw", patience=3)
    train(task, again.parts, steps=5, callbacks=[evaluate(draw), stop], run=restore(again, path))
    assert drawn == expected
    assert (again.loss, again.step, again.stopped) == (run.loss, run.step, run.stopped)


def test_early_stopping_remembers_the_best_before_the_kill(tmp_path: Path) -> None:
    path, said = tmp_path / "training.pt", list[str | None]()
    for resumed in (False, True):
        run, task = fresh("float32")
        callbacks = [
            evaluate(lambda run: {"score": 1.0 if run.step == 1 else 0.1 * run.step}),
            early_stop("score", patience=5, best="highest"),
            at_steps([4], checkpoint(path)),
        ]
        train(task, run.parts, steps=23, callbacks=callbacks, run=restore(run, path) if resumed else run)
        said.append(run.stopped)
    assert said == 2 * ["score has not improved in 5 measurements: 1 at step 1, 0.6 at step 6"]

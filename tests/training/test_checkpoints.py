"""Checkpoints: what is in them comes back, and what happens to bad files, other runs, and bad moments."""

from __future__ import annotations

import random
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO, Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.optim import SGD, AdamW

from training import (
    CheckpointError,
    FunctionTask,
    Muon,
    Part,
    Run,
    Task,
    checkpoint,
    early_stop,
    random_state,
    restore,
    save,
    train,
)


def optimizers(model: nn.Module) -> tuple[Muon, AdamW]:
    matrices = [parameter for parameter in model.parameters() if parameter.ndim == 2]
    vectors = [parameter for parameter in model.parameters() if parameter.ndim != 2]
    return (Muon(matrices, lr=0.02), AdamW(vectors, lr=0.01))


def network(width: int = 8) -> nn.Sequential:
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(4, width), nn.Tanh(), nn.Linear(width, 1))


def batches(step: int) -> Tensor:
    return torch.randn(16, 4, generator=torch.Generator().manual_seed(step))


def loss(model: nn.Module, batch: Tensor) -> Tensor:
    prediction: Tensor = model(batch)
    return (prediction.squeeze(1) - batch.sum(dim=1)).square().mean()


TASK = FunctionTask(batches, loss)


def fresh(width: int = 8) -> Run:
    model = network(width)
    return Run.of(TASK, {"model": Part(model, optimizers(model))})


def trained(steps: int = 3) -> Run:
    run = fresh()
    return train(TASK, run.parts, steps=steps, run=run)


def test_everything_that_a_run_says_comes_back(tmp_path: Path) -> None:
    run = trained()
    run.stopped = "enough"
    save(run, tmp_path / "c.pt")
    back = restore(fresh(), tmp_path / "c.pt")
    assert (back.step, back.loss, back.losses, back.gradient_norm) == (3, run.loss, run.losses, run.gradient_norm)
    assert back.stopped == "enough"
    for part, theirs in zip(back.parts.values(), run.parts.values(), strict=True):
        assert all(torch.equal(a, b) for a, b in zip(part.module.parameters(), theirs.module.parameters(), strict=True))
        for ours, other in zip(part.optimizers, theirs.optimizers, strict=True):
            state, expected = ours.state_dict(), other.state_dict()
            assert state["param_groups"] == expected["param_groups"]
            assert state["state"].keys() == expected["state"].keys()
            for index, values in expected["state"].items():
                assert all(torch.equal(state["state"][index][name], value) for name, value in values.items())


def test_random_states_of_torch_and_numpy_come_back(tmp_path: Path) -> None:
    def draw() -> tuple[list[float], list[float]]:
        return torch.randn(3).tolist(), np.random.randn(3).tolist()

    draw()  # an odd number of normal numbers: one waits in the state
    save(trained(), tmp_path / "c.pt")
    expected = draw()
    torch.manual_seed(1)
    np.random.seed(1)
    restore(fresh(), tmp_path / "c.pt")
    assert draw() == expected


def test_the_random_state_of_python_comes_back(monkeypatch: pytest.MonkeyPatch) -> None:
    known = random.Random(5)
    known.gauss()  # a second one waits in the state
    monkeypatch.setattr(random, "getstate", known.getstate)  # the tests' type checker draws from the global one
    saved = random_state.state()
    random.seed(1)
    random_state.restore(saved)
    assert [random.gauss(), random.random()] == [known.gauss(), known.random()]


@dataclass
class Counting:
    """A task with a state of every kind."""

    feeds: tuple[str, ...] = ("model",)
    state: dict[str, Any] = field(default_factory=dict)

    def batch(self, step: int, /) -> Tensor:
        return batches(step)

    def loss(self, parts: Any, batch: Tensor, /) -> Tensor:
        return loss(parts["model"], batch)

    def state_dict(self) -> dict[str, Any]:
        return self.state

    def load_state_dict(self, state: dict[str, Any], /) -> None:
        self.state = state


def test_states_of_tasks_come_back(tmp_path: Path) -> None:
    run = fresh()
    mean = torch.ones(2)
    state = {"mean": mean, "n": 3, "name": "x", "list": [1.5, None], "deeper": {"flag": True}}
    save(Run({**run.parts}, {"count": Counting(state=state), "plain": TASK}), tmp_path / "c.pt")
    task = Counting()
    restore(Run({**run.parts}, {"count": task, "plain": TASK}), tmp_path / "c.pt")
    assert torch.equal(task.state.pop("mean"), mean)
    assert task.state == {name: value for name, value in state.items() if name != "mean"}


def one_line_error(run: Run, path: Path) -> str:
    before = [weight.detach().clone() for part in run.parts.values() for weight in part.module.parameters()]
    drawn = torch.get_rng_state()
    with pytest.raises(CheckpointError) as caught:
        restore(run, path)
    after = [weight for part in run.parts.values() for weight in part.module.parameters()]
    assert all(torch.equal(a, b) for a, b in zip(before, after, strict=True))
    assert run.step == 0
    assert torch.equal(drawn, torch.get_rng_state())
    message = str(caught.value)
    start, end = f"{path}: not a checkpoint of this run (", "); delete it to start again"
    assert "\n" not in message
    assert message.startswith(start)
    assert message.endswith(end)
    return message[len(start) : -len(end)]


@pytest.mark.parametrize("share", [0.0, 0.3, 0.7, 0.99])
def test_a_truncated_checkpoint_is_refused_in_one_line(tmp_path: Path, share: float) -> None:
    path = tmp_path / "training.pt"
    save(trained(), path)
    whole = path.read_bytes()
    path.write_bytes(whole[: int(share * len(whole))])
    one_line_error(fresh(), path)


def other_width() -> Run:
    return fresh(width=9)


def deeper() -> Run:
    model = nn.Sequential(*network(), nn.Linear(1, 1))
    return Run.of(TASK, {"model": Part(model, optimizers(model))})


def shallower() -> Run:
    model = network()[:2]
    return Run.of(TASK, {"model": Part(model, optimizers(model))})


def doubled() -> Run:
    model = network().double()
    return Run.of(TASK, {"model": Part(model, optimizers(model))})


def other_parts() -> Run:
    run = fresh()
    return Run.of(TASK, {"model": run.parts["model"], "value": Part(nn.Linear(1, 1))})


def other_optimizers() -> Run:
    model = network()
    return Run.of(TASK, {"model": Part(model, (SGD(model.parameters(), lr=0.1),))})


def other_groups() -> Run:
    model = network()
    muon, _ = optimizers(model)
    groups = [{"params": [parameter]} for parameter in model.parameters() if parameter.ndim != 2]
    return Run.of(TASK, {"model": Part(model, (muon, AdamW(groups, lr=0.1)))})


def other_tasks() -> Run:
    return Run.of({"a": TASK, "b": TASK}, fresh().parts)


def with_a_state() -> Run:
    return Run.of(Counting(), fresh().parts)


@pytest.mark.parametrize(
    ("other", "difference"),
    [
        (other_width, "part 'model': '0.weight' is 8 x 4 of float32 in the file and 9 x 4 of float32 here"),
        (deeper, "part 'model': '3.weight' is missing in the file and 1 x 1 of float32 here"),
        (shallower, "part 'model': '2.weight' is 1 x 8 of float32 in the file and missing here"),
        (doubled, "part 'model': '0.weight' is 8 x 4 of float32 in the file and 8 x 4 of float64 here"),
        (other_parts, "parts 'model' in the file and 'model', 'value' here"),
        (other_optimizers, "part 'model': optimizers are Muon, AdamW in the file and SGD here"),
        (other_groups, "part 'model': AdamW has groups of [2] parameters in the file and of [1, 1] here"),
        (other_tasks, "tasks '' in the file and 'a', 'b' here"),
        (with_a_state, "task '' is without state in the file and with one here"),
    ],
)
def test_a_checkpoint_of_another_run_is_refused_and_the_first_difference_named(
    tmp_path: Path, other: Callable[[], Run], difference: str
) -> None:
    path = tmp_path / "training.pt"
    save(trained(), path)
    assert one_line_error(other(), path) == difference


def test_callbacks_get_their_state_back_and_others_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "training.pt"
    run = fresh()
    train(TASK, run.parts, steps=2, callbacks=[early_stop("loss", patience=9), checkpoint(path)], run=run)
    back = restore(fresh(), path)
    with pytest.raises(
        CheckpointError, match=r"^checkpoint with the states of callbacks EarlyStop: .*, got none; give"
    ):
        train(TASK, back.parts, steps=3, run=back)
    train(TASK, back.parts, steps=3, callbacks=[early_stop("loss", patience=9)], run=back)


@pytest.mark.parametrize("content", [{"step": 3}, [1, 2], torch.zeros(3), {"format": 2}, {"format": 2, "parts": 3}])
def test_a_file_that_torch_wrote_but_is_no_checkpoint_is_refused(tmp_path: Path, content: object) -> None:
    path = tmp_path / "training.pt"
    torch.save(content, path)
    one_line_error(fresh(), path)


def test_a_checkpoint_never_runs_code(tmp_path: Path) -> None:
    class Harmful:
        def __reduce__(self) -> tuple[object, tuple[str]]:
            return (Path.touch, (str(tmp_path / "harmed"),))

    path = tmp_path / "training.pt"
    torch.save({"format": 2, "parts": Harmful()}, path)
    one_line_error(fresh(), path)
    assert not (tmp_path / "harmed").exists()


def test_an_exception_while_writing_leaves_the_previous_checkpoint(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "training.pt"
    run = fresh()
    run.step = 7
    save(run, path)
    before = path.read_bytes()
    torch_save = torch.save

    def fails_half_way(state: object, file: IO[bytes]) -> None:
        torch_save({"half": torch.zeros(9)}, file)
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(torch, "save", fails_half_way)
    run.step = 8
    with pytest.raises(OSError, match="No space left"):
        save(run, path)
    assert path.read_bytes() == before
    assert restore(fresh(), path).step == 7


def test_tasks_are_what_the_protocol_says() -> None:
    assert isinstance(TASK, Task)
    assert isinstance(Counting(), Task)

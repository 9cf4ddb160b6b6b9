"""Two processes, started by torch's launcher, train as one does."""

from __future__ import annotations

import math
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
import torch
from tests.training import data_parallel_program
from torch import Tensor, nn
from torch.optim import SGD

from training import CheckpointError, FunctionTask, Options, Part, Run, TrainingError, restore, train

PROGRAM = Path(__file__).with_name("data_parallel_program.py")
LAUNCHER = ("-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2")
Results = Mapping[str, Mapping[str, Any]]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("processes")
    for name in ("two", "alone"):
        (folder / name).mkdir()
    command = [sys.executable, *LAUNCHER, str(PROGRAM), str(folder / "two")]
    result = subprocess.run(command, capture_output=True, text=True, check=False, timeout=120)
    assert result.returncode == 0, result.stderr
    data_parallel_program.write(folder / "alone", "alone")
    return folder


@pytest.fixture(scope="module")
def two(folder: Path) -> tuple[Results, Results]:
    first, second = (torch.load(folder / "two" / f"{rank}.result", weights_only=True) for rank in (0, 1))
    return first, second


@pytest.fixture(scope="module")
def alone(folder: Path) -> Results:
    found: Results = torch.load(folder / "alone" / "alone.result", weights_only=True)
    return found


@pytest.mark.parametrize("case", ["plain", "pieces"])
def test_the_curve_and_the_weights_are_those_of_one_process(
    two: tuple[Results, Results], alone: Results, case: str
) -> None:
    assert len(alone[case]["curve"]) == 31
    for found in two:
        assert found[case]["curve"][1:] == pytest.approx(alone[case]["curve"][1:], rel=1e-4)
        for name, tensor in alone[case]["weights"].items():
            assert torch.allclose(found[case]["weights"][name], tensor, rtol=1e-4, atol=1e-5), name


@pytest.mark.parametrize("case", ["plain", "pieces", "norm", "wrong", "dropout"])
def test_both_processes_hold_the_same_weights(two: tuple[Results, Results], case: str) -> None:
    first, second = two
    assert math.isnan(first[case]["curve"][0])
    assert first[case]["curve"][1:] == second[case]["curve"][1:]
    for name, tensor in first[case]["weights"].items():
        assert torch.equal(second[case]["weights"][name], tensor), name


def test_batch_norm_sees_the_rows_of_its_process(two: tuple[Results, Results], alone: Results) -> None:
    ours, whole = two[0]["norm"], alone["norm"]
    assert ours["curve"][1] != pytest.approx(whole["curve"][1], rel=1e-3)
    assert ours["curve"][-1] == pytest.approx(whole["curve"][-1], rel=0.5)
    assert torch.equal(ours["weights"]["encoder.1.num_batches_tracked"], torch.tensor(30))
    # The mean over processes of the halves' means is the mean of the whole; only the weights in front differ.
    assert torch.allclose(
        ours["weights"]["encoder.1.running_mean"], whole["weights"]["encoder.1.running_mean"], atol=0.2
    )


def test_a_loss_that_is_not_finite_in_one_process_stops_both_and_is_saved(
    two: tuple[Results, Results], folder: Path
) -> None:
    for found in two:
        assert found["wrong"]["step"] == 7
        assert found["wrong"]["said"].startswith("loss 'error' is nan and loss 'size' is nan at step 7 (batch 7): ")
    saved = torch.load(folder / "two" / "rescue.pt", weights_only=True)
    assert [own["tasks"][""]["process"] for own in saved["processes"]] == [0, 1]


def test_a_resumed_run_is_bit_identical_in_each_process(two: tuple[Results, Results]) -> None:
    for found in two:
        assert found["resumed"]["seen"] == 30
        assert found["resumed"]["curve"] == found["dropout"]["curve"][21:]
        for name, tensor in found["dropout"]["weights"].items():
            assert torch.equal(found["resumed"]["weights"][name], tensor), name


def test_the_first_process_alone_writes_the_log(folder: Path) -> None:
    rows = (folder / "two" / "plain.csv").read_text().splitlines()
    assert [row.split(",")[0] for row in rows] == ["step", *map(str, range(31))]


def test_the_group_is_left_before_the_interpreter_ends(two: tuple[Results, Results], folder: Path) -> None:
    assert [(folder / "two" / f"{rank}.left").read_text() for rank in (0, 1)] == ["True", "True"]


def part() -> dict[str, Part]:
    model = nn.Linear(2, 1)
    return {"model": Part(model, (SGD(model.parameters(), lr=0.1),))}


def task() -> FunctionTask[nn.Module, Tensor]:
    return FunctionTask(lambda step: torch.ones(4, 2), lambda model, batch: model(batch).square().mean())


def test_a_process_that_was_not_launched_says_how_to() -> None:
    with pytest.raises(
        TrainingError, match=r"^data_parallel: expected the environment .*, RANK, WORLD_SIZE, .* missing; "
    ):
        train(task(), part(), steps=1, options=Options(data_parallel=True))


def test_a_checkpoint_of_fewer_processes_is_refused(
    two: tuple[Results, Results], folder: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    state = torch.load(folder / "two" / "plain.pt", weights_only=True)
    parts = part()
    run = Run.of(task(), parts)
    state["parts"] = {"model": {"module": parts["model"].module.state_dict(), "optimizers": []}}
    state["parts"]["model"]["optimizers"] = [["SGD", parts["model"].optimizers[0].state_dict()]]
    for own in state["processes"]:
        own["tasks"] = {"": None}
    torch.save(state, tmp_path / "c.pt")
    monkeypatch.setenv("RANK", "2")
    with pytest.raises(CheckpointError, match=r"\(2 processes wrote it, this is number 3\); delete it"):
        restore(run, tmp_path / "c.pt")

"""Logs as files: what a row says, and that each step stands once, whatever was killed."""

from __future__ import annotations

import csv
import json
import math
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from training import Callback, Part, Run, log_csv, log_json_lines


def at(step: int, loss: float = 0.5, losses: Mapping[str, float] | None = None, **metrics: float) -> Run:
    part = Part(nn.Linear(2, 1))
    return Run({"m": part}, {}, step=step, loss=loss, losses=dict(losses or {}), gradient_norm=2.0, metrics=metrics)


def json_rows(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text().splitlines()]


def csv_rows(path: Path) -> list[dict[str, Any]]:
    with path.open() as file:
        return [{name: float(value) if value else None for name, value in row.items()} for row in csv.DictReader(file)]


Read = Callable[[Path], list[dict[str, Any]]]
BOTH = pytest.mark.parametrize(("log", "read"), [(log_json_lines, json_rows), (log_csv, csv_rows)])


@BOTH
def test_a_row_holds_what_the_run_and_the_evaluation_say(
    tmp_path: Path, log: Callable[..., Callback], read: Read
) -> None:
    path = tmp_path / "new" / "log"
    log(path, lambda run: {"lr": run.step / 10})(at(4, 0.25, {"a": 0.5, "b": -0.25}, accuracy=0.75))
    assert read(path) == [
        {"step": 4, "loss": 0.25, "gradient_norm": 2.0, "a": 0.5, "b": -0.25, "accuracy": 0.75, "lr": 0.4}
    ]
    log(path)(at(4, 0.25, {"loss": 0.25}))
    assert read(path)[0]["loss"] == 0.25


@BOTH
def test_before_the_first_step_and_where_not_finite_fields_are_empty(
    tmp_path: Path, log: Callable[..., Callback], read: Read
) -> None:
    path = tmp_path / "log"
    call = log(path)
    call(at(0, math.nan))
    call(at(1, 1.0, score=math.inf))
    rows = read(path)
    assert [(row["step"], row["loss"]) for row in rows] == [(0, None), (1, 1.0)]
    assert rows[1]["score"] is None


def test_lines_are_json_that_strict_parsers_read(tmp_path: Path) -> None:
    def refuse(constant: str) -> object:
        raise AssertionError(f"{constant} is not JSON")

    log_json_lines(tmp_path / "log.jsonl")(at(3, math.inf, value=math.nan))
    json.loads((tmp_path / "log.jsonl").read_text(), parse_constant=refuse)


@BOTH
def test_rows_that_a_resumed_run_repeats_stand_once(tmp_path: Path, log: Callable[..., Callback], read: Read) -> None:
    path = tmp_path / "log"
    for steps, loss in (((0, 10, 20, 30), 1.0), ((20, 30), 2.0), ((20, 25), 3.0)):
        call = log(path)  # of a process of its own
        for step in steps:
            call(at(step, loss))
    found = [(row["step"], row["loss"]) for row in read(path)]
    assert found == [(0, None), (10, 1.0), (20, 3.0), (25, 3.0)]
    call(at(20, 4.0))  # the same process, again
    assert [(row["step"], row["loss"]) for row in read(path)] == [(0, None), (10, 1.0), (20, 4.0)]
    assert [child.name for child in tmp_path.iterdir()] == ["log"]


@BOTH
@pytest.mark.parametrize("step", [0, 10, 15])
def test_rows_behind_the_checkpoint_go_when_a_run_begins(
    tmp_path: Path, log: Callable[..., Any], read: Read, step: int
) -> None:
    path = tmp_path / "log"
    call = log(path)
    for at_step in (0, 10, 20):
        call(at(at_step))
    log(path).begin(at(step))
    assert [row["step"] for row in read(path)] == ([0, 10] if step else [])


@BOTH
def test_a_line_that_was_cut_off_is_dropped(tmp_path: Path, log: Callable[..., Callback], read: Read) -> None:
    path = tmp_path / "log"
    call = log(path)
    call(at(1))
    call(at(2))
    path.write_text(path.read_text()[:-3])
    log(path)(at(3))
    assert [row["step"] for row in read(path)] == [1, 3]


def test_a_table_gets_a_column_when_there_is_one_more(tmp_path: Path) -> None:
    path = tmp_path / "log.csv"
    call = log_csv(path)
    call(at(0))
    call(at(1))
    call(at(2, accuracy=0.5))
    call(at(3))
    header = "step,loss,gradient_norm,accuracy\n"
    assert path.read_text() == header + "0,,,\n1,0.5,2.0,\n2,0.5,2.0,0.5\n3,0.5,2.0,\n"


def test_numbers_are_written_to_the_last_digit(tmp_path: Path) -> None:
    loss = float(torch.tensor(1 / 3))
    for log, read in ((log_json_lines, json_rows), (log_csv, csv_rows)):
        log(tmp_path / "log")(at(3, loss))
        assert read(tmp_path / "log")[0]["loss"] == loss


def test_the_other_processes_write_nothing(tmp_path: Path) -> None:
    run = at(3)
    run.process, run.processes = 1, 2
    log_csv(tmp_path / "log.csv")(run)
    assert not list(tmp_path.iterdir())

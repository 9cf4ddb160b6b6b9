"""Callbacks: when they are called, and what a log holds after a resumed run."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path

import torch
from torch import nn

from training import Run, at_steps, checkpoint, every, log_json_lines, restore


def at(step: int, loss: float = 0.5) -> Run:
    model = nn.Linear(2, 1)
    return Run(model, (torch.optim.SGD(model.parameters(), lr=0.1),), step=step, loss=loss, gradient_norm=2.0)


def test_every_and_at_steps_call_at_the_right_steps() -> None:
    called: dict[str, list[int]] = {"every": [], "at": []}
    callbacks = (
        every(3, lambda run: called["every"].append(run.step)),
        at_steps((0, 2, 2, 7, 99), lambda run: called["at"].append(run.step)),
    )
    for step in range(9):
        for callback in callbacks:
            callback(at(step))
    assert called == {"every": [0, 3, 6], "at": [0, 2, 7]}


def test_at_steps_keeps_steps_of_an_iterator() -> None:
    called: list[int] = []
    callback = at_steps(iter([1, 3]), lambda run: called.append(run.step))
    for step in (1, 2, 3, 1):
        callback(at(step))
    assert called == [1, 3, 1]


def test_log_holds_what_the_run_and_the_evaluation_say(tmp_path: Path) -> None:
    def evaluate(run: Run) -> Mapping[str, object]:
        return {"accuracy": run.step / 10}

    path = tmp_path / "new" / "log.jsonl"
    log = log_json_lines(path, evaluate)
    log(at(4, loss=0.25))
    assert json.loads(path.read_text()) == {"step": 4, "loss": 0.25, "gradient_norm": 2.0, "accuracy": 0.4}


def test_first_line_of_a_log_is_json_that_strict_parsers_read(tmp_path: Path) -> None:
    model = nn.Linear(2, 1)
    path = tmp_path / "log.jsonl"
    log_json_lines(path)(Run(model, ()))

    def refuse(constant: str) -> object:
        raise AssertionError(f"{constant} is not JSON")

    row = json.loads(path.read_text(), parse_constant=refuse)
    assert row == {"step": 0, "loss": None, "gradient_norm": None}


def test_lines_that_a_resumed_run_repeats_stand_once(tmp_path: Path) -> None:
    path = tmp_path / "log.jsonl"
    log = log_json_lines(path)
    for step in (0, 10, 20, 30):
        log(at(step, loss=1.0))
    for step in (20, 30):  # resumed from a checkpoint of step 15
        log(at(step, loss=2.0))
    rows = [json.loads(line) for line in path.read_text().splitlines()]
    assert [(row["step"], row["loss"]) for row in rows] == [(0, None), (10, 1.0), (20, 2.0), (30, 2.0)]
    assert [child.name for child in tmp_path.iterdir()] == ["log.jsonl"]


def test_checkpoint_replaces_the_one_before(tmp_path: Path) -> None:
    path = tmp_path / "training.pt"
    save = checkpoint(path)
    save(at(1))
    save(at(2))
    assert restore(at(0), path).step == 2
    assert [child.name for child in tmp_path.iterdir()] == ["training.pt"]

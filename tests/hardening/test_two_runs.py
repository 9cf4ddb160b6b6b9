"""Two commands on the same folder at once: every stage runs once, and what both leave is whole."""

from __future__ import annotations

import json
import subprocess
import sys
import time
from typing import TYPE_CHECKING

import pytest
from tests.reprise.test_units import execute

from reprise import store

if TYPE_CHECKING:
    from pathlib import Path

    from tests.reprise.conftest import Toys

CLI = (sys.executable, "-c", "from reprise.cli import main; main()")


def at_once(*commands: tuple[str, ...]) -> list[tuple[int, str, str]]:
    """Start all commands, then wait for all; returns exit codes, output and errors."""
    processes = [
        subprocess.Popen([*CLI, *command], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
        for command in commands
    ]
    said = [process.communicate(timeout=120) for process in processes]
    return [(process.returncode, *texts) for process, texts in zip(processes, said, strict=True)]


def hashes(folder: Path) -> dict[str, str]:
    found = {}
    for path in folder.rglob("*.safetensors"):
        stored = store.read(path)
        assert stored is not None, path
        found[f"{path.parent.name}/{path.stem}"] = stored.sha256
    return found


def alone(toys: Toys) -> dict[str, str]:
    """The results of one undisturbed run, elsewhere."""
    ((code, _, said),) = at_once(("run", "toys", "--out", "alone"))
    assert code == 0, said
    toys.executions()
    return hashes(toys.root / "alone")


@pytest.mark.parametrize("options", [(), ("--fresh",)], ids=["stored results count", "all computed anew"])
def test_two_runs_take_turns(toys: Toys, monkeypatch: pytest.MonkeyPatch, options: tuple[str, ...]) -> None:
    expected = alone(toys)
    monkeypatch.setenv("TOYS_SLEEP", "0.1")
    ended = at_once(*[("run", "toys", "--json", *options)] * 2)
    assert [code for code, _, _ in ended] == [0, 0], ended
    assert json.loads(ended[0][1]) == json.loads(ended[1][1])
    once = ["numbers", "scaled one", "scaled two", "summary"]
    assert toys.executions() == once * (2 if options else 1)
    assert hashes(toys.out) == expected
    assert not list(toys.out.rglob("*.partial"))


def test_two_runs_in_processes_take_turns(sweep: Toys, monkeypatch: pytest.MonkeyPatch) -> None:
    expected = alone(sweep)
    monkeypatch.setenv("TOYS_SLEEP", "0.02")
    ended = at_once(("run", "toys", "--jobs", "2"), ("run", "toys", "--jobs", "2", "--only", "b-*"))
    assert [code for code, _, _ in ended] == [0, 0], ended
    assert sorted(sweep.executions()) == sorted(
        line for unit in ("a-1", "a-2", "b-3") for line in (f"grow {unit}", *(f"step {unit} {n}" for n in range(5)))
    )
    assert hashes(sweep.out) == expected


def test_a_run_whose_unit_failed_has_ended_when_the_next_begins(sweep: Toys, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TOYS_FAIL", "a-2")
    monkeypatch.setenv("TOYS_SLEEP", "0.1")
    with pytest.raises(ValueError, match="as asked"):
        execute(sweep, jobs=2)
    ran = sweep.executions()
    assert [line for line in ran if line.startswith("step a-1")] == [f"step a-1 {n}" for n in range(5)]
    time.sleep(1.0)
    assert sweep.executions() == []


def test_figures_and_reports_are_written_while_others_are(toys: Toys) -> None:
    assert at_once(("run", "toys"))[0][0] == 0
    ended = at_once(("figures", "toys"), ("figures", "toys"), ("report",), ("report",), ("run", "toys", "--fresh"))
    assert [code for code, _, _ in ended] == [0] * 5, ended
    assert at_once(("report",))[0][0] == 0
    page = toys.out / "report" / "papers" / "toys.html"
    assert page.read_text().endswith("</html>\n")
    drawn = json.loads((toys.out / "results/toys/tiny/figures/figures.json").read_text())
    assert [figure["name"] for figure in drawn] == ["numbers"]
    assert not list(toys.out.rglob("*.partial"))


def test_a_second_training_into_a_folder_is_refused(toys: Toys) -> None:
    from filelock import FileLock

    (toys.root / "model").mkdir()
    with FileLock(toys.root / "model" / ".lock"):
        ((code, _, said),) = at_once(("train", "attn-only-0l", "--out", "model"))
    assert code == 2
    assert said == "error: model: another training writes there; wait for its end or choose another folder with --out\n"

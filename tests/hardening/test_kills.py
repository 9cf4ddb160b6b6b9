"""A run that is killed at any moment and started again gives what an undisturbed run gives, and leaves nothing else."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from tests.reprise.test_units import invoke

from reprise import claims, store

if TYPE_CHECKING:
    from tests.reprise.conftest import Toys

PROGRAM = Path(__file__).with_name("kill_runs.py")


def killed_and_resumed(toys: Toys, kills: int, *options: str) -> int:
    """Kill as many runs and compare all folders with the undisturbed one; returns how many processes were left."""
    folder = toys.root / "outs"
    folder.mkdir()
    finished = subprocess.run(
        [sys.executable, str(PROGRAM), str(folder), str(kills), *options], capture_output=True, text=True, check=False
    )
    assert finished.returncode == 0, finished.stderr
    undisturbed = contents(folder / "undisturbed")
    assert len(undisturbed) == 1 + sum(path.suffix == ".safetensors" for path in undisturbed)
    for number in range(kills):
        assert contents(folder / f"killed_{number}") == undisturbed, number
    return int(finished.stdout)


def contents(out: Path) -> dict[Path, object]:
    """All files of a run but its lock: the hash and the key of results, the rows of claims.json."""
    folder = out / "results" / "toys" / "tiny"
    files = {path.relative_to(folder): path for path in folder.rglob("*") if path.is_file() and path.name != ".lock"}
    return {name: claims.load(path.parent) if path.name == claims.FILE else whole(path) for name, path in files.items()}


def whole(path: Path) -> tuple[str, str]:
    stored = store.read(path)
    assert stored is not None, path
    return stored.key, stored.sha256


def gone_on_with(toys: Toys) -> int:
    """How many of the runs found results of the killed one."""
    return sum(": stored" in log.read_text() for log in (toys.root / "outs").glob("killed_*.log"))


def write_state_whole(sweep: Toys) -> None:
    """As every stage has to: a file that was being written when the kill came is an empty one."""
    sweep.edit("        count.write_text(str(step + 1))", "        store.write_text(count, str(step + 1))")
    sweep.edit(
        "from reprise import Measurement, Result, Stage", "from reprise import Measurement, Result, Stage, store"
    )


def test_a_killed_run_that_is_resumed_equals_an_undisturbed_one(toys: Toys, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TOYS_SLEEP", "0.02")
    assert killed_and_resumed(toys, 20) == 0
    assert gone_on_with(toys) >= 5


def test_a_killed_sweep_that_is_resumed_equals_an_undisturbed_one(sweep: Toys, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TOYS_SLEEP", "0.01")
    write_state_whole(sweep)
    assert killed_and_resumed(sweep, 20) == 0
    assert gone_on_with(sweep) >= 5


def test_a_killed_run_in_processes_takes_them_along(sweep: Toys, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TOYS_SLEEP", "0.1")
    write_state_whole(sweep)
    assert killed_and_resumed(sweep, 2, "--jobs", "2") == 0


def test_what_a_kill_left_half_written_goes_with_the_next_run(toys: Toys) -> None:
    assert invoke("run", "toys")[0] == 0
    folder = toys.out / "results" / "toys" / "tiny"
    for name in (".claims.json.a1b2.partial", "numbers/.result.safetensors.a1b2.partial", "numbers/gone.safetensors"):
        (folder / name).write_bytes(b"half")
    before = contents_names(folder)
    assert invoke("run", "toys")[0] == 0
    assert len(before) == len(contents_names(folder)) + 3
    assert not list(folder.rglob("*.partial"))


def contents_names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.rglob("*") if path.is_file())

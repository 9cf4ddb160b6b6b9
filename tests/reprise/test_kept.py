"""Kept results: committed for being slow, taken by runs, computed on demand, replaced by `accept`."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import pytest
from tests.reprise.test_units import grown, invoke, sweep

from reprise import store, workspace
from reprise.experiment import load_experiment
from reprise.run import Progress, Request, run

if TYPE_CHECKING:
    from tests.reprise.conftest import Toys

__all__ = ["sweep"]


@pytest.fixture
def keeping(sweep: Toys) -> Toys:
    """The sweep with its first stage kept, run and accepted once, and the run's results gone."""
    sweep.edit('Stage("grow", grow, units=UNITS)', 'Stage("grow", grow, units=UNITS, minutes={"tiny": 1.5})')
    invoke("run", "toys")
    invoke("accept", "toys")
    sweep.executions()
    forget(sweep)
    return sweep


def forget(toys: Toys) -> None:
    for path in toys.out.rglob("*.safetensors"):
        path.unlink()


def states(toys: Toys, *, fresh: bool = False, no_kept: bool = False, seed: int = 0) -> dict[str, str]:
    (paper,) = workspace.load_papers(toys.root, ("toys",))
    said: dict[str, str] = {}
    run(
        Request(toys.root, paper, "tiny", toys.out, seed=seed, fresh=fresh, no_kept=no_kept),
        load_experiment(toys.folder),
        Progress(stage=said.__setitem__),
    )
    return said


def test_kept_results_are_taken_and_said_to_be(keeping: Toys) -> None:
    said = states(keeping)
    assert grown(keeping) == []
    assert said["grow [a-1]"] == "kept; --fresh computes it in about 1.5 min"
    assert said["double [a-1]"] == said["total"] == "done"
    committed = store.read(keeping.folder / "kept" / "tiny" / "grow" / "a-1.safetensors")
    taken = store.read(keeping.out / "results" / "toys" / "tiny" / "grow" / "a-1.safetensors")
    assert committed is not None
    assert taken is not None
    assert taken.sha256 == committed.sha256
    assert taken.provenance == committed.provenance


def test_fresh_computes_them(keeping: Toys) -> None:
    said = states(keeping, fresh=True)
    assert grown(keeping) == ["a-1", "a-2", "b-3"]
    assert said["grow [a-1]"] == "done"
    assert states(keeping)["grow [a-1]"] == "stored"


def test_no_kept_goes_on_from_what_is_stored(keeping: Toys) -> None:
    states(keeping, no_kept=True)
    assert grown(keeping) == ["a-1", "a-2", "b-3"]
    (keeping.out / "results" / "toys" / "tiny" / "grow" / "a-2.safetensors").unlink()
    states(keeping, no_kept=True)
    assert grown(keeping) == ["a-2"]


def test_another_seed_is_computed(keeping: Toys) -> None:
    states(keeping, seed=1)
    assert grown(keeping) == ["a-1", "a-2", "b-3"]


def test_changed_code_is_said(keeping: Toys) -> None:
    keeping.edit("BASE = 1.0", "BASE = 2.0")
    said = states(keeping)
    assert grown(keeping) == []
    assert said["grow [b-3]"].startswith("kept, and its code or its inputs have changed since; --fresh computes it")


def test_a_damaged_kept_result_is_computed(keeping: Toys) -> None:
    path = keeping.folder / "kept" / "tiny" / "grow" / "a-2.safetensors"
    content = bytearray(path.read_bytes())
    content[-1] ^= 1
    path.write_bytes(bytes(content))
    states(keeping)
    assert grown(keeping) == ["a-2"]


def test_accept_replaces_what_changed_keeps_what_was_not_run_and_removes_what_is_no_more(keeping: Toys) -> None:
    folder = keeping.folder / "kept" / "tiny" / "grow"
    before = {path.name: path.read_bytes() for path in folder.iterdir()}
    (folder / "gone.safetensors").write_bytes(b"")
    keeping.edit("BASE = 1.0", "BASE = 2.0")
    invoke("run", "toys", "--no-kept", "--only", "a-1")
    code, said = invoke("accept", "toys")
    assert code == 0, said
    assert "1 kept results in" in said
    after = {path.name: path.read_bytes() for path in folder.iterdir()}
    assert sorted(after) == sorted(before)
    assert [name for name in sorted(after) if after[name] != before[name]] == ["a-1.safetensors"]
    changed = store.read(folder / "a-1.safetensors")
    assert changed is not None
    np.testing.assert_array_equal(changed.result["value"], [2.0, 1.0])

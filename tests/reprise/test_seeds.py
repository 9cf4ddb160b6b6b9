"""`reprise run --seed 0 --seed 1`: a run for each seed, one after another or in processes that all of them share."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from tests.reprise.test_units import invoke

from reprise import store

if TYPE_CHECKING:
    from tests.reprise.conftest import Toys


def files(root: Path, out: str) -> dict[str, tuple[str, str]]:
    """Key and content hash of every stored result, by its place."""
    folder = root / out / "results"
    found = {path.relative_to(folder).as_posix(): store.read(path) for path in folder.rglob("*.safetensors")}
    return {name: (one.key, one.sha256) for name, one in found.items() if one is not None}


def test_at_once_gives_what_one_after_another_gives(toys: Toys, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    seeds = ("--seed", "0", "--seed", "3")
    code, said = invoke("run", "toys", *seeds, "--out", "alone", "--json")
    assert code == 0, said
    alone = json.loads(said[said.index("[\n") :])
    assert [(row["claim"], row["seed"]) for row in alone] == [
        (claim, seed) for seed in (0, 3) for claim in ("mean-is-positive", "spread-is-small")
    ]
    assert alone[0]["estimate"] != alone[2]["estimate"]
    code, said = invoke("run", "toys", *seeds, "--out", "together", "--jobs", "2", "--json")
    assert code == 0, said
    assert json.loads(said[said.index("[\n") :]) == alone
    assert files(toys.root, "together") == files(toys.root, "alone")
    assert len(files(toys.root, "alone")) == 8
    assert {name.split("/")[1] for name in files(toys.root, "together")} == {"tiny", "tiny-seed3"}
    for title in ("toys", "toys (seed 3)"):
        assert f"{title}: scaled [2 in 2 processes]: running\n" in said
        assert f"{title}: summary: done\n" in said
    code, said = invoke("run", "toys", *seeds, "--out", "together", "--jobs", "2")
    assert code == 0
    assert said.count(": stored\n") == 8
    assert " seed " in said


def test_a_seed_that_fails_does_not_stop_the_others(toys: Toys) -> None:
    toys.edit('    ran("summary")', '    ran("summary")\n    if job.seed == 1:\n        raise UserError("1: as asked")')
    toys.edit("from reprise import Measurement", "from reprise import UserError, Measurement")
    code, said = invoke("run", "toys", "--seed", "1", "--seed", "2", "--jobs", "2")
    assert (code, said.splitlines()[-1]) == (2, "error: 1: as asked")
    assert (toys.out / "results" / "toys" / "tiny-seed2" / "claims.json").exists()
    assert not (toys.out / "results" / "toys" / "tiny-seed1" / "claims.json").exists()


def test_a_seed_is_given_once(toys: Toys) -> None:
    code, said = invoke("run", "toys", "--seed", "1", "--seed", "1")
    assert (code, said) == (2, "error: --seed 1 1: expected each seed once\n")
    assert toys.executions() == []

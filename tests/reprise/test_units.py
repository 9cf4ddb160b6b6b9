"""Sweeps: units of a stage, in part, in processes, killed and gone on with."""

from __future__ import annotations

import contextlib
import io
import json
import signal
import subprocess
import sys
import time
from typing import TYPE_CHECKING

import numpy as np
import pytest

from reprise import Stage, UserError, workspace
from reprise.cli import main
from reprise.experiment import Job, Results, load_experiment
from reprise.run import Progress, Request, run, stored_results

if TYPE_CHECKING:
    from tests.reprise.conftest import Toys

SWEEP = '''
import os
import time
from pathlib import Path

import numpy as np

from reprise import Measurement, Result, Stage

BASE = 1.0


def ran(label):
    with open(os.environ["TOYS_LOG"], "a") as file:
        file.write(label + "\\n")


def grow(job):
    """Counts to 5 and writes down how far it is."""
    ran("grow " + job.unit)
    if job.unit == os.environ.get("TOYS_FAIL"):
        raise ValueError("as asked")
    count = job.scratch / "count"
    done = int(count.read_text()) if count.exists() else 0
    for step in range(done, 5):
        ran(f"step {job.unit} {step}")
        time.sleep(float(os.environ.get("TOYS_SLEEP", "0")))
        job.scratch.mkdir(exist_ok=True)
        count.write_text(str(step + 1))
    return Result({"value": np.array([BASE, float(job.unit[-1])])}, {"threads": os.environ.get("OMP_NUM_THREADS")})


def double(job):
    return Result({"value": 2 * job.inputs.of("grow")[job.unit]["value"]}, {"of": sorted(job.inputs.of("grow"))})


def total(job):
    of = job.inputs.of("grow")
    return Result({"sum": np.array(sum(one["value"][1] for one in of.values()))}, {"of": sorted(of)})


UNITS = {"tiny": ("a-1", "a-2", "b-3"), "paper": ()}
STAGES = (
    Stage("grow", grow, units=UNITS),
    Stage("double", double, units=UNITS, needs=("grow",)),
    Stage("total", total, needs=("grow",)),
)


def mean(results):
    of = results.of("grow")
    if len(of) < 3:
        return None
    return Measurement(estimate=float(results.one("total")["sum"]), low=5.0, high=7.0, n=3, over="units")


CLAIMS = {"mean-is-positive": mean, "spread-is-small": lambda results: None}
'''


@pytest.fixture
def sweep(toys: Toys) -> Toys:
    (toys.folder / "experiment.py").write_text(SWEEP)
    text = (toys.folder / "paper.toml").read_text()
    tiny = text.index("[tiers.tiny]")
    first = text.index("models = ", tiny)
    toml = text[:first] + "trains = true" + text[text.index("\n", first) :]
    (toys.folder / "paper.toml").write_text(toml)
    return toys


def execute(toys: Toys, *only: str, jobs: int = 1, fresh: bool = False, progress: Progress | None = None) -> Results:
    return run(request(toys, *only, jobs=jobs, fresh=fresh), load_experiment(toys.folder), progress)


def request(toys: Toys, *only: str, jobs: int = 1, fresh: bool = False) -> Request:
    (paper,) = workspace.load_papers(toys.root, ("toys",))
    return Request(toys.root, paper, "tiny", toys.out, only=only, jobs=jobs, fresh=fresh)


def invoke(*words: str) -> tuple[int, str]:
    """The exit code of a command and what it printed, errors included."""
    said = io.StringIO()
    with pytest.MonkeyPatch.context() as patch, contextlib.redirect_stdout(said), contextlib.redirect_stderr(said):
        patch.setattr(sys, "argv", ["reprise", *words])
        with pytest.raises(SystemExit) as exit_:
            main()
    return int(exit_.value.code or 0), said.getvalue()


def grown(toys: Toys) -> list[str]:
    return [line.removeprefix("grow ") for line in toys.executions() if line.startswith("grow ")]


def test_a_stage_runs_once_for_each_unit(sweep: Toys) -> None:
    results = execute(sweep)
    assert grown(sweep) == ["a-1", "a-2", "b-3"]
    assert {name: float(one["value"][1]) for name, one in results.of("grow").items()} == {"a-1": 1, "a-2": 2, "b-3": 3}
    assert results.of("double")["b-3"]["value"].tolist() == [2.0, 6.0]
    assert results.of("double")["b-3"].facts["of"] == ["b-3"]
    assert float(results.one("total")["sum"]) == 6.0
    execute(sweep)
    assert grown(sweep) == []


def test_some_units_run_and_the_rest_later(sweep: Toys) -> None:
    results = execute(sweep, "a-*")
    assert grown(sweep) == ["a-1", "a-2"]
    assert list(results.of("grow")) == list(results.of("double")) == ["a-1", "a-2"]
    assert results.one("total").facts["of"] == ["a-1", "a-2"]
    again = execute(sweep, "b-?")
    assert grown(sweep) == ["b-3"]
    assert list(again.of("grow")) == ["a-1", "a-2", "b-3"]
    assert float(again.one("total")["sum"]) == 6.0


def test_claims_of_a_part_are_not_run(sweep: Toys) -> None:
    for options, verdict in ((("--only", "a-*"), "not run"), ((), "supported")):
        code, said = invoke("run", "toys", *options, "--json")
        assert code == 0, said
        rows = json.loads(said[said.index("[\n") :])
        assert [row["verdict"] for row in rows] == [verdict, "not run"]


def test_stored_units_are_drawn_from(sweep: Toys) -> None:
    execute(sweep, "a-1")
    stored = stored_results(request(sweep), load_experiment(sweep.folder))
    assert list(stored.of("grow")) == ["a-1"]


def test_a_pattern_that_names_nothing_is_refused(sweep: Toys) -> None:
    with pytest.raises(
        UserError, match=r"toys: --only 'c\*' names no unit of tier 'tiny'; units are, for example: a-1"
    ):
        execute(sweep, "c*")


def test_processes_give_what_one_process_gives(sweep: Toys, monkeypatch: pytest.MonkeyPatch) -> None:
    alone = execute(sweep)
    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
    seen: list[tuple[str, str]] = []
    several = execute(
        sweep, jobs=2, fresh=True, progress=Progress(stage=lambda label, state: seen.append((label, state)))
    )
    for stage in ("grow", "double"):
        assert list(alone.of(stage)) == list(several.of(stage))
        for name, one in several.of(stage).items():
            np.testing.assert_array_equal(one["value"], alone.of(stage)[name]["value"])
    assert {one.facts["threads"] for one in several.of("grow").values()} == {"1"}
    assert sorted(label for label, state in seen if state == "done" and label.startswith("grow")) == [
        "grow [a-1]",
        "grow [a-2]",
        "grow [b-3]",
    ]


def test_a_failing_unit_leaves_the_finished_ones(sweep: Toys, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TOYS_FAIL", "a-2")
    with pytest.raises(ValueError, match="as asked"):
        execute(sweep, jobs=2)
    monkeypatch.delenv("TOYS_FAIL")
    sweep.executions()
    execute(sweep)
    assert "a-1" not in grown(sweep)


def test_a_killed_unit_goes_on_from_its_scratch_folder(sweep: Toys, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TOYS_SLEEP", "0.3")
    process = subprocess.Popen([sys.executable, "-c", "from reprise.cli import main; main()", "run", "toys"])
    folder = sweep.out / "results" / "toys" / "tiny" / "grow"
    deadline = time.monotonic() + 60
    while not list(folder.glob(".a-1-*/count")) and time.monotonic() < deadline:
        time.sleep(0.01)
    process.send_signal(signal.SIGKILL)
    process.wait()
    monkeypatch.setenv("TOYS_SLEEP", "0")
    execute(sweep)
    steps = [line for line in sweep.executions() if line.startswith("step a-1 ")]
    assert steps.count("step a-1 0") == 1
    assert steps[-1] == "step a-1 4"
    assert not list(folder.glob(".*"))


def test_a_scratch_folder_of_older_code_is_not_gone_on_with(sweep: Toys) -> None:
    execute(sweep, "b-3")
    sweep.executions()
    folder = sweep.out / "results" / "toys" / "tiny" / "grow"
    stale = folder / (".a-1-" + "0" * 16)
    stale.mkdir()
    (stale / "count").write_text("4")
    execute(sweep)
    assert "step a-1 0" in sweep.executions()
    assert not stale.exists()


def test_a_tier_that_trains_takes_no_model(sweep: Toys) -> None:
    code, said = invoke("run", "toys", "--model", "gpt2")
    assert code == 2
    assert "toys: tier 'tiny' trains its networks itself; run it without --model" in said


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"units": ("a", "a")}, "unit 'a': expected names of letters"),
        ({"units": ("../a",)}, r"unit '\.\./a': expected names of letters"),
        ({"units": {"tiny": ("",)}}, "unit '': expected names of letters"),
        ({"units": ("a",), "each_model": True}, "expected either units or each_model"),
    ],
)
def test_malformed_units_are_refused(changes: dict[str, object], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        Stage("grow", lambda job: None, **changes)  # type: ignore[arg-type, return-value]


def test_a_stage_without_units_has_no_unit(sweep: Toys) -> None:
    job = Job(sweep.root, "tiny", 0, "cpu", "float32", (), Results("tiny", 0, {}))
    with pytest.raises(RuntimeError, match="no units: declare them"):
        _ = job.unit

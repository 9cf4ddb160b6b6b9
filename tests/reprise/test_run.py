"""What runs again and what does not, and what killed runs and runs at once leave."""

from __future__ import annotations

import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pytest

from reprise import Results, UserError, claims, store, workspace
from reprise.experiment import load_experiment, load_figures
from reprise.run import Progress, Request, run, stored_results

if TYPE_CHECKING:
    from tests.reprise.conftest import Toys

FILES = {
    "numbers": "numbers/result.safetensors",
    "scaled one": "scaled/one.safetensors",
    "scaled two": "scaled/two.safetensors",
    "summary": "summary/result.safetensors",
}
ALL = list(FILES)


def request(toys: Toys, seed: int = 0, fresh: bool = False, models: tuple[str, ...] = ()) -> Request:
    (paper,) = workspace.load_papers(toys.root, ("toys",))
    return Request(toys.root, paper, "tiny", toys.out, seed=seed, fresh=fresh, model_names=models)


def execute(toys: Toys, seed: int = 0, fresh: bool = False, models: tuple[str, ...] = ()) -> Results:
    return run(request(toys, seed, fresh, models), load_experiment(toys.folder))


def contents(out: Path) -> dict[str, tuple[str, str]]:
    """Key and content hash of every stored result below a folder."""
    found = {}
    for path in sorted(out.rglob("*.safetensors")):
        stored = store.read(path)
        assert stored is not None
        found[str(path.relative_to(out))] = (stored.key, stored.sha256)
    return found


def test_every_stage_runs_once_and_is_stored(toys: Toys) -> None:
    results = execute(toys)
    assert toys.executions() == ALL
    values = np.random.default_rng(0).normal(1.0, 0.1, size=50)
    np.testing.assert_array_equal(results.one("numbers")["values"], values)
    assert list(results.of("scaled")) == ["one", "two"]
    assert results.one("summary")["mean"] == pytest.approx(
        sum(float(results.of("scaled")[name]["values"].mean()) for name in ("one", "two"))
    )
    assert sorted(contents(toys.out / "results" / "toys" / "tiny")) == sorted(FILES.values())


def test_a_second_run_computes_nothing_and_sees_the_same(toys: Toys) -> None:
    first, second = execute(toys), execute(toys)
    assert toys.executions() == ALL
    drawn_from = stored_results(request(toys), load_experiment(toys.folder))
    for again in (second, drawn_from):
        for stage in ("numbers", "scaled", "summary"):
            assert {name: result.facts for name, result in first.of(stage).items()} == {
                name: result.facts for name, result in again.of(stage).items()
            }
            for name, result in first.of(stage).items():
                for array in result.arrays:
                    np.testing.assert_array_equal(result[array], again.of(stage)[name][array], strict=True)


def test_provenance_says_what_a_result_was_made_with(toys: Toys) -> None:
    execute(toys, seed=3)
    stored = store.read(toys.out / "results" / "toys" / "tiny-seed3" / "scaled" / "two.safetensors")
    assert stored is not None
    provenance = stored.provenance
    assert (provenance.seed, provenance.device, provenance.dtype) == (3, "cpu", "float32")
    assert list(provenance.models) == ["two"]
    assert provenance.packages["numpy"] == np.__version__
    assert provenance.commit == "unknown"  # the toy workspace is no repository
    assert stored.result.facts["model"] == "two"


def change_data(toys: Toys) -> None:
    (toys.root / "shared" / "offset.txt").write_text("1.0")


def change_weights(toys: Toys) -> None:
    (toys.models[1] / "model.safetensors").write_bytes((toys.models[0] / "model.safetensors").read_bytes())


def write_notes(toys: Toys) -> None:
    (toys.models[0] / "notes.txt").write_text("Notes.")


def change_config(toys: Toys) -> None:
    (toys.models[0] / "config.json").write_text('{"d_model": 5}')


def damage(name: str) -> Callable[[Toys], None]:
    def change(toys: Toys) -> None:
        path = toys.out / "results" / "toys" / "tiny" / name
        content = bytearray(path.read_bytes())
        content[-1] ^= 1
        path.write_bytes(content)

    return change


RERUNS: dict[str, tuple[Callable[[Toys], None], list[str]]] = {
    "nothing": (lambda toys: None, []),
    "comment": (lambda toys: toys.edit("SCALE = 2.0", "# twice\nSCALE = 2.0"), []),
    "notes beside the weights": (write_notes, []),
    "measure": (lambda toys: toys.edit("high=1.5", "high=1.6"), []),
    "constant": (lambda toys: toys.edit("SCALE = 2.0", "SCALE = 3.0"), ["scaled one", "scaled two", "summary"]),
    # The numbers stay as they are, so what is made from them does too.
    "code without consequence": (lambda toys: toys.edit("size=50)", "size=(50,))"), ["numbers"]),
    "code of the last stage": (lambda toys: toys.edit("sum(float", "2 * sum(float"), ["summary"]),
    "data": (change_data, ALL),
    "weights": (change_weights, ["numbers", "scaled two", "summary"]),
    # A stage that runs once depends on all models of the run; the results stay as they are.
    "config": (change_config, ["numbers", "scaled one", "summary"]),
    "damaged result": (damage("scaled/one.safetensors"), ["scaled one"]),
    "damaged first result": (damage("numbers/result.safetensors"), ["numbers"]),
}


@pytest.mark.parametrize("name", RERUNS)
def test_exactly_what_a_change_touches_runs_again(toys: Toys, name: str) -> None:
    change, reruns = RERUNS[name]
    execute(toys)
    toys.executions()
    change(toys)
    execute(toys)
    assert toys.executions() == reruns
    execute(toys)
    assert toys.executions() == []


def test_seeds_and_models_have_results_of_their_own(toys: Toys, make_model: Callable[[str], Path]) -> None:
    execute(toys)
    before = contents(toys.out)
    execute(toys, seed=1)
    execute(toys, models=(str(make_model("three")),))
    assert toys.executions() == [*ALL, *ALL, "numbers", "scaled three", "summary"]
    assert before.items() <= contents(toys.out).items()
    execute(toys)
    execute(toys, seed=1)
    assert toys.executions() == []


def test_keys_depend_on_seed_device_and_dtype(toys: Toys) -> None:
    experiment = load_experiment(toys.folder)
    asked = request(toys)
    keys = set()
    for change in ({}, {"seed": 1}, {"device": "cpu:0"}, {"dtype": "float16"}):
        changed = replace(asked, **change)
        run(changed, experiment)
        stored = store.read(changed.folder() / FILES["numbers"])
        assert stored is not None
        keys.add(stored.key)
    assert len(keys) == 4


def test_fresh_runs_everything_again(toys: Toys) -> None:
    execute(toys)
    before = contents(toys.out)
    execute(toys, fresh=True)
    assert toys.executions() == ALL * 2
    assert contents(toys.out) == before


def test_models_that_the_tier_no_longer_names_leave_no_results(toys: Toys) -> None:
    execute(toys)
    toys.models = toys.models[:1]
    toys.write_paper()
    execute(toys)
    assert list(stored_results(request(toys), load_experiment(toys.folder)).of("scaled")) == ["one"]


def test_two_models_of_one_name_are_refused(toys: Toys, make_model: Callable[[str], Path]) -> None:
    with pytest.raises(UserError, match="two models are named 'one'"):
        execute(toys, models=(str(make_model("one")), str(toys.models[0])))


def test_a_tier_without_models_asks_for_one(toys: Toys) -> None:
    (paper,) = workspace.load_papers(toys.root)
    with pytest.raises(UserError, match="tier 'paper' names no models; give one with --model"):
        Request(toys.root, paper, "paper", toys.out).references()


def test_missing_data_is_said_with_file_and_stage(toys: Toys) -> None:
    (toys.root / "shared" / "offset.txt").unlink()
    with pytest.raises(UserError, match=r"offset\.txt: cannot be read \(No such file or directory\); stage 'numbers'"):
        execute(toys)


def test_an_error_in_a_stage_leaves_the_results_before_it(toys: Toys) -> None:
    toys.edit('of = job.inputs.of("scaled")', 'raise RuntimeError("in the last stage")')
    with pytest.raises(RuntimeError, match="in the last stage"):
        execute(toys)
    with pytest.raises(UserError, match="no result of stage 'summary'; run `reprise run toys --tier tiny`"):
        stored_results(request(toys), load_experiment(toys.folder))
    toys.executions()
    toys.edit('raise RuntimeError("in the last stage")', 'of = job.inputs.of("scaled")')
    execute(toys)
    assert toys.executions() == ["summary"]


def test_stages_see_only_what_they_need(toys: Toys) -> None:
    toys.edit('of = job.inputs.of("scaled")', 'of = job.inputs.of("numbers")')
    with pytest.raises(KeyError, match="no stage 'numbers'; stored are: scaled"):
        execute(toys)
    toys.edit('ran("numbers")', "job.model")
    with pytest.raises(RuntimeError, match="each_model=True"):
        execute(toys)


def test_damaged_results_are_not_drawn(toys: Toys) -> None:
    execute(toys)
    damage("numbers/result.safetensors")(toys)
    with pytest.raises(UserError, match=r"result\.safetensors: damaged; run `reprise run toys --tier tiny` again"):
        stored_results(request(toys), load_experiment(toys.folder))


def test_progress_tells_what_ran(toys: Toys) -> None:
    told: list[tuple[str, str]] = []
    within: list[tuple[int, int]] = []
    progress = Progress(lambda label, state: told.append((label, state)), lambda done, of: within.append((done, of)))
    toys.models = toys.models[:1]
    toys.write_paper()
    run(request(toys), load_experiment(toys.folder), progress)
    assert told == [(label, state) for label in ("numbers", "scaled [one]", "summary") for state in ("running", "done")]
    assert within == [(1, 1)]
    told.clear()
    run(request(toys), load_experiment(toys.folder), progress)
    assert told == [(label, "stored") for label in ("numbers", "scaled [one]", "summary")]


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("STAGES = (", "STEPS = (", "experiment.py: defines no STAGES"),
        ("CLAIMS = {", "CLAIM = {", "experiment.py: defines no CLAIMS"),
        ('needs=("scaled",)', 'needs=("later",)', "stage 'summary' needs 'later', which no earlier stage gives"),
        ("SCALE = 2.0", "SCALE = 1 / 0", r"experiment.py: cannot be imported \(ZeroDivisionError: division by zero\)"),
        ("SCALE = 2.0", "SCALE =", r"experiment.py: cannot be imported \(SyntaxError: .*line 10"),
    ],
)
def test_what_an_experiment_lacks_is_said(toys: Toys, old: str, new: str, message: str) -> None:
    toys.edit(old, new)
    with pytest.raises(UserError, match=message):
        load_experiment(toys.folder)


def test_missing_files_of_a_replication_are_said(toys: Toys) -> None:
    for name, load in (("experiment", load_experiment), ("figures", load_figures)):
        (toys.folder / f"{name}.py").unlink()
        with pytest.raises(UserError, match=f"{name}.py: no such file"):
            load(toys.folder)


def start(toys: Toys) -> subprocess.Popen[bytes]:
    command = [sys.executable, "-c", "from reprise.cli import main; main()", "run", "toys", "--out", str(toys.out)]
    return subprocess.Popen(command, cwd=toys.root, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)


def outcome(toys: Toys) -> tuple[dict[str, tuple[str, str]], bytes]:
    return contents(toys.out), (toys.out / "results" / "toys" / "tiny" / "claims.json").read_bytes()


def undisturbed(toys: Toys) -> tuple[dict[str, tuple[str, str]], bytes]:
    """The outcome of one run in this process, after which everything is as if it had not been."""
    asked = request(toys)
    results = execute(toys)
    claims.save(claims.evaluate(asked.paper, load_experiment(toys.folder).claims, results), asked.folder())
    found = outcome(toys)
    shutil.rmtree(toys.out)
    toys.executions()
    return found


def test_killed_runs_end_in_the_results_of_an_undisturbed_one(toys: Toys, monkeypatch: pytest.MonkeyPatch) -> None:
    expected = undisturbed(toys)
    tiny = toys.out / "results" / "toys" / "tiny"
    monkeypatch.setenv("TOYS_SLEEP", "0.2")
    generator = np.random.default_rng(0)
    for soonest in (0.0, 0.3, 0.6):
        missing = [stage for stage in ALL if not (tiny / FILES[stage]).exists()]
        with start(toys) as process:
            while process.poll() is None and not toys.log.exists():
                time.sleep(0.005)
            time.sleep(soonest + generator.uniform(0.0, 0.2))
            process.send_signal(signal.SIGKILL)
        ran = toys.executions()
        assert ran == missing[: len(ran)]  # resumed at the first unfinished stage
    (tiny / "numbers").mkdir(parents=True, exist_ok=True)
    (tiny / "numbers" / ".result.safetensors.x.partial").write_bytes(b"half")
    assert start(toys).wait() == 0
    assert outcome(toys) == expected
    assert not list(toys.out.rglob("*.partial"))


def test_two_runs_at_once_take_turns(toys: Toys, monkeypatch: pytest.MonkeyPatch) -> None:
    expected = undisturbed(toys)
    monkeypatch.setenv("TOYS_SLEEP", "0.1")
    first, second = start(toys), start(toys)
    assert (first.wait(), second.wait()) == (0, 0)
    assert toys.executions() == ALL
    assert outcome(toys) == expected

"""The command line: what every command prints, its exit codes, and one line for every bad input."""

from __future__ import annotations

import errno
import json
import os
import shutil
import statistics
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from reprise import models, report, tables
from reprise.cli import main

if TYPE_CHECKING:
    from tests.reprise.conftest import Toys

CLAIM_KEYS = {
    *("paper", "claim", "tier", "verdict", "estimate", "low", "high", "n", "unit", "paper_value", "provenance"),
}


@dataclass(frozen=True)
class Answer:
    code: int
    out: str
    err: str

    @property
    def json(self) -> Any:
        return json.loads(self.out)


Cli = Callable[..., Answer]


@pytest.fixture
def cli(toys: Toys, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]) -> Cli:
    """The command line in the toy workspace, in this process."""

    def call(*arguments: str) -> Answer:
        monkeypatch.setattr(sys, "argv", ["reprise", *arguments])
        capfd.readouterr()
        with pytest.raises(SystemExit) as exit_:
            main()
        captured = capfd.readouterr()
        return Answer(int(exit_.value.code or 0), captured.out, captured.err)

    return call


def assert_one_line(answer: Answer, *parts: str) -> None:
    assert (answer.code, answer.out) == (2, "")
    assert answer.err.startswith("error: ")
    assert answer.err.count("\n") == 1
    for part in parts:
        assert part in answer.err


def test_list_prints_papers_with_tiers_and_claim_counts(cli: Cli) -> None:
    answer = cli("list")
    assert answer.code == 0
    assert "Toys (2020)" in answer.out
    nothing = {"supported": 0, "refuted": 0, "inconclusive": 0}
    assert cli("list", "--json").json == [
        {
            "paper": "toys",
            "title": "Toys",
            "year": 2020,
            "owner": "@reprise/toys",
            "tiers": {"tiny": {**nothing, "not run": 2}, "paper": {**nothing, "not run": 1}},
            "claims": 2,
        }
    ]


def test_show_prints_claims_and_committed_verdicts(cli: Cli) -> None:
    answer = cli("show", "toys")
    assert answer.code == 0
    assert "A. Author, B. Author, 2020. https://example.org/toys" in answer.out
    assert "mean-is-positive: The mean is positive. (section 1; accepted: tiny: at least 0, paper: 0.4 to 0.6)" in (
        answer.out
    )
    shown = cli("show", "toys", "--json").json
    assert shown["paper"]["slug"] == "toys"
    assert [row["verdict"] for row in shown["results"]] == ["not run"] * 3


def test_show_of_one_claim_and_of_an_unknown_one(cli: Cli) -> None:
    shown = json.loads(cli("show", "toys", "--claim", "mean-is-positive", "--json").out)
    assert [claim["id"] for claim in shown["paper"]["claims"]] == ["mean-is-positive"]
    assert {row["claim"] for row in shown["results"]} == {"mean-is-positive"}
    refused = cli("show", "toys", "--claim", "nosuch")
    assert refused.code == 2
    assert "no claim 'nosuch'" in refused.err
    assert refused.err.count("\n") == 1


def test_run_judges_claims_and_says_on_standard_error_what_ran(cli: Cli, toys: Toys) -> None:
    answer = cli("run", "toys", "--json")
    assert answer.code == 0
    assert answer.err.splitlines() == [
        f"toys: {stage}: {state}"
        for stage in ("numbers", "scaled [one]", "scaled [two]", "summary")
        for state in ("running", "done")
    ]
    first, second = answer.json
    assert first.keys() >= CLAIM_KEYS
    assert (first["paper"], first["claim"], first["tier"], first["verdict"]) == (
        *("toys", "mean-is-positive", "tiny", "supported"),
    )
    assert first["low"] < first["estimate"] < first["high"]
    assert (first["n"], first["unit"], first["paper_value"], first["provenance"]) == (50, "nats", 0.5, "read")
    assert (second["paper_value"], second["provenance"]) == (None, "memory")
    table = cli("run", "--all")
    assert "mean-is-positive" in table.out
    assert "stored" in table.err
    assert toys.executions() == ["numbers", "scaled one", "scaled two", "summary"]


def test_run_takes_models_seed_out_and_fresh(cli: Cli, toys: Toys, make_model: Callable[[str], Path]) -> None:
    model = make_model("mine")
    arguments = ("run", "toys", "--tier", "paper", "--model", str(model), "--seed", "3", "--out", "elsewhere")
    (row,) = cli(*arguments, "--json").json
    assert (row["claim"], row["tier"], row["verdict"]) == ("mean-is-positive", "paper", "refuted")
    kept = toys.root / "elsewhere" / "results" / "toys" / "paper-mine-seed3" / "claims.json"
    assert json.loads(kept.read_text()) == [row]
    cli(*arguments, "--fresh")
    assert toys.executions() == ["numbers", "scaled mine", "summary"] * 2


def test_verify_exits_1_when_a_supported_claim_no_longer_is(cli: Cli, toys: Toys) -> None:
    assert cli("run", "toys").code == 0
    assert cli("accept", "toys").code == 0
    kept = cli("verify", "toys", "--json")
    assert kept.code == 0
    assert [row.keys() >= CLAIM_KEYS for row in kept.json] == [True, True]
    toys.write_paper(at_least="5.0")
    lost = cli("verify", "toys", "--json")
    assert lost.code == 1
    assert lost.json[0]["verdict"] == "refuted"
    assert lost.err.splitlines()[-1] == "lost: toys mean-is-positive (tiny): was supported, now refuted"


def test_verify_forgives_what_was_never_supported(cli: Cli, toys: Toys) -> None:
    toys.write_paper(at_least="5.0")
    assert cli("verify", "--all").code == 0
    cli("accept", "toys")
    assert cli("verify", "--all").code == 0


def test_figures_accept_and_readme_tables(cli: Cli, toys: Toys) -> None:
    readmes = [toys.root / "README.md", toys.folder / "README.md"]
    for readme in readmes:
        readme.write_text(f"# Title\n{tables.BEGIN}\n{tables.END}\nend\n")
    cli("run", "toys")
    assert cli("figures", "toys").out.startswith("toys: 1 figure in build/results/toys/tiny/figures")
    assert cli("accept", "--all").code == 0
    results = toys.folder / "results" / "tiny"
    assert {str(path.relative_to(results)) for path in results.rglob("*.*")} == {
        *("claims.json", "figures/figures.json", "figures/numbers.png", "figures/numbers.svg"),
    }
    for readme in readmes:
        assert "**supported**" in readme.read_text()
        assert readme.read_text().endswith(f"{tables.END}\nend\n")
    assert cli("list", "--json").json[0]["tiers"]["tiny"]["supported"] == 2


def test_report_says_where_it_is(cli: Cli, toys: Toys, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(report, "build", lambda root, papers, out: out / f"{len(papers)}.html")
    assert cli("report").out == "report: build/1.html\n"


class Shelf:
    def names(self) -> tuple[str, ...]:
        return ("small",)

    def folder(self, name: str) -> Path:
        raise FileNotFoundError("nowhere")

    def train(
        self, name: str, out: Path, device: str, threads: int, progress: Callable[[int, int, float], None]
    ) -> Path:
        progress(1, 1, 0.5)
        (out / "trained").write_text(f"{name} {device} {threads}")
        return out


def test_train_hands_everything_to_the_catalogue(cli: Cli, toys: Toys, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(models, "catalogues", lambda: iter([Shelf()]))
    answer = cli("train", "small", "--threads", "2")
    assert (answer.code, answer.out.split(":")[0]) == (0, "build/models/small")
    assert (toys.out / "models" / "small" / "trained").read_text() == "small cpu 2"
    assert_one_line(cli("train", "large"), "no model 'large'", "small")
    assert_one_line(cli("run", "toys", "--model", "small"), "nowhere", "reprise train small")


def test_bench_prints_its_rows(cli: Cli, monkeypatch: pytest.MonkeyPatch) -> None:
    from reprise import benchmarks

    monkeypatch.setattr(benchmarks, "find", lambda name: lambda: [("a", None, lambda: None), ("b", "a", lambda: None)])
    rows = cli("bench", "toy", "--repeats", "2", "--json").json
    assert [row.keys() >= {"name", "seconds", "baseline", "ratio", "peak_mib"} for row in rows] == [True, True]
    assert [(row["name"], row["baseline"]) for row in rows] == [("a", None), ("b", "a")]
    assert "compared with" in cli("bench", "toy").out
    monkeypatch.setattr(benchmarks, "names", lambda: ("toy", "other"))
    assert cli("bench").out == "toy\nother\n"
    assert cli("bench", "--json").json == ["toy", "other"]


@pytest.mark.parametrize("arguments", [(), ("--help",), ("run", "--help")])
def test_help(cli: Cli, arguments: tuple[str, ...]) -> None:
    answer = cli(*arguments)
    assert (answer.code, answer.err) == (0, "")
    assert answer.out.lstrip().startswith("Usage: reprise")


BAD: dict[str, tuple[tuple[str, ...], tuple[str, ...]]] = {
    "unknown command": (("runn", "toys"), ("runn", "reprise --help")),
    "unknown option": (("run", "toys", "--sead", "1"), ("--sead", "reprise COMMAND --help")),
    "missing argument": (("show",), ("PAPER",)),
    "missing value": (("run", "toys", "--seed"), ("--seed",)),
    "no paper": (("run",), ("--all", "toys")),
    "paper and all": (("run", "toys", "--all"), ("--all", "toys")),
    "unknown paper": (("run", "boys"), ("'boys'", "toys")),
    "unknown paper to show": (("show", "boys"), ("'boys'", "toys")),
    "unknown tier": (("run", "toys", "--tier", "huge"), ("'huge'", "tiny, paper")),
    "unknown model": (("run", "toys", "--model", "a b"), ("'a b'", "hub id")),
    "unknown model to train": (("train", "a b"), ("'a b'",)),
    "unknown benchmark": (("bench", "none"), ("'none'",)),
    "seed that is no number": (("run", "toys", "--seed", "x"), ("--seed", "integer")),
    "seed that is no integer": (("run", "toys", "--seed", "1.5"), ("--seed", "integer")),
    "negative seed": (("run", "toys", "--seed", "-1"), ("--seed", "greater than or equal to 0")),
    "unknown dtype": (("run", "toys", "--dtype", "int8"), ("'int8'", "float32")),
    "no models in the tier": (("run", "toys", "--tier", "paper"), ("--model",)),
    "figures before a run": (("figures", "toys"), ("reprise run toys",)),
    "accept before a run": (("accept", "toys"), ("reprise run toys",)),
}


@pytest.mark.parametrize("name", BAD)
def test_bad_arguments_get_one_line(cli: Cli, name: str) -> None:
    arguments, parts = BAD[name]
    assert_one_line(cli(*arguments), *parts)


@pytest.mark.parametrize("command", ["list", "run toys", "verify --all", "show toys"])
def test_a_malformed_paper_gets_one_line(cli: Cli, toys: Toys, command: str) -> None:
    toys.edit("year = 2020", 'year = "twenty"', "paper.toml")
    assert_one_line(cli(*command.split()), str(toys.folder / "paper.toml"), "$.year")


def test_claims_without_measures_get_one_line_before_anything_runs(cli: Cli, toys: Toys) -> None:
    toys.edit('"spread-is-small": spread', "", "experiment.py")
    assert_one_line(cli("run", "toys"), "'spread-is-small'")
    assert toys.executions() == []


def test_a_model_folder_without_config_or_weights_gets_one_line(cli: Cli, toys: Toys) -> None:
    (toys.models[0] / "config.json").unlink()
    assert_one_line(cli("run", "toys"), str(toys.models[0]), "no config.json")
    assert_one_line(cli("run", "toys", "--model", str(toys.models[0])), "no config.json")
    (toys.models[1] / "model.safetensors").unlink()
    assert_one_line(cli("run", "toys", "--model", str(toys.models[1])), "no *.safetensors")


@pytest.mark.parametrize("command", ["run toys", "train small", "verify --all"])
def test_an_output_folder_that_cannot_be_written_gets_one_line(
    cli: Cli, toys: Toys, monkeypatch: pytest.MonkeyPatch, command: str
) -> None:
    monkeypatch.setattr(models, "catalogues", lambda: iter([Shelf()]))
    (toys.root / "file").touch()
    assert_one_line(cli(*command.split(), "--out", "file"), "cannot be written", "--out")

    def refuse(*_: object, **__: object) -> None:
        raise PermissionError(errno.EACCES, "Permission denied")

    monkeypatch.setattr(Path, "mkdir", refuse)
    assert_one_line(cli(*command.split(), "--out", "new"), "new", "Permission denied", "--out")


def test_a_disk_that_fills_up_gets_one_line_and_nothing_is_believed(
    cli: Cli, toys: Toys, monkeypatch: pytest.MonkeyPatch
) -> None:
    real = Path.write_bytes

    def fill(path: Path, content: bytes) -> int:
        if path.name.startswith(".two.safetensors"):
            real(path, content[: len(content) // 2])
            raise OSError(errno.ENOSPC, "No space left on device")
        return real(path, content)

    with monkeypatch.context() as patch:
        patch.setattr(Path, "write_bytes", fill)
        answer = cli("run", "toys")
    assert (answer.code, answer.out) == (2, "")
    (line,) = (line for line in answer.err.splitlines() if not line.startswith("toys: "))
    assert "No space left on device" in line
    assert "free some space" in line
    assert sorted(path.name for path in toys.out.rglob("*.*") if path.is_file()) == [
        *(".lock", "one.safetensors", "result.safetensors"),
    ]
    toys.executions()
    assert cli("run", "toys").code == 0
    assert toys.executions() == ["scaled two", "summary"]


def test_an_error_of_two_lines_is_written_as_one(cli: Cli, toys: Toys) -> None:
    toys.edit("SCALE = 2.0", "from reprise import UserError\nraise UserError('first\\n  second')")
    assert_one_line(cli("run", "toys"), "first second")


def test_errors_of_our_code_keep_their_traceback(toys: Toys, monkeypatch: pytest.MonkeyPatch) -> None:
    toys.edit("of = job.inputs", "raise RuntimeError('a bug')\n    of = job.inputs")
    monkeypatch.setattr(sys, "argv", ["reprise", "run", "toys"])
    with pytest.raises(RuntimeError, match="a bug"):
        main()


def test_no_workspace_gets_one_line(cli: Cli, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("REPRISE_ROOT")
    monkeypatch.chdir(tmp_path)
    assert_one_line(cli("list"), "no folder replications/", "REPRISE_ROOT")
    monkeypatch.chdir(tmp_path / "workspace" / "shared")
    assert cli("list").code == 0


SLOW = ("torch", "transformer_lens", "transformers", "matplotlib", "numpy", "pydantic", "safetensors")
LOADED = f"""
import sys
sys.argv = ["reprise", "list"]
from reprise.cli import main
try:
    main()
finally:
    print(sorted(set({SLOW}) & sys.modules.keys()), file=sys.stderr)
"""


def test_list_loads_no_slow_library(toys: Toys) -> None:
    finished = subprocess.run([sys.executable, "-c", LOADED], capture_output=True, text=True, check=True)
    assert "Toys (2020)" in finished.stdout
    assert finished.stderr == "[]\n"


def test_list_takes_less_than_half_a_second_of_processor_time(toys: Toys) -> None:
    script = shutil.which("reprise", path=str(Path(sys.executable).parent))
    assert script is not None

    def seconds() -> float:
        before = os.times()
        subprocess.run([script, "list"], stdout=subprocess.DEVNULL, check=True)
        after = os.times()
        return after.children_user + after.children_system - before.children_user - before.children_system

    # Processor time, since tests run beside each other.
    assert statistics.median(seconds() for _ in range(3)) < 0.5


def test_the_console_script_answers_with_exit_codes(toys: Toys) -> None:
    script = str(Path(sys.executable).with_name("reprise"))
    finished = subprocess.run([script, "show", "boys"], capture_output=True, text=True, check=False)
    assert (finished.returncode, finished.stdout, finished.stderr.count("\n")) == (2, "", 1)

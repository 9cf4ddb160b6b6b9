"""reprise new with claims: the table as it is read, the replication that it becomes, and asking in a terminal."""

from __future__ import annotations

import os
import pty
import subprocess
import sys
import tomllib
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from tests.reprise.team import Cli, one_line

from reprise import UserError, claim_lists, claims, models, workspace
from reprise.experiment import load_experiment
from reprise.models import ModelReference
from reprise.paper import Accept
from reprise.run import Request, run

if TYPE_CHECKING:
    from tests.reprise.conftest import Toys

HEAD = "id,statement,where,quantity,unit,provenance,paper_value,tiny,paper,note"
ROWS = (
    'heads-copy,"Some head copies, by ""its"" OV circuit \\ so.",section 3,share,share,read,0.9,at least 0.5,0.8 to 1,',
    "loss-falls,The loss falls.,figure 2,difference,nats,memory,,,<= -1e-3,only at scale",
)
COMPLETE = ("--title", "New", "--owner", "@reprise/circuits")


@pytest.fixture
def cli(toys: Toys, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]) -> Cli:
    monkeypatch.setattr(models, "resolve", lambda name: ModelReference(name, "shipped", "nowhere", "hash"))
    return Cli(monkeypatch, capfd)


@pytest.fixture
def table(tmp_path: Path) -> Path:
    path = tmp_path / "claims.csv"
    path.write_text("\n".join((HEAD, *ROWS)), encoding="utf-8")
    return path


def test_the_claims_of_a_table_stand_in_paper_toml(cli: Cli, toys: Toys, table: Path) -> None:
    options = ("--author", "A. One", "--author", "B. Two", "--year", "2021", "--link", "https://example.org/new")
    answer = cli("new", "new_paper", *COMPLETE, *options, "--claims", str(table))
    assert answer.code == 0, answer.err
    (paper,) = workspace.load_papers(toys.root, ("new_paper",))
    assert (paper.authors, paper.year, paper.link) == (("A. One", "B. Two"), 2021, "https://example.org/new")
    assert paper.channel is not None
    assert paper.channel.label == "paper: new paper"
    assert paper.claims == claim_lists.read(table)
    first, second = paper.claims
    assert first.statement == 'Some head copies, by "its" OV circuit \\ so.'
    assert (first.paper_value, first.provenance) == (0.9, "read")
    assert dict(first.accept) == {"tiny": Accept(at_least=0.5), "paper": Accept(at_least=0.8, at_most=1.0)}
    assert (second.paper_value, second.note) == (None, "only at scale")
    assert dict(second.accept) == {"paper": Accept(at_most=-0.001)}


def test_the_table_is_printed_for_review_and_nothing_is_measured_yet(cli: Cli, toys: Toys, table: Path) -> None:
    lines = cli("new", "new_paper", *COMPLETE, "--claims", str(table)).out.splitlines()
    assert lines[1] == str(toys.root / "replications/new_paper/paper.toml")
    assert any("To be reviewed: could it fail" in line for line in lines)
    (row,) = (line for line in lines if "loss-falls" in line)
    assert row.split("  ")[-1].strip() == "paper: at most -0.001" or "paper: at most -0.001" in row
    (paper,) = workspace.load_papers(toys.root, ("new_paper",))
    experiment = load_experiment(workspace.folder_of(toys.root, paper))
    results = run(Request(root=toys.root, paper=paper, tier="tiny", out=toys.out), experiment)
    rows = claims.evaluate(paper, experiment.claims, results)
    assert [(row.claim, row.verdict) for row in rows] == [("heads-copy", "not run")]


BAD = {
    "no file": (None, "cannot be read"),
    "empty": ("", "no claims"),
    "heading alone": (HEAD, "no claims"),
    "no column": ("id,statement\na,b", "row 1: no where"),
    "unknown column": (f"{HEAD},tinny\n{ROWS[1]},x", "column 'tinny'"),
    "too many fields": (f"{HEAD}\n{ROWS[1]},x,y", "row 1: expected 10 fields"),
    "too few fields": (f"{HEAD}\n{ROWS[0]}\na,b", "row 2: expected 10 fields"),
    "no range": (f"{HEAD}\n{ROWS[1].replace('<= -1e-3', '')}", "acceptance range"),
    "bad range": (f"{HEAD}\n{ROWS[1].replace('<= -1e-3', 'lots')}", "range 'lots'"),
    "reversed range": (f"{HEAD}\n{ROWS[0].replace('0.8 to 1', '1 to 0.8')}", "must not exceed"),
    "bad number": (f"{HEAD}\n{ROWS[0].replace('0.9', 'high')}", "paper_value 'high'"),
    "infinite number": (f"{HEAD}\n{ROWS[0].replace('0.9', 'inf')}", "paper_value 'inf'"),
    "bad provenance": (f"{HEAD}\n{ROWS[1].replace('memory', 'hearsay')}", "provenance"),
    "bad id": (f"{HEAD}\n{ROWS[1].replace('loss-falls', 'Loss Falls')}", "Loss Falls"),
    "same id": (f"{HEAD}\n{ROWS[1]}\n{ROWS[1]}", "'loss-falls' stands in two rows"),
    "control characters": (f"{HEAD}\n{ROWS[1]}\x1b[2J", "printable"),
}


@pytest.mark.parametrize("name", BAD)
def test_a_bad_table_gets_one_line_and_nothing_is_written(cli: Cli, toys: Toys, table: Path, name: str) -> None:
    text, message = BAD[name]
    table.unlink() if text is None else table.write_text(text)
    assert one_line(cli("new", "new_paper", *COMPLETE, "--claims", str(table)), str(table), message)
    assert not (toys.root / "replications/new_paper").exists()


def test_not_utf8(cli: Cli, table: Path) -> None:
    table.write_bytes(f"{HEAD}\n{ROWS[1]}".replace("loss falls", "\xe9").encode("latin-1"))
    assert one_line(cli("new", "new_paper", *COMPLETE, "--claims", str(table)), "UTF-8")


@pytest.mark.parametrize("text", ["at least 0.5", ">= 0.5", ">=.5", "At  least 0.5"])
def test_ranges_read_as_they_are_shown(text: str) -> None:
    assert claim_lists.accept(text) == Accept(at_least=0.5)
    shown = Accept(at_least=-1.5, at_most=2e-05)
    assert claim_lists.accept(str(shown)) == shown


@pytest.mark.parametrize("text", ["", "0.5", "at least", "at least nan", "at least 1.2.3", "1 to", "at most -"])
def test_no_range(text: str) -> None:
    with pytest.raises(UserError, match="range"):
        claim_lists.accept(text)


def test_without_a_terminal_what_is_missing_is_named(cli: Cli, toys: Toys, monkeypatch: pytest.MonkeyPatch) -> None:
    with Path(os.devnull).open() as nothing:
        monkeypatch.setattr(sys, "stdin", nothing)
        assert one_line(cli("new"), "missing: SLUG, --title, --owner")
        assert one_line(cli("new", "new_paper", "--title", "New"), "missing: --owner;")
    assert one_line(cli("new", "new_paper", *COMPLETE, "--link", "ftp://x"), "link 'ftp://x'")


def test_a_terminal_is_asked_for_all_that_is_not_given(toys: Toys) -> None:
    typed = (
        *("Bad-Slug", "asked_paper"),
        *("circuits", "@reprise/circuits"),
        *("A. One, B. Two", "20x", "2023", "nowhere", "https://example.org/a", "What it asks.", ""),
        *(
            "a-claim",
            "It holds.",
            "section 1",
            "mean",
            "nats",
            "half",
            "0.5",
            "heard",
            "read",
            "lots",
            "at least 0.4",
            "",
        ),
        *("a-claim", ""),
    )
    ours, theirs = pty.openpty()
    script = str(Path(sys.executable).with_name("reprise"))
    with subprocess.Popen(
        [script, "new", "--title", "Asked"], stdin=theirs, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    ) as process:
        os.write(ours, "".join(f"{answer}\n" for answer in typed).encode())
        out, err = process.communicate(timeout=120)
    os.close(ours)
    os.close(theirs)
    assert process.returncode == 0, err
    assert "title of the paper" not in err
    for refused in (
        "'Bad-Slug'",
        "'circuits'",
        "'20x'",
        "'nowhere'",
        "'half'",
        "'heard'",
        "'lots'",
        "'a-claim' is there",
    ):
        assert refused in err
    assert "a-claim" in out
    written = tomllib.loads((toys.root / "replications/asked_paper/paper.toml").read_text())
    assert (written["title"], written["owner"], written["year"]) == ("Asked", "@reprise/circuits", 2023)
    assert written["authors"] == ["A. One", "B. Two"]
    (claim,) = written["claims"]
    assert (claim["paper_value"], claim["provenance"], claim["accept"]) == (0.5, "read", {"tiny": {"at_least": 0.4}})

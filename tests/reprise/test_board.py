"""reprise board: what is left, why, and the command; as text, JSON and Markdown."""

from __future__ import annotations

import json
import shlex
from typing import TYPE_CHECKING, Any

import pytest
from tests.reprise.team import Cli, one_line

if TYPE_CHECKING:
    from tests.reprise.conftest import Toys


@pytest.fixture
def cli(toys: Toys, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]) -> Cli:
    return Cli(monkeypatch, capfd)


def write_results(toys: Toys, low: float, high: float) -> None:
    row: dict[str, Any] = {"paper": "toys", "tier": "tiny", "unit": "nats", "paper_value": None, "provenance": "memory"}
    measured = {"estimate": (low + high) / 2, "low": low, "high": high, "n": 50, "over": "numbers"}
    rows = [
        {**row, **measured, "claim": "mean-is-positive", "verdict": "supported"},
        {**row, **dict.fromkeys(measured), "claim": "spread-is-small", "verdict": "not run"},
    ]
    path = toys.folder / "results" / "tiny" / "claims.json"
    path.parent.mkdir(parents=True)
    path.write_text(json.dumps(rows))


def test_everything_is_left_before_a_run(cli: Cli) -> None:
    rows = cli("board", "--json").json
    assert [(row["claim"], row["tier"], row["verdict"], row["why"]) for row in rows] == [
        ("mean-is-positive", "tiny", "not run", "the tier has no committed results"),
        ("spread-is-small", "tiny", "not run", "the tier has no committed results"),
        ("mean-is-positive", "paper", "not run", "the tier has no committed results"),
    ]
    assert rows[0]["command"] == ".venv/bin/reprise run toys --tier tiny"
    assert rows[2]["command"] == ".venv/bin/reprise run toys --tier paper --model NAME_OR_PATH_OR_ID"
    assert rows[2]["needs"] == ["a model, named with --model"]
    assert {row["owner"] for row in rows} == {"@reprise/toys"}


def test_what_is_settled_is_not_left_and_what_is_inconclusive_is(cli: Cli, toys: Toys) -> None:
    write_results(toys, 0.4, 0.6)
    tiny = cli("board", "toys", "--tier", "tiny", "--json").json
    assert [(row["claim"], row["why"]) for row in tiny] == [("spread-is-small", "the last run did not measure it")]
    toys.write_paper(at_least="0.5")  # by this range the committed interval decides nothing
    first, second = cli("board", "toys", "--tier", "tiny", "--json").json
    assert (first["claim"], second["claim"]) == ("spread-is-small", "mean-is-positive")
    assert (second["verdict"], second["why"]) == ("inconclusive", "0.5 [0.4, 0.6], accepted: at least 0.5")
    assert second["command"] == ".venv/bin/reprise run toys --tier tiny --seed 1"
    toys.write_paper(at_least="0.7")  # refuted: nothing is left to find out
    assert len(cli("board", "toys", "--tier", "tiny", "--json").json) == 1


def test_the_command_of_a_task_is_one_that_runs(cli: Cli, toys: Toys) -> None:
    (command,) = {row["command"] for row in cli("board", "--tier", "tiny", "--json").json}
    program, *arguments = shlex.split(command)
    assert program == ".venv/bin/reprise"
    assert cli(*arguments).code == 0
    assert cli("accept", "toys").code == 0
    assert cli("board", "--tier", "tiny").out == "No claim is left: all were run, with a verdict.\n"


def test_text_and_markdown(cli: Cli, toys: Toys) -> None:
    toys.edit("[tiers.tiny]", '[channel]\nlabel = "paper: *toys*"\n[tiers.tiny]\nminutes = 1', "paper.toml")
    toys.edit("The spread is small.", "The <b>spread</b> is small.", "paper.toml")
    toys.edit("STAGES = (", "TAKES_DATA = True\nSTAGES = (")
    text = cli("board").out
    assert text.startswith("3 claims left, in 2 tasks.\n\ntoys, tiny tier: 2 claims not run; about 1 minute; owner @")
    assert "\n  channel: label 'paper: *toys*'\n" in text
    assert "  needs: perhaps a folder of data, named with --data" in text
    lines = cli("board", "--markdown").out.splitlines()
    assert "About 1 minute; owner @reprise/toys; label paper: \\*toys\\*." in lines
    assert (
        "- [ ] `spread-is-small`: The &lt;b&gt;spread&lt;/b&gt; is small. (the tier has no committed results)" in lines
    )
    assert lines[lines.index("```sh") + 1] == ".venv/bin/reprise run toys --tier tiny"


def test_choices_and_bad_input(cli: Cli, toys: Toys) -> None:
    assert len(cli("board", "toys", "toys", "--owner", "@reprise/toys", "--json").json) == 3
    assert one_line(cli("board", "--owner", "@nobody"), "'@nobody'", "@reprise/toys")
    assert one_line(cli("board", "boys"), "'boys'", "toys")
    assert one_line(cli("board", "--tier", "huge"), "'huge'")
    assert one_line(cli("board", "--json", "--markdown"), "give one")
    write_results(toys, 2.0, 1.0)
    assert one_line(cli("board"), "mean-is-positive", "low end exceeds")

"""reprise diff: what is a change of a claim and what is none, at a revision of git and in the working tree."""

from __future__ import annotations

import html
import json
import re
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from markdown_it import MarkdownIt
from tests.reprise.team import Cli, commit, git, one_line

if TYPE_CHECKING:
    from tests.reprise.conftest import Toys

MEAN = {"estimate": 0.5, "low": 0.4, "high": 0.6, "n": 50, "over": "numbers"}
SECOND = "spread-is-small"


@pytest.fixture
def cli(toys: Toys, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]) -> Cli:
    return Cli(monkeypatch, capfd)


def write_results(toys: Toys, verdict: str = "supported", **mean: Any) -> None:
    """Committed results of the tiny tier, as `reprise accept` writes them; the second claim was not measured."""
    unit = {"paper": "toys", "tier": "tiny", "unit": "nats", "paper_value": None, "provenance": "memory"}
    nothing = dict.fromkeys((*MEAN, "over"))
    rows = [
        {**unit, **MEAN, **mean, "claim": "mean-is-positive", "verdict": verdict},
        {**unit, **nothing, "claim": SECOND, "verdict": "not run"},
    ]
    path = toys.folder / "results" / "tiny" / "claims.json"
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(rows))


@pytest.fixture
def base(toys: Toys) -> str:
    write_results(toys)
    return commit(toys.root)


def changes(cli: Cli, base: str = "HEAD") -> dict[tuple[str, str], dict[str, Any]]:
    answer = cli("diff", base, "--json")
    assert answer.code == 0, answer.err
    return {(change["claim"], change["tier"]): change for change in answer.json["changes"]}


def test_no_change(cli: Cli, toys: Toys, base: str) -> None:
    (toys.folder / "experiment.py").write_text("# other code is no change of a claim\n")
    assert changes(cli) == {}
    assert cli("diff", "HEAD").out == f"No claim differs from {base[:12]}.\n"
    assert cli("diff", "HEAD", "--markdown").out.startswith("<!-- reprise diff -->\n")


def test_an_estimate_and_the_verdict_that_follows(cli: Cli, toys: Toys, base: str) -> None:
    write_results(toys, "inconclusive", estimate=0.1, low=-0.1, high=0.3)
    found = changes(cli)
    assert list(found) == [("mean-is-positive", "tiny")]
    change = found["mean-is-positive", "tiny"]
    assert change["kinds"] == ["verdict", "estimate"]
    assert [change[side]["verdict"] for side in ("before", "after")] == ["supported", "inconclusive"]
    assert [change[side]["low"] for side in ("before", "after")] == [0.4, -0.1]
    text = cli("diff", "HEAD").out
    assert "supported → inconclusive" in text
    assert "0.5 [0.4, 0.6], n 50 → 0.1 [-0.1, 0.3], n 50" in " ".join(text.split())
    assert "note: toys mean-is-positive (tiny): was supported and no longer is" in text


def test_digits_that_are_not_shown_count(cli: Cli, toys: Toys, base: str) -> None:
    write_results(toys, estimate=0.5000001)
    assert changes(cli)["mean-is-positive", "tiny"]["kinds"] == ["estimate"]
    assert "(other digits)" in cli("diff", "HEAD", "--markdown").out


def test_a_range_that_moves_after_the_result_is_pointed_out(cli: Cli, toys: Toys, base: str) -> None:
    toys.write_paper(at_least="0.55")
    found = changes(cli)
    assert {key: change["kinds"] for key, change in found.items()} == {
        ("mean-is-positive", "tiny"): ["verdict", "range"]
    }
    notes = cli("diff", "HEAD").out
    assert "the accepted range was changed after a result was committed" in notes
    # The verdict is that of the new range, and claims.json is found to be behind.
    assert found["mean-is-positive", "tiny"]["after"]["verdict"] == "inconclusive"
    assert "claims.json says supported of 'mean-is-positive' (tiny); by the range in paper.toml it is" in notes


def test_a_range_set_before_a_result_is_not_pointed_out(cli: Cli, toys: Toys, base: str) -> None:
    toys.edit("at_most = 100.0", "at_most = 50.0", "paper.toml")
    assert changes(cli)[SECOND, "tiny"]["kinds"] == ["range"]
    assert "note:" not in cli("diff", "HEAD").out


def test_wording_names_the_keys(cli: Cli, toys: Toys, base: str) -> None:
    toys.edit("The spread is small.", "The spread is tiny.", "paper.toml")
    toys.edit('quantity = "spread of the numbers"', 'quantity = "spread"', "paper.toml")
    change = changes(cli)[SECOND, "tiny"]
    assert (change["kinds"], change["wording"]) == (["wording"], ["statement", "quantity"])
    assert "statement: The spread is small. → The spread is tiny." in cli("diff", "HEAD", "--markdown").out


def test_claims_and_papers_added_and_removed(cli: Cli, toys: Toys, base: str) -> None:
    text = (toys.folder / "paper.toml").read_text()
    (toys.folder / "paper.toml").write_text(text.replace(SECOND, "spread-is-bounded"))
    assert {key: change["kinds"] for key, change in changes(cli).items()} == {
        ("spread-is-bounded", "tiny"): ["added"],
        (SECOND, "tiny"): ["removed"],
    }
    (toys.folder / "paper.toml").write_text(text)
    toys.folder.rename(toys.folder.with_name("games"))
    answer = cli("diff", "HEAD", "--json").json
    assert answer["counts"] == {"added": 3, "removed": 3, "verdict": 0, "estimate": 0, "range": 0, "wording": 0}
    assert {change["paper"]: change["kinds"] for change in answer["changes"]} == {
        "games": ["added"],
        "toys": ["removed"],
    }


def test_new_claims_stand_as_a_table_for_review(cli: Cli, toys: Toys, base: str) -> None:
    toys.edit(SECOND, "spread-is-bounded", "paper.toml")
    lines = cli("diff", "HEAD", "--markdown").out.splitlines()
    (row,) = (line for line in lines if line.startswith("| toys | spread-is-bounded | The"))
    head = lines[lines.index(row) - 2]
    assert dict(zip(head.strip("| ").split(" | "), row.strip("| ").split(" | "), strict=True)) == {
        "paper": "toys",
        "claim": "spread-is-bounded",
        "statement": "The spread is small.",
        "where": "figure 1",
        "quantity": "spread of the numbers",
        "unit": "nats",
        "the paper's number": "figure",
        "accepted": "tiny: at most 100",
        "verdict": "tiny: not run",
    }


def test_what_the_base_did_meanwhile_is_no_change_of_the_branch(cli: Cli, toys: Toys, base: str) -> None:
    git(toys.root, "checkout", "--quiet", "-b", "branch")
    toys.edit("The spread is small.", "The spread is tiny.", "paper.toml")
    commit(toys.root)
    git(toys.root, "checkout", "--quiet", "main")
    write_results(toys, "refuted", estimate=-1.0, low=-1.1, high=-0.9)
    commit(toys.root)
    git(toys.root, "checkout", "--quiet", "branch")
    assert {key: change["kinds"] for key, change in changes(cli, "main").items()} == {(SECOND, "tiny"): ["wording"]}


def test_a_base_that_cannot_be_read_is_named(cli: Cli, toys: Toys) -> None:
    text = (toys.folder / "paper.toml").read_text()
    (toys.folder / "paper.toml").write_text(text.replace("year = 2020", 'year = "twenty"'))
    commit(toys.root)
    (toys.folder / "paper.toml").write_text(text)
    answer = cli("diff", "HEAD", "--json").json
    assert answer["changes"] == []
    assert "toys: not compared, since the base cannot be read" in answer["notes"][0]
    assert "$.year" in answer["notes"][0]


HOSTILE = "Ping @someone and #1, [click](https://evil.example) ![x](y) <b>`|`</b> www.evil.example"


def test_the_comment_is_text_whatever_the_claims_say(cli: Cli, toys: Toys, base: str) -> None:
    toys.edit("The spread is small.", HOSTILE, "paper.toml")
    toys.edit(SECOND, "spread-is-bounded", "paper.toml")
    out = cli("diff", "HEAD", "--markdown").out
    page = MarkdownIt("commonmark").enable("table").render(out)
    assert not re.search(r"<(a|img|b|code|em|strong)\b", page.partition("New claims")[2])
    (cell,) = re.findall(r"<td>(Ping.*?)</td>", page)
    assert html.unescape(cell.replace("<!-- -->", "")) == HOSTILE  # letter by letter
    for live in ("@someone", "#1", "https://", "www.evil"):  # of these GitHub makes links after Markdown
        assert live not in cell


def test_a_comment_is_never_longer_than_github_takes(cli: Cli, toys: Toys, base: str) -> None:
    toys.edit("The spread is small.", "very " * 30_000, "paper.toml")
    toys.edit(SECOND, "spread-is-bounded", "paper.toml")
    out = cli("diff", "HEAD", "--markdown").out
    assert len(out) < 65_536
    assert out.endswith("`reprise diff BASE` shows all.\n")


def test_bad_input_gets_one_line(cli: Cli, toys: Toys) -> None:
    assert one_line(cli("diff", "main"), "expected a git repository")
    write_results(toys)
    commit(toys.root)
    assert one_line(cli("diff", "nosuch"), "'nosuch'", "git fetch")
    assert one_line(cli("diff", "--", "--output=x"), "'--output=x'")
    assert not Path("x").exists()
    assert one_line(cli("diff", "HEAD", "--json", "--markdown"), "give one")
    write_results(toys, low=9.0)
    assert one_line(cli("diff", "HEAD"), "mean-is-positive", "accept")

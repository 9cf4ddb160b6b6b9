"""Claim tables in Markdown: cells that cannot break a row, and files that keep the rest of their text."""

from __future__ import annotations

from pathlib import Path

import msgspec
import pytest

from reprise import Accept, Claim, Paper, UserError, tables
from reprise.claims import ClaimResult, not_run
from reprise.paper import Tier
from reprise.tables import BEGIN, END, number


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (None, "-"),
        (0.0, "0"),
        (0.5, "0.5"),
        (0.123456, "0.123"),
        (-4.56789, "-4.57"),
        (99.96, "100"),
        (123.456, "123"),
        (12345.6, "12346"),
        (1234567.0, "1.23e+06"),
        (0.000123, "1.23e-04"),
    ],
)
def test_numbers(value: float | None, text: str) -> None:
    assert number(value) == text


def paper(statement: str = "It holds.", unit: str = "nats") -> Paper:
    claim = Claim(
        id="holds",
        statement=statement,
        where="section 1",
        provenance="memory",
        quantity="share",
        unit=unit,
        accept={"tiny": Accept(0.5), "paper": Accept(0.0, 1.0)},
        paper_value=0.25,
    )
    return Paper(
        title="A paper",
        authors=("A. Author",),
        year=2020,
        link="https://example.org",
        owner="@reprise/team",
        about="",
        tiers={"tiny": Tier(about=""), "paper": Tier(about="")},
        claims=(claim,),
        slug="a_paper",
    )


def measured(row: ClaimResult) -> ClaimResult:
    return msgspec.structs.replace(
        row, verdict="supported", estimate=0.61234, low=0.6, high=0.625, n=40, over="windows | of text"
    )


def cells(line: str) -> list[str]:
    """The cells of a row as a reader of Markdown splits them."""
    return [cell.strip() for cell in line.replace("\\|", "\0").strip().strip("|").split("|")]


def test_one_row_a_claim_and_tier() -> None:
    rows = [measured(not_run(paper(), "tiny")[0]), *not_run(paper(), "paper")]
    header, _, tiny, other = tables.markdown([paper()], rows, False).splitlines()
    names = cells(header)
    first, second = (dict(zip(names, cells(line), strict=True)) for line in (tiny, other))
    assert first["verdict"] == "**supported**"
    assert first["measured [95 % interval]"] == "0.612 [0.6, 0.625]"
    assert first["accepted"] == "at least 0.5"
    assert first["the paper's number"] == "0.25 (memory)"
    assert (second["verdict"], second["measured [95 % interval]"], second["n"]) == ("**not run**", "-", "-")
    assert second["tier"] == "paper"


def test_text_cannot_break_a_row_or_open_a_tag() -> None:
    awkward = paper("a | b <script>\nc", unit="a|b")
    rows = [measured(of) for of in not_run(awkward, "tiny")]
    lines = tables.markdown([awkward], rows, False).splitlines()
    assert len(lines) == 3
    assert {len(cells(line)) for line in lines} == {9}
    assert cells(lines[2])[1] == "a \0 b &lt;script> c"


def test_links_lead_to_the_replication() -> None:
    table = tables.markdown([paper()], not_run(paper(), "tiny"), True)
    assert "| [a_paper](replications/a_paper/README.md) |" in table


def test_a_table_stands_between_its_markers(tmp_path: Path) -> None:
    path = tmp_path / "README.md"
    path.write_text(f"before\n\n{BEGIN}\nold\nold\n{END}\n\nafter\n")
    for _ in range(2):
        tables.update(path, "| new |")
        assert path.read_text() == f"before\n\n{BEGIN}\n| new |\n{END}\n\nafter\n"


@pytest.mark.parametrize("text", ["", BEGIN, END, f"{END}\n{BEGIN}\n"], ids=["none", "no end", "no begin", "reversed"])
def test_missing_markers_are_said(tmp_path: Path, text: str) -> None:
    path = tmp_path / "README.md"
    path.write_text(text)
    with pytest.raises(UserError, match=r"README\.md: no place for the claim table; add the lines"):
        tables.update(path, "| new |")
    assert path.read_text() == text

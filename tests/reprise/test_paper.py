"""paper.toml: what is well-formed, and the one line that everything else gets."""

from __future__ import annotations

from pathlib import Path

import pytest

from reprise import UserError
from reprise.paper import Accept, Paper, load

GOOD = """
title = "A paper"
authors = ["A. Author"]
year = 2022
link = "https://example.org"
owner = "@reprise/team"
about = "About."

[tiers.tiny]
about = "Small."
models = ["a"]

[[claims]]
id = "first-claim"
statement = "It holds."
where = "section 1"
provenance = "read"
quantity = "share"
unit = "1"
accept = { tiny = { at_least = 0.5 } }
"""
SECOND_CLAIM = GOOD[GOOD.index("[[claims]]") :]

BAD = {
    "missing key": (GOOD.replace('title = "A paper"\n', ""), "title"),
    "missing key of a claim": (GOOD.replace('where = "section 1"\n', ""), "where"),
    "missing key of a tier": (GOOD.replace('about = "Small."\n', ""), "$.tiers"),
    "no claims": (GOOD.replace(SECOND_CLAIM, ""), "claims"),
    "no tiers": (GOOD.replace("[tiers.tiny]", "[other.tiny]"), "other"),
    "empty file": ("", "title"),
    "wrong type": (GOOD.replace("2022", '"2022"'), "$.year"),
    "wrong type in a claim": (GOOD.replace("0.5", '"half"'), "$.claims[0].accept"),
    "authors no list": (GOOD.replace('["A. Author"]', '"A. Author"'), "$.authors"),
    "unknown key": (GOOD.replace("year =", "yaer = 1\nyear ="), "yaer"),
    "unknown key of a claim": (GOOD.replace("where =", 'were = "x"\nwhere ='), "were"),
    "unknown provenance": (GOOD.replace('"read"', '"guessed"'), "$.claims[0].provenance"),
    "bad owner": (GOOD.replace("@reprise/team", "reprise team"), "owner"),
    "bad link": (GOOD.replace("https://", "file://"), "link"),
    "bad claim id": (GOOD.replace("first-claim", "First Claim"), "First Claim"),
    "duplicate claim ids": (GOOD + SECOND_CLAIM, "first-claim"),
    "unknown tier in accept": (GOOD.replace("accept = { tiny", "accept = { huge"), "$.claims[0].accept"),
    "tier in accept that is not described": (GOOD.replace("accept = { tiny", "accept = { paper"), "paper"),
    "unknown tier": (GOOD.replace("[tiers.tiny]", "[tiers.huge]"), "$.tiers"),
    "no accept": (GOOD.replace("{ tiny = { at_least = 0.5 } }", "{}"), "$.claims[0]"),
    "reversed range": (GOOD.replace("at_least = 0.5", "at_least = 0.5, at_most = 0.4"), "at_least 0.5"),
    "empty range": (GOOD.replace("at_least = 0.5", ""), "at_least"),
    "infinite range": (GOOD.replace("at_least = 0.5", "at_least = -inf"), "at_least"),
    "range of nan": (GOOD.replace("at_least = 0.5", "at_least = nan"), "at_least nan"),
    "bad syntax": (GOOD.replace("year = 2022", "year = "), "line 4"),
}


@pytest.fixture
def path(tmp_path: Path) -> Path:
    (tmp_path / "a_paper").mkdir()
    return tmp_path / "a_paper" / "paper.toml"


def parse(path: Path, text: str) -> Paper:
    path.write_text(text, encoding="utf-8")
    return load(path)


def one_line(path: Path) -> str:
    with pytest.raises(UserError) as caught:
        load(path)
    message = str(caught.value)
    assert "\n" not in message
    assert str(path) in message
    return message


def test_a_well_formed_paper_holds_what_stands_in_the_file(path: Path) -> None:
    paper = parse(path, GOOD)
    assert (paper.slug, paper.title, paper.authors, paper.year) == ("a_paper", "A paper", ("A. Author",), 2022)
    assert paper.tier("tiny").models == ("a",)
    claim = paper.claim("first-claim")
    assert (claim.provenance, claim.paper_value) == ("read", None)
    assert str(claim.accept["tiny"]) == "at least 0.5"


@pytest.mark.parametrize("name", BAD)
def test_a_malformed_paper_gets_one_line_with_file_and_key(path: Path, name: str) -> None:
    text, key = BAD[name]
    assert text != GOOD
    path.write_text(text, encoding="utf-8")
    assert key in one_line(path)


def test_not_utf8(path: Path) -> None:
    path.write_bytes(GOOD.replace("A. Author", "\xe9").encode("latin-1"))
    assert "utf-8" in one_line(path)


def test_no_file_and_a_folder_instead_of_a_file(path: Path) -> None:
    assert "no such file" in one_line(path)
    path.mkdir()
    assert "cannot be read" in one_line(path)


def test_a_folder_whose_name_is_no_slug(tmp_path: Path) -> None:
    (tmp_path / "Bad-Name").mkdir()
    with pytest.raises(UserError, match=r"Bad-Name.*rename"):
        load(tmp_path / "Bad-Name" / "paper.toml")


def test_unknown_claims_and_tiers_name_the_known_ones(path: Path) -> None:
    paper = parse(path, GOOD)
    with pytest.raises(UserError, match=r"'none'.*first-claim"):
        paper.claim("none")
    with pytest.raises(UserError, match=r"'paper'.*tiny"):
        paper.tier("paper")


@pytest.mark.parametrize(
    ("accept", "text"),
    [(Accept(0.5), "at least 0.5"), (Accept(at_most=2), "at most 2"), (Accept(-1.5, 0.25), "-1.5 to 0.25")],
)
def test_ranges_as_text(accept: Accept, text: str) -> None:
    assert str(accept) == text

"""Judging the claims of a run, keeping verdicts, and noticing a loss."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import msgspec
import pytest

from reprise import Accept, Claim, Measurement, Paper, Results, UserError, claims
from reprise.claims import ClaimResult, evaluate, lost
from reprise.experiment import Measure
from reprise.measurement import Verdict
from reprise.paper import Tier

FOUND = Measurement(estimate=0.6, low=0.55, high=0.65, n=20, over="prompts")


def claim(name: str, **accept: Accept) -> Claim:
    return Claim(
        id=name,
        statement=f"{name} holds.",
        where="section 1",
        provenance="second-hand",
        quantity="share",
        unit="1",
        accept={tier: accept[tier] for tier in ("tiny", "paper") if tier in accept},
        paper_value=0.9,
    )


PAPER = Paper(
    title="A paper",
    authors=("A. Author",),
    year=2020,
    link="https://example.org",
    owner="@reprise/team",
    about="",
    tiers={"tiny": Tier(about=""), "paper": Tier(about="")},
    claims=(
        claim("both", tiny=Accept(0.5), paper=Accept(0.8, 1.0)),
        claim("small", tiny=Accept(at_most=0.5)),
        claim("large", paper=Accept(0.6)),
    ),
    slug="a_paper",
)
MEASURES: Mapping[str, Measure] = {"both": lambda of: FOUND, "small": lambda of: None, "large": lambda of: FOUND}


def results(tier: str) -> Results:
    return Results(tier, 0, {})


def row(name: str, verdict: Verdict, tier: str = "tiny") -> ClaimResult:
    return ClaimResult(
        paper="a_paper",
        claim=name,
        tier=tier,
        verdict=verdict,
        estimate=None,
        low=None,
        high=None,
        n=None,
        unit="1",
        paper_value=None,
        provenance="read",
    )


def test_each_tier_judges_its_own_claims() -> None:
    tiny, paper = evaluate(PAPER, MEASURES, results("tiny")), evaluate(PAPER, MEASURES, results("paper"))
    assert [(of.claim, of.verdict) for of in tiny] == [("both", "supported"), ("small", "not run")]
    assert [(of.claim, of.verdict) for of in paper] == [("both", "refuted"), ("large", "inconclusive")]


def test_a_row_holds_the_measurement_and_what_the_paper_says() -> None:
    first, second = evaluate(PAPER, MEASURES, results("tiny"))
    assert msgspec.to_builtins(first) == {
        "paper": "a_paper",
        "claim": "both",
        "tier": "tiny",
        "verdict": "supported",
        "estimate": 0.6,
        "low": 0.55,
        "high": 0.65,
        "n": 20,
        "unit": "1",
        "paper_value": 0.9,
        "provenance": "second-hand",
        "over": "prompts",
    }
    assert (second.estimate, second.low, second.high, second.n) == (None, None, None, None)


def test_a_claim_without_measure_and_a_measure_without_claim() -> None:
    with pytest.raises(UserError, match=r"a_paper: paper\.toml claims 'small', which experiment\.py does not measure"):
        evaluate(PAPER, {"both": MEASURES["both"]}, results("tiny"))
    with pytest.raises(UserError, match=r"a_paper: experiment\.py measures 'other', which paper\.toml does not claim"):
        evaluate(PAPER, {**MEASURES, "other": MEASURES["both"]}, results("tiny"))


def test_measures_of_other_tiers_are_not_taken() -> None:
    def fail(of: Results) -> Measurement:
        raise AssertionError("the paper tier's claim was measured")

    evaluate(PAPER, {**MEASURES, "large": fail}, results("tiny"))


def test_rows_are_kept_and_read_back(tmp_path: Path) -> None:
    rows = evaluate(PAPER, MEASURES, results("tiny"))
    claims.save(rows, tmp_path)
    assert claims.load(tmp_path) == rows
    assert claims.load(tmp_path / "none") == ()


@pytest.mark.parametrize("text", ["", "[", "{}", '[{"paper": "a"}]'])
def test_a_malformed_file_is_said(tmp_path: Path, text: str) -> None:
    (tmp_path / claims.FILE).write_text(text)
    with pytest.raises(UserError, match=r"claims\.json: .*; run `reprise accept` again or restore the file"):
        claims.load(tmp_path)


def test_where_nothing_was_committed_nothing_was_run(tmp_path: Path) -> None:
    rows = claims.committed(tmp_path, PAPER, "paper")
    assert [(of.claim, of.verdict) for of in rows] == [("both", "not run"), ("large", "not run")]
    accepted = evaluate(PAPER, MEASURES, results("paper"))
    claims.save(accepted, tmp_path / "replications" / "a_paper" / "results" / "paper")
    assert claims.committed(tmp_path, PAPER, "paper") == accepted
    assert {of.verdict for of in claims.committed(tmp_path, PAPER, "tiny")} == {"not run"}


@pytest.mark.parametrize("now", ["refuted", "inconclusive", "not run"])
def test_a_claim_is_lost_when_it_was_supported_and_is_not_now(now: Verdict) -> None:
    before = [row("a", "supported"), row("b", "refuted"), row("c", "supported", "paper"), row("d", "supported")]
    after = [row("a", now), row("b", now), row("c", now), row("d", "supported"), row("new", now)]
    assert [of.claim for of in lost(after, before)] == ["a"]
    assert lost(before, before) == ()

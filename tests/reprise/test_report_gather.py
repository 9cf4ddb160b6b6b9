"""What the report shows: which results, which verdicts, and where an interval is drawn."""

from __future__ import annotations

from pathlib import Path

import pytest

from reprise import Accept, Claim, Paper, UserError, claims, store
from reprise.claims import ClaimResult
from reprise.paper import Tier
from reprise.report.gather import Judged, gather
from reprise.report.intervals import MARGIN, WIDTH, plot


def claim(name: str, accept: Accept) -> Claim:
    return Claim(
        id=name,
        statement=name,
        where="Section 1",
        provenance="read",
        quantity="score",
        unit="share",
        paper_value=0.72,
        accept={"tiny": accept},
    )


def paper(at_least: float = 0.5) -> Paper:
    return Paper(
        slug="some_paper",
        title="A title",
        authors=("One",),
        year=2022,
        link="https://example.org",
        owner="@a/b",
        about="About.",
        tiers={"tiny": Tier(about="Ours."), "paper": Tier(about="Theirs.")},
        claims=(claim("first", Accept(at_least=at_least)), claim("second", Accept(at_least=0.1, at_most=0.2))),
    )


def measured(low: float, high: float, name: str = "first") -> ClaimResult:
    return ClaimResult(
        paper="some_paper",
        claim=name,
        tier="tiny",
        verdict="supported",
        estimate=(low + high) / 2,
        low=low,
        high=high,
        n=10,
        unit="share",
        paper_value=0.72,
        provenance="read",
        over="seeds",
    )


def tiny_folder(root: Path) -> Path:
    return root / "out" / "results" / "some_paper" / "tiny"


def shown(root: Path, of: Paper) -> list[str]:
    run = gather(root, of, root / "out").tiers[0]
    return [run.source, *(judged.row.verdict for judged in run.judged)]


def test_the_last_run_then_the_committed_results_then_not_run(tmp_path: Path) -> None:
    assert shown(tmp_path, paper()) == ["nothing", "not run", "not run"]
    claims.save([measured(0.1, 0.2)], claims.results_folder(tmp_path, paper(), "tiny"))
    assert shown(tmp_path, paper()) == ["committed", "refuted", "not run"]
    claims.save([measured(0.6, 0.7)], tiny_folder(tmp_path))
    assert shown(tmp_path, paper()) == ["run", "supported", "not run"]


def test_a_verdict_follows_the_range_that_is_shown_beside_it(tmp_path: Path) -> None:
    claims.save([measured(0.6, 0.7)], tiny_folder(tmp_path))
    assert shown(tmp_path, paper(at_least=0.65)) == ["run", "inconclusive", "not run"]


def test_results_of_claims_that_are_gone_are_left_out(tmp_path: Path) -> None:
    claims.save([measured(0.6, 0.7, "gone"), measured(0.12, 0.15, "second")], tiny_folder(tmp_path))
    assert shown(tmp_path, paper()) == ["run", "not run", "supported"]


def test_runs_on_other_models_stand_for_themselves(tmp_path: Path) -> None:
    for name in ("tiny", "tiny-gpt2", "tiny-seed3", "paper-gpt2", "unknown"):
        claims.save([measured(0.6, 0.7)], tiny_folder(tmp_path).with_name(name))
    others = gather(tmp_path, paper(), tmp_path / "out").others
    assert [(run.tier, run.name) for run in others] == [
        ("tiny", "tiny-gpt2"),
        ("tiny", "tiny-seed3"),
        ("paper", "paper-gpt2"),
    ]


@pytest.mark.parametrize(
    ("file", "text", "message"),
    [
        ("claims.json", "[", r"tiny/claims\.json: .*; run"),
        ("figures/figures.json", "[", r"figures\.json: .*; draw the figures again"),
        (
            "figures/figures.json",
            '[{"name": "../loss", "title": "", "caption": ""}]',
            r"figures\.json: figure name '\.\./loss': expected a plain file name",
        ),
    ],
)
def test_malformed_results_are_one_line(tmp_path: Path, file: str, text: str, message: str) -> None:
    claims.save([measured(0.6, 0.7)], tiny_folder(tmp_path))
    store.write_text(tiny_folder(tmp_path) / file, text)
    with pytest.raises(UserError, match=message):
        gather(tmp_path, paper(), tmp_path / "out")


def test_an_interval_that_is_none_is_one_line(tmp_path: Path) -> None:
    claims.save([measured(0.8, 0.7)], tiny_folder(tmp_path))
    with pytest.raises(UserError, match=r"tiny/claims\.json: claim 'first': interval .*; run the paper again"):
        gather(tmp_path, paper(), tmp_path / "out")


def judged(low: float, high: float, accept: Accept) -> Judged:
    return Judged(1, claim("first", accept), accept, measured(low, high))


def test_a_plot_keeps_order_and_lets_an_open_end_reach_the_border() -> None:
    at = plot(judged(0.6, 0.7, Accept(at_least=0.5)), with_paper_value=False)
    assert at is not None
    assert (at.accept_from, at.accept_to, at.paper) == (MARGIN, WIDTH, None)
    assert at.accept_from < at.low < at.estimate < at.high == WIDTH - MARGIN
    assert at.words == "0.65, 95 % interval [0.6, 0.7]; accepted at least 0.5"
    below = plot(judged(0.6, 0.7, Accept(at_most=0.5)), with_paper_value=False)
    assert below is not None
    assert (below.accept_from, below.accept_to) == (0, MARGIN)


def test_a_plot_marks_the_papers_number_only_when_asked() -> None:
    at = plot(judged(0.1, 0.2, Accept(at_least=0.7, at_most=0.8)), with_paper_value=True)
    assert at is not None
    assert at.paper is not None
    assert at.high < at.accept_from < at.paper < at.accept_to
    assert at.words.endswith("; the paper's number 0.72")


def test_a_plot_of_one_value_is_in_the_middle() -> None:
    at = plot(judged(0.5, 0.5, Accept(at_least=0.5)), with_paper_value=False)
    assert at is not None
    assert at.estimate == at.accept_from == WIDTH / 2


def test_nothing_measured_is_not_drawn() -> None:
    one = claim("first", Accept(at_least=0.5))
    row = claims.not_run(paper(), "tiny")[0]
    assert plot(Judged(1, one, Accept(at_least=0.5), row), with_paper_value=False) is None

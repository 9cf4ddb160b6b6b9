"""How claims and measurements look in a notebook: tables of plain HTML, without scripts or anything from elsewhere.

Everything that comes from data is escaped, text keeps the colour that the page gives it, and a verdict is a word before
it is a colour. `claim_table` puts claims beside their verdicts:

    claim_table(paper, evaluate(paper, experiment.claims, results))
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from html import escape
from typing import TYPE_CHECKING

from reprise.tables import accepted_by, counted, interval, number, paper_number

if TYPE_CHECKING:
    from reprise.claims import ClaimResult
    from reprise.paper import Claim, Paper

CELL = "padding:.2em .5em;text-align:left;vertical-align:top"
# A bar at the verdict's left, in Okabe and Ito's colours, of which each stands out on white and on black.
BARS = {"supported": "#009E73", "refuted": "#D55E00", "inconclusive": "#E69F00", "not run": "#888888"}
COLUMNS = ("claim", "tier", "verdict", "measured [95 % interval]", "n", "accepted", "unit", "the paper's number")


@dataclass(frozen=True)
class Shown:
    """Text that a notebook shows as HTML, and everything else as plain text."""

    html: str
    text: str

    def __repr__(self) -> str:
        return self.text

    def _repr_html_(self) -> str:
        return self.html


def claim_table(paper: Paper, rows: Iterable[ClaimResult]) -> Shown:
    """Claims of a paper beside what was measured of them, and the verdicts.

    Args:
        rows: of `claims.evaluate`, `claims.committed` or `claims.load`.

    Raises:
        UserError: a row of a claim that the paper does not make.
    """
    rows = list(rows)
    html = table(
        f"Claims of {paper.title} ({paper.year})", COLUMNS, [_judged(paper.claim(row.claim), row) for row in rows]
    )
    return Shown(html, "\n".join(map(repr, rows)))


def table(caption: str, columns: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """A table as HTML; the first cell of each row is its header, and cells that are verdicts have their bar."""
    head = "".join(f'<th scope="col" style="{CELL}">{escape(name)}</th>' for name in columns)
    body = "".join(
        f'<tr><th scope="row" style="{CELL};font-weight:normal">{escape(first)}</th>{"".join(map(_cell, cells))}</tr>'
        for first, *cells in rows
    )
    return (
        '<div style="overflow-x:auto">'
        '<table style="border-collapse:collapse;font-variant-numeric:tabular-nums">'
        f'<caption style="caption-side:top;text-align:left">{escape(caption)}</caption>'
        f"<thead><tr>{head}</tr></thead><tbody>{body}</tbody></table></div>"
    )


def paper_html(paper: Paper) -> str:
    """A paper's claims, with what each tier accepts, before anything is measured."""
    authors = ", ".join(paper.authors)
    columns = ["claim", "quantity", *(f"accepted, {tier}" for tier in paper.tiers), "unit", "the paper's number"]
    rows = [
        [
            claim.statement,
            claim.quantity,
            *(accepted_by(claim, tier) for tier in paper.tiers),
            claim.unit,
            paper_number(claim),
        ]
        for claim in paper.claims
    ]
    return table(f"{paper.title} ({authors}, {paper.year}): {counted(len(paper.claims), 'claim')}", columns, rows)


def claim_html(claim: Claim) -> str:
    """All that is said of a claim before it is measured."""
    facts = {
        "statement": claim.statement,
        "where": claim.where,
        "quantity": claim.quantity,
        **{f"accepted, {tier}": f"{accept}" for tier, accept in claim.accept.items()},
        "unit": claim.unit,
        "the paper's number": paper_number(claim),
        "note": claim.note,
    }
    return table(f"Claim {claim.id}", ["", ""], [[name, text] for name, text in facts.items() if text])


def result_html(row: ClaimResult) -> str:
    """A verdict alone; the statement stands in the paper."""
    name = f"{row.paper}: {row.claim}"
    columns = ["claim", "tier", "verdict", "measured [95 % interval]", "n", "unit"]
    return table("Verdict", columns, [[name, row.tier, row.verdict, *_measured(row), row.unit]])


def result_text(row: ClaimResult) -> str:
    """A verdict on one line."""
    measured, n = _measured(row)
    return f"<{row.paper}: {row.claim} ({row.tier}): {row.verdict}, {measured} {row.unit}, n {n}>"


def _judged(claim: Claim, row: ClaimResult) -> list[str]:
    accepted = accepted_by(claim, row.tier)
    return [claim.statement, row.tier, row.verdict, *_measured(row), accepted, row.unit, paper_number(claim)]


def _measured(row: ClaimResult) -> tuple[str, str]:
    n = "-" if row.n is None else f"{row.n} {row.over or ''}".strip()
    return (f"{number(row.estimate)} {interval(row)}" if row.estimate is not None else "-"), n


def _cell(text: str) -> str:
    bar = f";border-left:.4em solid {BARS[text]}" if text in BARS else ""
    return f'<td style="{CELL}{bar}">{escape(text)}</td>'

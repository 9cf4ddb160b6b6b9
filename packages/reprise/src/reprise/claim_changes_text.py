"""Claim changes as text: Markdown for the comment on a pull request, and the cells of the table in a terminal.

The comment is made of what a branch says, which may come from anybody: every word of it is escaped, so that it neither
adds links, pictures or markup nor calls people (`@name`) or issues (`#1`).
"""

from __future__ import annotations

import html
import re
from collections.abc import Iterable

from reprise.claim_changes import KINDS, Change, ClaimChanges, State
from reprise.tables import number, paper_number

MARKER = "<!-- reprise diff -->"  # by which the workflow finds the comment that it posted before
LONGEST = 60_000  # characters; a comment holds 65,536
ARROW = " → "


def summary(found: ClaimChanges) -> str:
    """How many claims changed in which way, in one line."""
    if not found.changes:
        return f"No claim differs from {found.commit[:12]}."
    counts = ", ".join(f"{kind} {found.counts[kind]}" for kind in KINDS if found.counts[kind])
    rows = "1 claim differs" if len(found.changes) == 1 else f"{len(found.changes)} claims (by tier) differ"
    return f"{rows} from {found.commit[:12]}: {counts}."


def cells(change: Change) -> tuple[str, ...]:
    """Paper, claim, tier, what changed, verdict, estimate, accepted: "before → after" where the two differ."""
    sides = [side for side in (change.before, change.after) if side is not None]
    what = ", ".join(kind if kind != "wording" else f"wording ({', '.join(change.wording)})" for kind in change.kinds)
    estimates = _between([_measured(side) for side in sides])
    if "estimate" in change.kinds and ARROW not in estimates:
        estimates += " (other digits)"
    return (
        change.paper,
        change.claim,
        change.tier,
        what,
        _between([side.verdict for side in sides]),
        estimates,
        _between([str(side.accepted) for side in sides]),
    )


def remarks(found: ClaimChanges) -> tuple[str, ...]:
    """What a reviewer has to ask about, a line each; no markup."""
    lost = (f"{_name(change)}: was supported and no longer is" for change in found.changes if change.lost)
    moved = (
        f"{_name(change)}: the accepted range was changed after a result was committed; the result is no reason"
        for change in found.changes
        if change.moved_range
    )
    return (*lost, *moved, *found.notes)


def markdown(found: ClaimChanges) -> str:
    """The comment on a pull request."""
    lines = [MARKER, "### Claims", "", summary(found)]
    if asked := remarks(found):
        lines += ["", "**To be explained:**", "", *(f"- {escape(line)}" for line in asked)]
    added = [change for change in found.changes if "added" in change.kinds]
    others = [change for change in found.changes if "added" not in change.kinds]
    if others:
        head = ("paper", "claim", "tier", "what", "verdict", "estimate [95 % interval]", "accepted")
        lines += ["", *_table(head, (cells(change) for change in others))]
    lines += _wordings(others)
    if added:
        lines += ["", "#### New claims", "", "To be agreed on before there is code: could each of them fail? Would the"]
        lines += ["authors recognise it? Does the quantity measure the statement?", "", *_review(added)]
    return _cut("\n".join(lines) + "\n")


def review_table(changes: Iterable[Change]) -> str:
    """New claims as the table that a second person reviews."""
    return "\n".join(_review(changes))


def _review(changes: Iterable[Change]) -> list[str]:
    by_claim: dict[tuple[str, str], list[Change]] = {}
    for change in changes:
        by_claim.setdefault((change.paper, change.claim), []).append(change)
    rows = []
    for (paper, claim), of_tiers in by_claim.items():
        states = [(change.tier, change.after) for change in of_tiers if change.after is not None]
        definition = states[0][1].definition
        rows.append(
            (
                paper,
                claim,
                definition.statement,
                definition.where,
                definition.quantity,
                definition.unit,
                paper_number(definition),
                "; ".join(f"{tier}: {state.accepted}" for tier, state in states),
                "; ".join(f"{tier}: {state.verdict}" for tier, state in states),
            )
        )
    head = ("paper", "claim", "statement", "where", "quantity", "unit", "the paper's number", "accepted", "verdict")
    return _table(head, rows)


def _wordings(changes: Iterable[Change]) -> list[str]:
    lines = []
    for change in changes:
        if change.before is not None and change.after is not None:
            for key in change.wording:
                old, new = (str(getattr(side.definition, key)) for side in (change.before, change.after))
                lines.append(f"- {escape(_name(change))}, {escape(key)}: {escape(old)}{ARROW}{escape(new)}")
    return ["", *lines] if lines else []


def _name(change: Change) -> str:
    return f"{change.paper} {change.claim} ({change.tier})"


def _between(values: list[str]) -> str:
    return values[0] if len(set(values)) == 1 else ARROW.join(values)


def _measured(state: State) -> str:
    if state.estimate is None:
        return "-"
    return f"{number(state.estimate)} [{number(state.low)}, {number(state.high)}], n {state.n}"


def _table(head: tuple[str, ...], rows: Iterable[tuple[str, ...]]) -> list[str]:
    lines = [f"| {' | '.join(head)} |", "|" + "---|" * len(head)]
    return lines + [f"| {' | '.join(map(escape, row))} |" for row in rows]


def escape(text: str) -> str:
    """Text as Markdown on GitHub shows it, letter by letter, in one line."""
    words = html.escape(" ".join(text.split()), quote=False)
    words = re.sub(r"([\\`*_\[\]~|!])", r"\\\1", words)
    return re.sub(r"[@#](?=\w)|(?<=\w)://|(?<=www)\.", lambda found: f"{found[0][0]}<!-- -->{found[0][1:]}", words)


def _cut(text: str) -> str:
    if len(text) <= LONGEST:
        return text
    return text[:LONGEST].rpartition("\n")[0] + "\n\nThe rest does not fit: `reprise diff BASE` shows all.\n"

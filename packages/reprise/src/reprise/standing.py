"""How claims stand: what is committed of a tier, judged by the ranges that paper.toml has now.

A committed verdict is older than a range that was changed after it, and says nothing of a claim that was added since.
Here every claim that a tier judges has a row, and its verdict is that of the range beside it.
"""

from __future__ import annotations

from collections.abc import Iterable

import msgspec

from reprise import claims
from reprise.claims import ClaimResult
from reprise.errors import UserError
from reprise.measurement import Measurement, judge
from reprise.paper import Accept, Claim, Paper


def accepted(claim: Claim, tier: str) -> Accept | None:
    """What supports a claim in a tier; None where the tier does not judge it."""
    return next((accept for name, accept in claim.accept.items() if name == tier), None)


def rows(paper: Paper, tier: str, committed: Iterable[ClaimResult], where: str) -> tuple[ClaimResult, ...]:
    """A row for every claim that the tier judges, in the order of paper.toml.

    Args:
        committed: what claims.json holds; rows of claims that are no more are left out.
        where: the name of that file, for errors.

    Raises:
        UserError: if a committed row holds no interval.
    """
    known = {row.claim: row for row in committed if row.tier == tier}
    return tuple(
        _judged(known.get(empty.claim, empty), accept, where)
        for empty in claims.not_run(paper, tier)
        if (accept := accepted(paper.claim(empty.claim), tier)) is not None
    )


def _judged(row: ClaimResult, accept: Accept, where: str) -> ClaimResult:
    if row.estimate is None or row.low is None or row.high is None:
        return msgspec.structs.replace(row, verdict="not run", estimate=None, low=None, high=None)
    try:
        measured = Measurement(estimate=row.estimate, low=row.low, high=row.high, n=row.n or 0, over=row.over or "")
    except ValueError as error:
        raise UserError(
            f"{where}: claim {row.claim!r}: {error}; run the paper and `reprise accept` it again"
        ) from error
    return msgspec.structs.replace(row, verdict=judge(measured, accept))

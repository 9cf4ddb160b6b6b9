"""Judging the claims of a run, and keeping the verdicts.

claims.json holds a list of `ClaimResult`s. The one in a replication's results/ folder is committed: it is what
`reprise verify` compares a new run with, and what the README's table is made from.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path

import msgspec

from reprise import store
from reprise.errors import UserError
from reprise.experiment import Measure, Results
from reprise.measurement import Measurement, Verdict, judge
from reprise.paper import Claim, Paper, Provenance

FILE = "claims.json"


class ClaimResult(msgspec.Struct, frozen=True, kw_only=True):
    """One row of `reprise verify --json`; the field names are a contract."""

    paper: str
    claim: str
    tier: str
    verdict: Verdict
    estimate: float | None
    low: float | None
    high: float | None
    n: int | None
    unit: str
    paper_value: float | None
    provenance: Provenance
    over: str | None = None

    def __repr__(self) -> str:
        from reprise.notebook import result_text

        return result_text(self)

    def _repr_html_(self) -> str:
        from reprise.notebook import result_html

        return result_html(self)


def evaluate(paper: Paper, measures: Mapping[str, Measure], results: Results) -> tuple[ClaimResult, ...]:
    """Measure and judge every claim that the tier judges; raises UserError as `check` does."""
    check(paper, measures, results.tier)
    judged = [claim for claim in paper.claims if results.tier in claim.accept]
    return tuple(_row(paper, claim, results.tier, measures[claim.id](results)) for claim in judged)


def check(paper: Paper, measures: Mapping[str, Measure], tier: str) -> None:
    """See that paper.toml and experiment.py agree, which can be known before anything is run.

    Raises:
        UserError: if a claim has no measure, or a measure no claim.
    """
    if unknown := set(measures) - {claim.id for claim in paper.claims}:
        raise UserError(f"{paper.slug}: experiment.py measures {unknown.pop()!r}, which paper.toml does not claim")
    if missing := {claim.id for claim in paper.claims if tier in claim.accept} - set(measures):
        raise UserError(f"{paper.slug}: paper.toml claims {missing.pop()!r}, which experiment.py does not measure")


def not_run(paper: Paper, tier: str) -> tuple[ClaimResult, ...]:
    """The rows of a tier that was not run."""
    return tuple(_row(paper, claim, tier, None) for claim in paper.claims if tier in claim.accept)


def _row(paper: Paper, claim: Claim, tier: str, measurement: Measurement | None) -> ClaimResult:
    accept = next(accept for name, accept in claim.accept.items() if name == tier)
    return ClaimResult(
        paper=paper.slug,
        claim=claim.id,
        tier=tier,
        verdict=judge(measurement, accept),
        estimate=measurement.estimate if measurement else None,
        low=measurement.low if measurement else None,
        high=measurement.high if measurement else None,
        n=measurement.n if measurement else None,
        unit=claim.unit,
        paper_value=claim.paper_value,
        provenance=claim.provenance,
        over=measurement.over if measurement else None,
    )


def save(rows: Iterable[ClaimResult], folder: Path) -> None:
    encoded = msgspec.json.format(msgspec.json.encode(list(rows)), indent=2)
    store.write_text(folder / FILE, encoded.decode() + "\n")


def load(folder: Path) -> tuple[ClaimResult, ...]:
    """The rows kept in a folder; none where there are none.

    Raises:
        UserError: if the file is malformed.
    """
    path = folder / FILE
    try:
        return msgspec.json.decode(path.read_bytes(), type=tuple[ClaimResult, ...])
    except FileNotFoundError:
        return ()
    except msgspec.MsgspecError as error:
        raise UserError(f"{path}: {error}; run `reprise accept` again or restore the file") from error


def committed(root: Path, paper: Paper, tier: str) -> tuple[ClaimResult, ...]:
    """The committed verdicts of a tier; rows that say "not run" where nothing was committed."""
    return load(results_folder(root, paper, tier)) or not_run(paper, tier)


def results_folder(root: Path, paper: Paper, tier: str) -> Path:
    """Where the committed results of a tier lie."""
    return root / "replications" / paper.slug / "results" / tier


def lost(now: Iterable[ClaimResult], before: Iterable[ClaimResult]) -> tuple[ClaimResult, ...]:
    """The rows of claims that were supported before and are not now."""
    supported = {(row.paper, row.claim, row.tier) for row in before if row.verdict == "supported"}
    return tuple(row for row in now if (row.paper, row.claim, row.tier) in supported and row.verdict != "supported")

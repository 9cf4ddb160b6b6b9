"""What the report shows of a paper: for every run, its judged claims, its figures, and where its results come from.

A tier shows the results of the last run in the output folder; where there are none the committed ones; where there are
none of these either, rows that say "not run". Runs on other models or with another seed stand for themselves.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import msgspec

from reprise import claims, drawing, store
from reprise.claims import ClaimResult
from reprise.drawing import FigureFile
from reprise.errors import UserError
from reprise.measurement import Measurement, Verdict, judge
from reprise.paper import Accept, Claim, Paper
from reprise.store import Provenance

VERDICTS: tuple[Verdict, ...] = ("supported", "refuted", "inconclusive", "not run")
Source = Literal["run", "committed", "nothing"]


@dataclass(frozen=True)
class Judged:
    """A claim with what one run says about it; `number` is its place in paper.toml."""

    number: int
    claim: Claim
    accept: Accept
    row: ClaimResult


@dataclass(frozen=True)
class StageRecord:
    """One stored stage result; no provenance where the file is damaged."""

    stage: str
    model: str
    provenance: Provenance | None


@dataclass(frozen=True)
class Run:
    """One run of a paper: a tier on its own models, or (`name` differs from `tier`) on others or with another seed."""

    tier: str
    name: str
    source: Source
    folder: Path
    judged: tuple[Judged, ...]
    figures: tuple[FigureFile, ...] = ()
    stages: tuple[StageRecord, ...] = ()

    @property
    def provenances(self) -> tuple[Provenance, ...]:
        return tuple(record.provenance for record in self.stages if record.provenance is not None)

    @property
    def models(self) -> dict[str, str]:
        """Model names and hashes of all stages."""
        return {name: fingerprint for one in self.provenances for name, fingerprint in sorted(one.models.items())}

    @property
    def packages(self) -> dict[str, tuple[str, ...]]:
        """Package versions; more than one where stages were run with different ones."""
        names = sorted({name for one in self.provenances for name in one.packages})
        return {
            name: tuple(sorted({one.packages[name] for one in self.provenances if name in one.packages}))
            for name in names
        }

    @property
    def counts(self) -> dict[Verdict, int]:
        counted = Counter(judged.row.verdict for judged in self.judged)
        return {verdict: counted[verdict] for verdict in VERDICTS}


@dataclass(frozen=True)
class PaperRuns:
    """A paper with the run shown for each of its tiers, and its runs on other models or seeds."""

    paper: Paper
    tiers: tuple[Run, ...]
    others: tuple[Run, ...]


def gather(root: Path, paper: Paper, out: Path) -> PaperRuns:
    """Read everything that is known about a paper.

    Raises:
        UserError: if claims.json or figures.json of a run is malformed.
    """
    below = out / "results" / paper.slug
    tiers = tuple(_tier(root, paper, tier, below / tier) for tier in paper.tiers)
    folders = sorted(path.parent for path in below.glob(f"*/{claims.FILE}") if path.parent.name not in paper.tiers)
    others = tuple(
        _run(paper, tier, folder, "run")
        for tier in paper.tiers
        for folder in folders
        if folder.name.startswith(f"{tier}-")
    )
    return PaperRuns(paper, tiers, others)


def _tier(root: Path, paper: Paper, tier: str, folder: Path) -> Run:
    committed = claims.results_folder(root, paper, tier)
    if (folder / claims.FILE).exists():
        return _run(paper, tier, folder, "run")
    return _run(paper, tier, committed, "committed" if (committed / claims.FILE).exists() else "nothing")


def _run(paper: Paper, tier: str, folder: Path, source: Source) -> Run:
    rows = {row.claim: row for row in claims.not_run(paper, tier)}
    rows |= {row.claim: row for row in claims.load(folder)}
    return Run(
        tier=tier,
        name=folder.name,
        source=source,
        folder=folder,
        judged=tuple(
            _judged(number, claim, accept, rows[claim.id], folder)
            for number, claim in enumerate(paper.claims, 1)
            for judging, accept in claim.accept.items()
            if judging == tier
        ),
        figures=_figures(folder / "figures"),
        stages=_stages(folder),
    )


def _judged(number: int, claim: Claim, accept: Accept, row: ClaimResult, folder: Path) -> Judged:
    """Judged against the range that is shown beside it, which may be newer than the stored verdict."""
    measurement = None
    if row.estimate is not None and row.low is not None and row.high is not None:
        try:
            measurement = Measurement(
                estimate=row.estimate, low=row.low, high=row.high, n=row.n or 0, over=row.over or ""
            )
        except ValueError as error:
            raise UserError(f"{folder / claims.FILE}: claim {claim.id!r}: {error}; run the paper again") from error
    return Judged(number, claim, accept, msgspec.structs.replace(row, verdict=judge(measurement, accept)))


def _figures(folder: Path) -> tuple[FigureFile, ...]:
    path = folder / drawing.CAPTIONS
    try:
        figures = drawing.drawn(folder)
    except msgspec.MsgspecError as error:
        raise UserError(f"{path}: {error}; draw the figures again with `reprise figures`") from error
    for figure in figures:
        if Path(figure.name).name != figure.name:
            raise UserError(f"{path}: figure name {figure.name!r}: expected a plain file name; rename it in figures.py")
    return figures


def _stages(folder: Path) -> tuple[StageRecord, ...]:
    return tuple(_stage(path) for path in sorted(folder.glob("*/*.safetensors")))


def _stage(path: Path) -> StageRecord:
    stored = store.read(path)
    if stored is None:
        return StageRecord(path.parent.name, path.stem, None)
    return StageRecord(
        path.parent.name, str(stored.result.facts.get("unit", stored.result.facts.get("model", ""))), stored.provenance
    )

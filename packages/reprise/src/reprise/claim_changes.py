"""reprise diff: which claims a branch changed, from what is committed about them (paper.toml and claims.json).

A change is a claim in a tier that is not the same on both sides: it is there on one side alone; its verdict, its
estimate with interval, the range that is accepted, or its wording differs. Wording is everything else that paper.toml
says of a claim. Two things are pointed out beside, because a reviewer has to ask about them: a supported claim that no
longer is, and a range that was changed although there was a result already.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Literal

import msgspec

from reprise import claims, standing, workspace
from reprise import paper as papers
from reprise.claims import ClaimResult
from reprise.errors import UserError
from reprise.measurement import Verdict
from reprise.paper import Accept, Claim, Paper
from reprise.revisions import Revision

Kind = Literal["added", "removed", "verdict", "estimate", "range", "wording"]
KINDS: tuple[Kind, ...] = ("added", "removed", "verdict", "estimate", "range", "wording")
WORDING = ("statement", "where", "provenance", "quantity", "unit", "paper_value", "note")


class State(msgspec.Struct, frozen=True, kw_only=True):
    """How a claim stands in a tier on one side; the verdict is that of the range beside it."""

    verdict: Verdict
    estimate: float | None
    low: float | None
    high: float | None
    n: int | None
    accepted: Accept
    definition: Claim


class Change(msgspec.Struct, frozen=True, kw_only=True):
    """One claim in one tier that differs. `wording` names the keys of paper.toml that do."""

    paper: str
    claim: str
    tier: str
    kinds: tuple[Kind, ...]
    before: State | None
    after: State | None
    wording: tuple[str, ...] = ()

    @property
    def lost(self) -> bool:
        """Whether a supported claim no longer is."""
        supported = self.before is not None and self.before.verdict == "supported"
        return supported and (self.after is None or self.after.verdict != "supported")

    @property
    def moved_range(self) -> bool:
        """Whether the accepted range was changed after a result had been committed."""
        return "range" in self.kinds and self.before is not None and self.before.estimate is not None


class ClaimChanges(msgspec.Struct, frozen=True, kw_only=True):
    """All changes since a commit, in the order of papers and of their claims; `notes` is what could not be compared."""

    commit: str
    changes: tuple[Change, ...]
    notes: tuple[str, ...] = ()

    @property
    def counts(self) -> dict[Kind, int]:
        return {kind: sum(kind in change.kinds for change in self.changes) for kind in KINDS}


States = Mapping[tuple[str, str], State]


def compare(root: Path, revision: Revision) -> ClaimChanges:
    """What the working tree says of claims against what the revision says.

    Raises:
        UserError: if a file of the working tree is malformed; one of the revision is named in the notes instead.
    """
    notes: list[str] = []
    held = revision.names("replications")
    now = {paper.slug: paper for paper in workspace.load_papers(root)}
    then = {name.split("/")[1] for name in held if name.count("/") == 2 and name.endswith("/paper.toml")}
    changes: list[Change] = []
    for slug in sorted({*now, *then}):
        before: States = {}
        if slug in then:
            try:
                before = _then(revision, slug, held)
            except UserError as error:
                notes.append(f"{slug}: not compared, since the base cannot be read: {error}")
                continue
        changes += _between(slug, before, _now(root, now[slug], notes) if slug in now else {})
    return ClaimChanges(commit=revision.commit, changes=tuple(changes), notes=tuple(notes))


def _then(revision: Revision, slug: str, held: Iterable[str]) -> States:
    where = f"replications/{slug}/paper.toml at {revision.commit[:12]}"
    paper = papers.decode(revision.read(f"replications/{slug}/paper.toml"), slug, where)
    found: dict[str, tuple[ClaimResult, ...]] = {}
    for tier in paper.tiers:
        name = f"replications/{slug}/results/{tier}/{claims.FILE}"
        if name in held:
            try:
                found[tier] = msgspec.json.decode(revision.read(name), type=tuple[ClaimResult, ...])
            except (msgspec.MsgspecError, ValueError, RecursionError) as error:
                raise UserError(f"{name} at {revision.commit[:12]}: {error}") from error
    return _states(paper, found, f"{claims.FILE} at {revision.commit[:12]}")


def _now(root: Path, paper: Paper, notes: list[str]) -> States:
    folders = {tier: claims.results_folder(root, paper, tier) for tier in paper.tiers}
    found: dict[str, tuple[ClaimResult, ...]] = {tier: claims.load(folder) for tier, folder in folders.items()}
    states = _states(paper, found, f"replications/{paper.slug}: {claims.FILE}")
    for row in (row for of in found.values() for row in of):
        state = states.get((row.claim, row.tier))
        if state is None:
            notes.append(
                f"{paper.slug}: {claims.FILE} holds {row.claim!r} ({row.tier}), which paper.toml does not claim"
            )
        elif state.verdict != row.verdict:
            notes.append(
                f"{paper.slug}: {claims.FILE} says {row.verdict} of {row.claim!r} ({row.tier}); by the range in "
                f"paper.toml it is {state.verdict}: run the paper and `reprise accept {paper.slug}`"
            )
    return states


def _states(paper: Paper, found: Mapping[str, Iterable[ClaimResult]], where: str) -> States:
    rows = [row for tier in paper.tiers for row in standing.rows(paper, tier, found.get(tier, ()), where)]
    by_claim = {(row.claim, row.tier): row for row in rows}
    return {
        (claim.id, tier): State(
            verdict=row.verdict,
            estimate=row.estimate,
            low=row.low,
            high=row.high,
            n=row.n,
            accepted=accept,
            definition=claim,
        )
        for claim in paper.claims
        for tier, accept in claim.accept.items()
        if (row := by_claim.get((claim.id, tier))) is not None
    }


def _between(slug: str, before: States, after: States) -> Iterable[Change]:
    """The changes of one paper; claims that were removed come last."""
    for key in (*after, *(key for key in before if key not in after)):
        old, new = before.get(key), after.get(key)
        kinds, wording = _kinds(old, new)
        if kinds:
            claim, tier = key
            yield Change(paper=slug, claim=claim, tier=tier, kinds=kinds, before=old, after=new, wording=wording)


def _kinds(old: State | None, new: State | None) -> tuple[tuple[Kind, ...], tuple[str, ...]]:
    if old is None or new is None:
        return (("added",) if old is None else ("removed",)), ()
    wording = tuple(key for key in WORDING if getattr(old.definition, key) != getattr(new.definition, key))
    differs: dict[Kind, bool] = {
        "verdict": old.verdict != new.verdict,
        "estimate": (old.estimate, old.low, old.high, old.n) != (new.estimate, new.low, new.high, new.n),
        "range": old.accepted != new.accepted,
        "wording": bool(wording),
    }
    return tuple(kind for kind in KINDS if differs.get(kind)), wording

"""paper.toml: a paper, its owner, its tiers and its claims, parsed into typed values.

Everything that is said about a paper without running anything stands there: what it claims, in our words; the number
that it gives and how we know that number; and, for each tier, what is accepted as support, fixed before the result is
seen.
"""

from __future__ import annotations

import math
import re
from pathlib import Path
from typing import Annotated, Literal

import msgspec

from reprise.errors import UserError

TIERS = ("tiny", "paper")
Provenance = Literal["read", "second-hand", "memory"]
SLUG = re.compile(r"[a-z][a-z0-9]*(_[a-z0-9]+)*")
OWNER = re.compile(r"@[\w.-]+(/[\w.-]+)?", re.ASCII)
CLAIM_ID = re.compile(r"[a-z0-9]+(-[a-z0-9]+)*")
LINK = re.compile(r"https?://[^\s/]+\S*")
LONGEST_LABEL = 50  # of GitHub


class Accept(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """The closed range of values that support a claim; an end that is left out is open."""

    at_least: float = -math.inf
    at_most: float = math.inf

    def __post_init__(self) -> None:
        if not self.at_least <= self.at_most:
            raise ValueError(f"at_least {self.at_least} must not exceed at_most {self.at_most}")
        if math.isinf(self.at_least) and math.isinf(self.at_most):
            raise ValueError("expected at_least, at_most or both; a claim that accepts everything cannot fail")

    def __str__(self) -> str:
        if math.isinf(self.at_most):
            return f"at least {self.at_least:g}"
        if math.isinf(self.at_least):
            return f"at most {self.at_most:g}"
        return f"{self.at_least:g} to {self.at_most:g}"


class Claim(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """One claim of a paper.

    `paper_value` is the paper's own number in `unit`, absent where the paper shows a figure only; `provenance` says how
    we know it. `accept` maps a tier to what supports the claim there; a tier that is left out does not judge it.
    """

    id: str
    statement: str
    where: str
    provenance: Provenance
    quantity: str
    unit: str
    accept: dict[Literal["tiny", "paper"], Accept]
    paper_value: float | None = None
    note: str = ""

    def __post_init__(self) -> None:
        if not CLAIM_ID.fullmatch(self.id):
            raise ValueError(f"id {self.id!r}: expected lower-case words joined by hyphens")
        if not self.accept:
            raise ValueError(f"claim {self.id!r}: expected an acceptance range for at least one tier")

    def __repr__(self) -> str:
        accepted = ", ".join(f"{tier} {accept}" for tier, accept in self.accept.items())
        return f"<Claim {self.id}: {self.statement} Accepted: {accepted} ({self.unit})>"

    def _repr_html_(self) -> str:
        from reprise.notebook import claim_html

        return claim_html(self)


class Tier(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """One way to run the paper: the models by name, folder or hub id, and what it takes.

    `trains` marks a tier that trains its networks itself and is run on no model. `cpus`, `gpus` and `memory_gib` are
    what one task takes of a cluster (`--executor ray`); several tasks may share a GPU (`gpus = 0.5`).
    """

    about: str
    models: tuple[str, ...] = ()
    minutes: float | None = None
    trains: bool = False
    cpus: Annotated[int, msgspec.Meta(ge=1, le=4096)] = 1
    gpus: Annotated[float, msgspec.Meta(gt=0, le=4096)] | None = None
    memory_gib: Annotated[float, msgspec.Meta(gt=0, le=1_000_000)] | None = None

    def __post_init__(self) -> None:
        if self.trains and self.models:
            raise ValueError("expected either models or trains = true: a tier that trains its networks is given none")
        if self.gpus is not None and self.gpus > 1 and self.gpus != int(self.gpus):
            raise ValueError(f"gpus {self.gpus:g}: expected a whole number, or a part of one GPU below 1")


class Channel(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """Where a paper is talked about: the label of its issues and pull requests, and a link to its discussion."""

    label: str = ""
    discussion: str = ""

    def __post_init__(self) -> None:
        if not (self.label or self.discussion):
            raise ValueError("expected a label, a discussion or both; without either leave the channel out")
        if len(self.label) > LONGEST_LABEL or not self.label.isprintable():
            raise ValueError(f"label {self.label!r}: expected at most {LONGEST_LABEL} printable characters")
        if self.discussion and not (LINK.fullmatch(self.discussion) and self.discussion.isprintable()):
            raise ValueError(f"discussion {self.discussion!r}: expected an http or https address")

    def __str__(self) -> str:
        return ", ".join(filter(None, (f"label {self.label!r}" if self.label else "", self.discussion)))


class Paper(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """A paper.toml. `slug` is the name of its folder."""

    title: str
    authors: tuple[str, ...]
    year: Annotated[int, msgspec.Meta(ge=1, le=9999)]
    link: str
    owner: str
    about: str
    tiers: dict[Literal["tiny", "paper"], Tier]
    claims: tuple[Claim, ...]
    channel: Channel | None = None
    slug: str = ""

    def __post_init__(self) -> None:
        if not OWNER.fullmatch(self.owner):
            raise ValueError(f"owner {self.owner!r}: expected a handle such as '@reprise/circuits'")
        if not self.link.startswith(("https://", "http://")):
            raise ValueError(f"link {self.link!r}: expected an http or https address")
        ids = [claim.id for claim in self.claims]
        if duplicates := {claim for claim in ids if ids.count(claim) > 1}:
            raise ValueError(f"claim ids must be unique, found twice: {', '.join(sorted(duplicates))}")
        for claim in self.claims:
            if unknown := set(claim.accept) - set(self.tiers):
                raise ValueError(f"claim {claim.id!r} accepts values for a tier that is not described: {unknown.pop()}")

    def claim(self, claim_id: str) -> Claim:
        for claim in self.claims:
            if claim.id == claim_id:
                return claim
        known = ", ".join(claim.id for claim in self.claims)
        raise UserError(f"{self.slug}: no claim {claim_id!r}; paper.toml has: {known}")

    def __repr__(self) -> str:
        return f"<Paper {self.slug}: {self.title} ({self.year}), {len(self.claims)} claims>"

    def _repr_html_(self) -> str:
        from reprise.notebook import paper_html

        return paper_html(self)

    def tier(self, name: str) -> Tier:
        for known, tier in self.tiers.items():
            if known == name:
                return tier
        raise UserError(f"{self.slug}: no tier {name!r}; paper.toml describes: {', '.join(self.tiers)}")


def load(path: Path) -> Paper:
    """Parse a paper.toml.

    Raises:
        UserError: one line naming the file, the key and what was expected there.
    """
    if not SLUG.fullmatch(path.parent.name):
        raise UserError(f"{path.parent}: folder names are lower-case words joined by underscores; rename it")
    try:
        content = path.read_bytes()
    except FileNotFoundError as error:
        raise UserError(
            f"{path}: no such file; every replication has a paper.toml (`reprise new` writes one)"
        ) from error
    except OSError as error:
        raise UserError(f"{path}: cannot be read ({error.strerror}); check its permissions") from error
    return decode(content, path.parent.name, str(path))


def decode(content: bytes, slug: str, where: str) -> Paper:
    """The paper that the content of a paper.toml describes.

    Raises:
        UserError: one line naming the file as `where`, the key and what was expected there.
    """
    try:
        paper = msgspec.toml.decode(content, type=Paper)
    except (msgspec.MsgspecError, ValueError, RecursionError) as error:  # a number of 5,000 digits, [[[[...
        raise UserError(f"{where}: {' '.join(str(error).split())}; see CONTRIBUTING.md for the format") from error
    return msgspec.structs.replace(paper, slug=slug)

"""Options that several commands share, and the choice of papers."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from reprise import workspace
from reprise.errors import UserError
from reprise.paper import TIERS, Paper

Slugs = Annotated[list[str] | None, typer.Argument(metavar="PAPER...", show_default=False)]
All = Annotated[bool, typer.Option("--all", help="Every paper.")]
Tier = Annotated[str, typer.Option("--tier", metavar="tiny|paper", help="Shipped models, or the paper's own.")]
Models = Annotated[
    list[str] | None,
    typer.Option("--model", metavar="NAME_OR_PATH_OR_ID", help="Run on this model instead (repeatable)."),
]
Data = Annotated[
    Path | None,
    typer.Option("--data", metavar="DIR", help="Read data files from this folder instead of the shipped ones."),
]
Seed = Annotated[int, typer.Option("--seed", min=0, help="Seed of prompts and bootstraps.")]
Seeds = Annotated[
    list[int] | None,
    typer.Option("--seed", min=0, help="Seed of prompts and bootstraps; a run for each (repeatable; 0 by default)."),
]
Backend = Annotated[
    str,
    typer.Option(
        "--backend",
        metavar="engine|nnsight|ndif|http://HOST:PORT",
        help="What computes forward passes: our engine, nnsight here, NDIF, or an nnsight server.",
    ),
]
Out = Annotated[Path, typer.Option("--out", help="Folder for results and the report.")]
Json = Annotated[bool, typer.Option("--json", help="Print JSON.")]
Fresh = Annotated[bool, typer.Option("--fresh", help="Recompute every stage.")]
NoKept = Annotated[
    bool,
    typer.Option("--no-kept", help="Compute what is committed for being slow, going on where such a run was stopped."),
]
Only = Annotated[
    list[str] | None,
    typer.Option("--only", metavar="PATTERN", help="Of a sweep, compute these units alone (repeatable; * and ?)."),
]
Jobs = Annotated[int, typer.Option("--jobs", min=1, help="Processes for papers, models, units, seeds; a thread each.")]
Device = Annotated[str, typer.Option("--device", help="cpu, cuda, cuda:1, mps.")]
Dtype = Annotated[str, typer.Option("--dtype", help="float32, bfloat16, float16.")]


def choose(root: Path, slugs: list[str] | None, every: bool) -> tuple[Paper, ...]:
    """The papers that were named, or all.

    Raises:
        UserError: if neither or both were given.
    """
    if bool(slugs) == every:
        known = ", ".join(folder.name for folder in workspace.folders(root))
        raise UserError(f"expected either names of papers or --all; the papers are: {known or 'none'}")
    return workspace.load_papers(root, tuple(slugs or ()))


def check_tier(tier: str) -> str:
    if tier not in TIERS:
        raise UserError(f"no tier {tier!r}; expected one of: {', '.join(TIERS)}")
    return tier

"""reprise list, show, figures, report, accept: everything that reads and computes nothing."""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from typing import Annotated

import msgspec
import typer

from reprise import backends, claims, data_folders, readme, tables, workspace
from reprise.cli import app
from reprise.cli.options import All, Backend, Data, Jobs, Json, Models, Out, Seed, Slugs, Tier, check_tier, choose
from reprise.cli.output import print_claims, print_json, print_table
from reprise.errors import UserError
from reprise.paper import Paper


@app.command("list")
def list_papers(as_json: Json = False) -> None:
    """List the papers with their owner, tiers and committed verdicts."""
    root = workspace.find_root()
    papers = workspace.load_papers(root)
    rows = [(paper, tier, _counts(root, paper, tier)) for paper in papers for tier in paper.tiers]
    if as_json:
        print_json(
            [
                {
                    "paper": paper.slug,
                    "title": paper.title,
                    "year": paper.year,
                    "owner": paper.owner,
                    "tiers": {tier: counts for other, tier, counts in rows if other is paper},
                    "claims": len(paper.claims),
                }
                for paper in papers
            ]
        )
        return
    from rich.markup import escape

    print_table(
        "",
        ("paper", "title", "owner", "tier", "claims", "supported", "refuted", "inconclusive", "not run"),
        (
            (
                paper.slug,
                escape(f"{paper.title} ({paper.year})"),
                paper.owner,
                tier,
                str(sum(counts.values())),
                *(str(counts[verdict]) for verdict in ("supported", "refuted", "inconclusive", "not run")),
            )
            for paper, tier, counts in rows
        ),
        numeric=("claims", "supported", "refuted", "inconclusive", "not run"),
    )


@app.command()
def show(
    paper: Annotated[str, typer.Argument(metavar="PAPER")],
    claim_id: Annotated[str | None, typer.Option("--claim", metavar="ID", help="This claim alone.")] = None,
    as_json: Json = False,
) -> None:
    """Show a paper's claims, where they stand in the paper, and the committed verdicts."""
    root = workspace.find_root()
    (one,) = workspace.load_papers(root, (paper,))
    shown = (one.claim(claim_id),) if claim_id else one.claims
    ids = {claim.id for claim in shown}
    rows = [row for tier in one.tiers for row in claims.committed(root, one, tier) if row.claim in ids]
    if as_json:
        print_json({"paper": msgspec.structs.replace(one, claims=shown), "results": rows})
        return
    channel = f"\nChannel: {one.channel}" if one.channel else ""
    typer.echo(
        f"{one.title}\n{', '.join(one.authors)}, {one.year}. {one.link}\nOwner: {one.owner}{channel}\n\n"
        f"{one.about.strip()}\n"
    )
    for claim in shown:
        accepted = ", ".join(f"{tier}: {accept}" for tier, accept in claim.accept.items())
        typer.echo(f"{claim.id}: {claim.statement} ({claim.where}; accepted: {accepted})")
    print_claims(rows)


@app.command()
def figures(
    papers: Slugs = None,
    every: All = False,
    tier: Tier = "tiny",
    model: Models = None,
    data: Data = None,
    seed: Seed = 0,
    backend: Backend = backends.ENGINE,
    jobs: Jobs = 1,
    out: Out = workspace.DEFAULT_OUT,
) -> None:
    """Draw figures from stored results alone: plots as SVG and PNG, interactive pages as HTML."""
    from reprise.drawing import draw_stored
    from reprise.run import Request
    from reprise.workers import in_order

    root = workspace.find_root()
    check_tier(tier)
    requests = [
        Request(
            root=root,
            paper=paper,
            tier=tier,
            out=out,
            seed=seed,
            model_names=tuple(model or ()),
            data=None if data is None else data_folders.resolve(data),
            backend=backends.parse(backend),
        )
        for paper in choose(root, papers, every)
    ]
    for request, drawn in zip(requests, in_order(jobs, draw_stored, requests), strict=True):
        typer.echo(f"{request.paper.slug}: {tables.counted(drawn, 'figure')} in {request.folder() / 'figures'}")


@app.command()
def report(out: Out = workspace.DEFAULT_OUT) -> None:
    """Write a self-contained static site of all papers: claims, verdicts, figures."""
    from reprise.report import build

    root = workspace.find_root()
    index = build(root, workspace.load_papers(root), out)
    typer.echo(f"report: {index}")


@app.command()
def accept(papers: Slugs = None, every: All = False, tier: Tier = "tiny", out: Out = workspace.DEFAULT_OUT) -> None:
    """Make verdicts, figures and kept results of the last run the committed ones, and update the README tables."""
    from reprise import drawing, kept
    from reprise.experiment import load_experiment

    root = workspace.find_root()
    check_tier(tier)
    for paper in choose(root, papers, every):
        source = out / "results" / paper.slug / tier
        rows = claims.load(source)
        if not rows:
            raise UserError(f"{source}: no claims.json; run `reprise run {paper.slug} --tier {tier}` first")
        target = claims.results_folder(root, paper, tier)
        drawing.accept(source / "figures", target / "figures")
        claims.save(rows, target)
        typer.echo(f"{paper.slug}: {target}")
        if changed := kept.accept(root, paper.slug, tier, load_experiment(workspace.folder_of(root, paper)), source):
            typer.echo(f"{paper.slug}: {changed} kept results in {kept.folder_of(root, paper.slug, tier)}")
    for path, table in readme.claim_tables(root).items():
        tables.update(path, table)


def _counts(root: Path, paper: Paper, tier: str) -> dict[str, int]:
    counted = Counter(row.verdict for row in claims.committed(root, paper, tier))
    return {verdict: counted[verdict] for verdict in ("supported", "refuted", "inconclusive", "not run")}

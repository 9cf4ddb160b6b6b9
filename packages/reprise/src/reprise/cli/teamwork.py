"""reprise diff, touched, board, doctor: what people who share the work ask for."""

from __future__ import annotations

import sys
from typing import Annotated

import typer

from reprise import workspace
from reprise.cli import app
from reprise.cli.options import Json, Out, Slugs, check_tier
from reprise.cli.output import print_json, print_table
from reprise.errors import UserError

Base = Annotated[str, typer.Argument(metavar="BASE", help="Branch, tag or commit; from where this one left it.")]
Markdown = Annotated[bool, typer.Option("--markdown", help="Print Markdown.")]

STATE_STYLE = {"ok": "green", "missing": "red", "warning": "yellow"}


@app.command()
def diff(base: Base, as_json: Json = False, as_markdown: Markdown = False) -> None:
    """Show which claims the working tree changed: verdicts, estimates, ranges, claims added and removed."""
    from rich.markup import escape

    from reprise import claim_changes_text, revisions
    from reprise.claim_changes import compare

    _one_of(as_json, as_markdown)
    root = workspace.find_root()
    found = compare(root, revisions.resolve(root, base))
    if as_json:
        print_json({"commit": found.commit, "counts": found.counts, "changes": found.changes, "notes": found.notes})
    elif as_markdown:
        sys.stdout.write(claim_changes_text.markdown(found))
    else:
        typer.echo(claim_changes_text.summary(found))
        if found.changes:
            print_table(
                "",
                ("paper", "claim", "tier", "what", "verdict", "estimate", "accepted"),
                ([escape(cell) for cell in claim_changes_text.cells(change)] for change in found.changes),
            )
        for line in claim_changes_text.remarks(found):
            typer.echo(f"note: {line}")


@app.command()
def touched(
    base: Base,
    of_tests: Annotated[
        bool, typer.Option("--tests", help="Print the test files that they touch instead, a line each.")
    ] = False,
    as_json: Json = False,
) -> None:
    """Show which papers the changes since BASE touch, computed from imports, data files and the lock."""
    from rich.markup import escape

    from reprise import revisions, touched_tests
    from reprise import touched as changes

    root = workspace.find_root()
    revision = revisions.resolve(root, base)
    if of_tests:
        tests = touched_tests.touched(root, revision.changed(), revision.commit)
        print_json(tests) if as_json else sys.stdout.write("".join(f"{name}\n" for name in tests.tests))
        return
    found = changes.touched(root, revision.changed(), revision.commit)
    if as_json:
        print_json(found)
        return
    known = len(workspace.folders(root))
    typer.echo(
        f"{found.files} files differ from {found.commit[:12]}; they touch {len(found.papers)} of {known} papers."
    )
    if found.papers:
        firsts = [(slug, len(of), *next(iter(of.items()))) for slug, of in found.reasons.items() if of]
        print_table(
            "",
            ("paper", "files", "one of them", "how"),
            ((slug, str(count), escape(name), escape(how)) for slug, count, name, how in firsts),
            numeric=("files",),
        )


@app.command()
def board(
    papers: Slugs = None,
    tier: Annotated[str | None, typer.Option("--tier", metavar="tiny|paper", help="This tier alone.")] = None,
    owner: Annotated[str | None, typer.Option("--owner", help="This team's papers alone.")] = None,
    as_json: Json = False,
    as_markdown: Markdown = False,
) -> None:
    """List the work that nobody has done: claims that were not run or are inconclusive, by the run that it takes."""
    from reprise import board as boards

    _one_of(as_json, as_markdown)
    root = workspace.find_root()
    chosen = workspace.load_papers(root, tuple(dict.fromkeys(papers or ())))
    if owner is not None and owner not in (owners := {paper.owner for paper in chosen}):
        raise UserError(f"no paper of {owner!r}; owners are: {', '.join(sorted(owners)) or 'none'}")
    mine = [paper for paper in chosen if owner in (None, paper.owner)]
    tiers = None if tier is None else (check_tier(tier),)
    tasks = boards.tasks(root, mine, tiers)
    if as_json:
        print_json(boards.records(tasks))
    else:
        sys.stdout.write(boards.markdown(tasks) if as_markdown else boards.text(tasks))


@app.command()
def doctor(out: Out = workspace.DEFAULT_OUT, as_json: Json = False) -> None:
    """Check the installation and say what is missing for which tier; exit 1 when the tiny tier cannot run."""
    from rich.markup import escape

    from reprise import doctor as doctors

    checks = doctors.examine(workspace.find_root(), out)
    tiny, paper = (doctors.can_run(checks, tier) for tier in ("tiny", "paper"))
    if as_json:
        print_json({"tiny": tiny, "paper": paper, "checks": checks})
    else:
        print_table(
            "",
            ("check", "needed for", "state", "found", "what to do"),
            (
                (
                    escape(check.what),
                    check.needed_for,
                    f"[{STATE_STYLE[check.state]}]{check.state}[/]",
                    escape(check.found),
                    escape(check.remedy),
                )
                for check in checks
            ),
        )
        typer.echo(f"tiny tier: {'can run' if tiny else 'cannot run, see above'}")
        typer.echo(f"paper tier: {'can run' if paper else 'something is missing for some papers, see above'}")
    if not tiny:
        raise typer.Exit(1)


def _one_of(as_json: bool, as_markdown: bool) -> None:
    if as_json and as_markdown:
        raise UserError("expected --json or --markdown, received both; give one")

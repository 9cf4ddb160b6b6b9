"""reprise new: a replication that passes every check at once, and its claims as a table to be reviewed."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from reprise import workspace
from reprise.cli import app
from reprise.cli.output import print_table
from reprise.errors import UserError
from reprise.paper import LINK

if TYPE_CHECKING:
    from reprise.paper import Claim


@app.command()
def new(
    slug: Annotated[
        str | None, typer.Argument(metavar="SLUG", help="Folder name, lower-case words joined by underscores.")
    ] = None,
    title: Annotated[str | None, typer.Option("--title", help="The paper's title.")] = None,
    owner: Annotated[str | None, typer.Option("--owner", help="Team handle such as @reprise/circuits.")] = None,
    author: Annotated[list[str] | None, typer.Option("--author", help="An author (repeatable).")] = None,
    year: Annotated[int | None, typer.Option("--year", help="Year of the paper.")] = None,
    link: Annotated[str | None, typer.Option("--link", help="Address of the paper.")] = None,
    about: Annotated[str | None, typer.Option("--about", help="What it asks, and how it answers.")] = None,
    model: Annotated[str | None, typer.Option("--model", help="Shipped model of the tiny tier.")] = None,
    claims: Annotated[
        Path | None,
        typer.Option(
            "--claims",
            metavar="FILE.csv",
            help="Table of claims: id, statement, where, quantity, unit, provenance, paper_value, tiny, paper, note.",
        ),
    ] = None,
) -> None:
    """Scaffold a replication: claims first, then an experiment, figures and a test.

    SLUG, --title and --owner are needed. Where one is missing, a terminal is asked for all that is not given.
    """
    from reprise import claim_lists
    from reprise.cli import asking
    from reprise.scaffold import MODEL, Description, check_owner, check_slug, check_title, scaffold

    root = workspace.find_root()
    listed = claim_lists.read(claims) if claims else ()
    missing = [name for name, given in (("SLUG", slug), ("--title", title), ("--owner", owner)) if given is None]
    unknown = Description()
    if missing and asking.can_ask():
        slug = slug or asking.ask("slug, such as induction_heads", lambda answer: check_slug(root, answer))
        title = title or asking.ask("title of the paper", check_title)
        owner = owner or asking.ask("owner, such as @reprise/circuits", check_owner)
        author = author or _split(asking.ask("authors, separated by commas", default=""))
        year = year or int(asking.ask("year", _year, default=str(unknown.year)))
        link = link or asking.ask("link to the paper", _link, default=unknown.link)
        about = about or asking.ask("what it asks, and how it answers", default="")
        model = model or asking.ask("shipped model of the tiny tier", default=MODEL)
        listed = listed or asking.ask_claims()
    if slug is None or title is None or owner is None:
        raise UserError(
            f"missing: {', '.join(missing)}; expected SLUG, --title and --owner (a terminal is asked for them)"
        )
    description = Description(
        authors=tuple(author or unknown.authors),
        year=unknown.year if year is None else year,
        link=link or unknown.link,
        about=about or unknown.about,
        model=model or MODEL,
        claims=listed,
    )
    for path in scaffold(root, slug, title, owner, description):
        typer.echo(str(path))
    if listed:
        _print_review(listed)
    first = "" if listed else f"the claims, in replications/{slug}/paper.toml; "
    typer.echo(
        f"Next: {first}a pull request with the claims alone, reviewed against the paper by somebody else; then "
        "experiment.py and figures.py."
    )


def _print_review(claims: tuple[Claim, ...]) -> None:
    from rich.markup import escape

    from reprise.tables import paper_number

    typer.echo(
        "\nTo be reviewed: could it fail, would the authors recognise it, does the quantity measure the statement?"
    )
    print_table(
        "",
        ("claim", "statement", "where", "quantity", "unit", "the paper's number", "accepted"),
        (
            [
                *map(escape, (one.id, one.statement, one.where, one.quantity, one.unit, paper_number(one))),
                ", ".join(f"{tier}: {accept}" for tier, accept in one.accept.items()),
            ]
            for one in claims
        ),
    )


def _split(authors: str) -> list[str]:
    return [name for part in authors.split(",") if (name := part.strip())]


def _link(text: str) -> None:
    if not LINK.fullmatch(text):
        raise UserError(f"link {text!r}: expected an http or https address")


def _year(text: str) -> None:
    if not text.isdecimal() or not 1 <= int(text) <= 9999:
        raise UserError(f"year {text!r}: expected a number such as 2022")

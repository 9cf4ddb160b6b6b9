"""reprise new: a replication that passes every check at once."""

from __future__ import annotations

from typing import Annotated

import typer

from reprise import workspace
from reprise.cli import app


@app.command()
def new(
    slug: Annotated[str, typer.Argument(metavar="SLUG", help="Folder name, lower-case words joined by underscores.")],
    title: Annotated[str, typer.Option("--title", help="The paper's title.")],
    owner: Annotated[str, typer.Option("--owner", help="Team handle such as @reprise/circuits.")],
) -> None:
    """Scaffold a replication: claims first, then an experiment, figures and a test."""
    from reprise.scaffold import scaffold

    for path in scaffold(workspace.find_root(), slug, title, owner):
        typer.echo(str(path))

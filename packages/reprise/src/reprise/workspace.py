"""Where things lie: the project's root, its replications, and the folder that runs write to."""

from __future__ import annotations

import os
from pathlib import Path

from reprise import paper as papers
from reprise.errors import UserError
from reprise.paper import Paper

DEFAULT_OUT = Path("build")


def find_root(start: Path | None = None) -> Path:
    """The nearest folder at or above `start` (the current folder) that has replications/; or $REPRISE_ROOT.

    Raises:
        UserError: if there is none.
    """
    if "REPRISE_ROOT" in os.environ:
        return Path(os.environ["REPRISE_ROOT"]).resolve()
    start = (start or Path.cwd()).resolve()
    for folder in (start, *start.parents):
        if (folder / "replications").is_dir():
            return folder
    raise UserError(
        f"{start}: no folder replications/ here or above; run reprise in the project, set REPRISE_ROOT, or make that "
        "folder to begin a project of your own"
    )


def folders(root: Path) -> tuple[Path, ...]:
    """The folders below replications/, whether or not their paper.toml is well-formed."""
    below = (root / "replications").iterdir() if (root / "replications").is_dir() else iter(())
    return tuple(sorted(path for path in below if path.is_dir() and path.name[0] not in "._"))


def load_papers(root: Path, slugs: tuple[str, ...] = ()) -> tuple[Paper, ...]:
    """The papers of these slugs, or all of them.

    Raises:
        UserError: for an unknown slug (naming the known ones) or a malformed paper.toml.
    """
    known = {path.name: path for path in folders(root)}
    for slug in slugs:
        if slug not in known:
            raise UserError(f"no paper {slug!r}; the papers are: {', '.join(known) or 'none'}")
    return tuple(papers.load(known[slug] / "paper.toml") for slug in slugs or known)


def folder_of(root: Path, paper: Paper) -> Path:
    return root / "replications" / paper.slug

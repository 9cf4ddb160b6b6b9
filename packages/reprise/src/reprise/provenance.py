"""What a result carries about where it comes from: commit, versions, device."""

from __future__ import annotations

import subprocess
from functools import cache
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

RECORDED = ("torch", "transformer-lens", "transformers", "numpy")


@cache
def commit(root: Path) -> str:
    """The commit of the working tree, with "+changes" when tracked files differ from it; "unknown" without git."""

    def git(*arguments: str) -> str:
        finished = subprocess.run(["git", "-C", str(root), *arguments], capture_output=True, text=True, check=True)
        return finished.stdout.strip()

    try:
        head = git("rev-parse", "--short=12", "HEAD")
        return head + ("+changes" if git("status", "--porcelain", "--untracked-files=no") else "")
    except (OSError, subprocess.CalledProcessError):
        return "unknown"


@cache
def _versions() -> tuple[tuple[str, str], ...]:
    found = []
    for package in RECORDED:
        try:
            found.append((package, version(package)))
        except PackageNotFoundError:
            continue
    return tuple(found)


def versions() -> dict[str, str]:
    """Installed versions of the packages that decide numbers."""
    return dict(_versions())

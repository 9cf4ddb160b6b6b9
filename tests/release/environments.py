"""Environments outside the checkout: one with all wheels of ours, and for each package one that holds it alone.

A package alone is an environment of links: into its site-packages go those files of the whole environment that belong
to the package, to what it requires without extras, to what these require, and so on. What is imported there without
being required is missing, for `import` as for a library that asks what is installed; and installing costs milliseconds.
"""

from __future__ import annotations

import os
import subprocess
import sys
import sysconfig
from collections.abc import Iterator
from importlib.metadata import Distribution, distributions
from pathlib import Path

from packaging.requirements import Requirement
from packaging.utils import canonicalize_name
from tests.release.packages import ROOT

UV = ROOT / ".venv" / "bin" / "uv"
PYTHON = "bin/python"


def make(folder: Path) -> Path:
    """An empty environment; returns its site-packages."""
    subprocess.run([UV, "venv", "--quiet", "--python", sys.executable, folder], check=True, timeout=60)
    (found,) = folder.glob("lib/python*/site-packages")
    return found


def borrow_bytecode(site: Path) -> None:
    """Let an environment use the compiled files of this one, which hold for the same sources; compiling takes a minute.

    Files that uv has put into both from its cache are the same to Python; others it would compile as ever.
    """
    mine = Path(sysconfig.get_path("purelib"))
    for cache in mine.rglob("__pycache__"):
        place = site / cache.relative_to(mine)
        if place.parent.is_dir() and not place.exists():
            place.symlink_to(cache)


def install(folder: Path, wheels: list[Path]) -> str:
    """Put wheels and what they require into an environment, in the versions of requirements.lock; returns what went
    wrong, "" where all is installed.
    """
    find = [f"--find-links={os.environ['PIP_FIND_LINKS']}"] if "PIP_FIND_LINKS" in os.environ else []
    pins = ROOT / "requirements.lock"
    command: list[str | Path] = [UV, "pip", "install", "--quiet", "--python", folder / PYTHON, *find]
    command += ["--constraints", pins, *wheels]
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=500)
    return done.stderr if done.returncode else ""


def found(site: Path) -> dict[str, Distribution]:
    """What is installed, by name."""
    return {canonicalize_name(one.metadata["Name"]): one for one in distributions(path=[str(site)])}


def required(installed: dict[str, Distribution], name: str) -> set[tuple[str, str]]:
    """A distribution with the extra that it is wanted with ("" for none), and all that it requires."""
    waiting, known = [(name, "")], set()
    for one in waiting:  # grows while it is read
        if one in known or one[0] not in installed:
            continue
        known.add(one)
        for line in installed[one[0]].requires or ():
            needs = Requirement(line)
            if needs.marker is None or needs.marker.evaluate({"extra": one[1]}):
                waiting += [(canonicalize_name(needs.name), extra) for extra in ("", *needs.extras)]
    return known


def alone(folder: Path, site: Path, name: str) -> Path:
    """An environment with one distribution of another environment, `site`, and what it requires; returns its Python."""
    installed = found(site)
    into = make(folder)
    for entry in {entry for one, _ in required(installed, name) for entry in entries(installed[one])}:
        (into / entry).symlink_to(site / entry)
    return folder / PYTHON


def entries(one: Distribution) -> Iterator[str]:
    """The folders and files right below site-packages that hold a distribution."""
    for file in one.files or ():
        if file.parts[0] not in ("..", "__pycache__"):
            yield file.parts[0]

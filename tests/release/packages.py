"""What the pyproject.toml of each package says, and wheels built from it, for the tests of a release."""

from __future__ import annotations

import os
import shutil
import subprocess
import tomllib
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

ROOT = Path(__file__).parents[2]


@dataclass(frozen=True, eq=False)
class Package:
    """One of packages/: its folder, the name of its distribution and of its module, and its requirements by extra.

    What is required without any extra stands under "".
    """

    folder: Path
    name: str
    module: str
    version: str
    requires: dict[str, tuple[Requirement, ...]]
    scripts: dict[str, str]
    entry_points: dict[str, dict[str, str]]

    @property
    def source(self) -> Path:
        return self.folder / "src" / self.module

    def wheel(self, dist: Path) -> Path:
        return dist / f"{self.name.replace('-', '_')}-{self.version}-py3-none-any.whl"

    def archive(self, dist: Path) -> Path:
        return dist / f"{self.name.replace('-', '_')}-{self.version}.tar.gz"


def read(path: Path) -> Package:
    """A package from its pyproject.toml."""
    table = tomllib.loads(path.read_text())
    project = table["project"]
    lines = {"": project["dependencies"], **project.get("optional-dependencies", {})}
    requires = {extra: tuple(map(Requirement, texts)) for extra, texts in lines.items()}
    module = table["tool"]["uv"]["build-backend"]["module-name"]
    scripts, points = project.get("scripts", {}), project.get("entry-points", {})
    return Package(path.parent, project["name"], module, project["version"], requires, scripts, points)


PACKAGES = tuple(read(path) for path in sorted(ROOT.glob("packages/*/pyproject.toml")))
BY_NAME = {package.name: package for package in PACKAGES}


def names(requirements: Iterable[Requirement]) -> set[str]:
    return {canonicalize_name(requirement.name) for requirement in requirements}


def ours(package: Package) -> set[str]:
    """The names of our own packages that one needs, with itself."""
    direct = names(package.requires[""]) & set(BY_NAME)
    return {package.name}.union(*(ours(BY_NAME[name]) for name in direct))


def build(target: str, out: Path, root: Path = ROOT) -> Path:
    """`make wheels` or `make dist` in a checkout, into a folder, with .venv as it is."""
    environment = {name: value for name, value in os.environ.items() if name not in ("MAKEFLAGS", "MAKELEVEL")}
    make = ["make", "--silent", "--old-file", ".venv/installed", target, f"DIST={out}"]
    subprocess.run(make, cwd=root, env=environment, check=True, timeout=60)
    return out


def lacking(*tools: str) -> str:
    """Why nothing can be built here; "" where it can."""
    absent = [tool for tool in tools if shutil.which(tool) is None]
    if not (ROOT / ".venv" / "bin" / "uv").exists():
        absent.append(".venv/bin/uv")
    return f"needs {', '.join(absent)}" if absent else ""

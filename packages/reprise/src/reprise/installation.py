"""What is installed, against what the lock pins and what our packages require; nothing is imported for it."""

from __future__ import annotations

import re
import tomllib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path
from typing import Any

from reprise.errors import UserError

LOCK = "requirements.lock"
_REQUIREMENT = re.compile(r"\s*([A-Za-z0-9][\w.-]*)[^;]*(?:;(.*))?")


@dataclass(frozen=True)
class Package:
    """One of packages/: its distribution, what it requires, and its extras, as requirement lines."""

    folder: Path
    name: str
    requires: tuple[str, ...]
    extras: Mapping[str, tuple[str, ...]]


def packages(root: Path) -> tuple[Package, ...]:
    """Our packages, from their pyproject.toml.

    Raises:
        UserError: if one is malformed.
    """
    return tuple(_package(path) for path in sorted(root.glob("packages/*/pyproject.toml")))


def _package(path: Path) -> Package:
    try:
        project: dict[str, Any] = tomllib.loads(path.read_text(encoding="utf-8"))["project"]
        extras = {name: tuple(lines) for name, lines in project.get("optional-dependencies", {}).items()}
        return Package(path.parent, project["name"], tuple(project.get("dependencies", ())), extras)
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        raise UserError(f"{path}: {error}; expected a table [project] with a name: correct the file") from error


def distributions() -> tuple[str, ...]:
    """Our distributions that are installed, in the order of their names."""
    names = {str(found.metadata["Name"]) for found in metadata.distributions()}
    return tuple(sorted(name for name in names if name == "reprise" or name.startswith("reprise-")))


def canonical(name: str) -> str:
    return re.sub(r"[-_.]+", "-", name).lower()


def name_of(requirement: str) -> str:
    """The distribution that a requirement line names; "" where it applies to other machines or extras alone."""
    found = _REQUIREMENT.match(requirement)
    if found is None or not _applies(found[2]):
        return ""
    return canonical(found[1])


def installed(name: str) -> str | None:
    try:
        return metadata.version(name)
    except metadata.PackageNotFoundError:
        return None


def required(starts: Iterable[str]) -> dict[str, str | None]:
    """All distributions that these requirement lines need, with the installed version; None where one is missing."""
    found: dict[str, str | None] = {}
    waiting = [name_of(line) for line in starts]
    for name in waiting:  # grows while it is read
        if name and name not in found:
            found[name] = installed(name)
            if found[name] is not None:
                waiting += [name_of(line) for line in metadata.requires(name) or ()]
    return found


def pinned(root: Path) -> dict[str, str]:
    """The versions that the lock pins for this machine; none where there is no lock."""
    path = root / LOCK
    try:
        lines = path.read_text(encoding="utf-8").splitlines() if path.exists() else []
    except (OSError, UnicodeDecodeError) as error:
        raise UserError(f"{path}: cannot be read ({error}); restore it") from error
    pins = {}
    for line in lines:
        version = line.partition(";")[0].partition("==")[2].strip()
        if version and (name := name_of(line)):
            pins[name] = version
    return pins


def _applies(marker: str | None) -> bool:
    """Whether a marker holds here, without extras; one that cannot be read (no `packaging`) does not count."""
    if not marker:
        return True
    try:
        from packaging.markers import InvalidMarker, Marker, UndefinedEnvironmentName
    except ImportError:
        return False
    try:
        return Marker(marker).evaluate({"extra": ""})
    except (InvalidMarker, UndefinedEnvironmentName):
        return False

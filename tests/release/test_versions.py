"""One version: in every package, the pins between them, the changelog, the citation, and in what is installed."""

from __future__ import annotations

import re
import tomllib
from importlib.metadata import version

import pytest
from tests.release.packages import BY_NAME, PACKAGES, ROOT, Package

each = pytest.mark.parametrize("package", PACKAGES, ids=lambda package: package.module)
VERSION: str = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["version"]
CHANGELOG = (ROOT / "CHANGELOG.md").read_text()
# "## [0.1.0] - 2026-11-27", as https://keepachangelog.com/en/1.1.0/ has it
RELEASES = re.findall(r"^## \[(\d+\.\d+\.\d+)\] - (\d{4}-\d\d-\d\d)$", CHANGELOG, flags=re.MULTILINE)
KINDS = {"Added", "Changed", "Deprecated", "Removed", "Fixed", "Security"}


def test_the_changelog_begins_with_this_version() -> None:
    headings = re.findall(r"^## (.*)$", CHANGELOG, flags=re.MULTILINE)
    assert RELEASES[0][0] == VERSION
    assert [f"[{number}] - {day}" for number, day in RELEASES] == [one for one in headings if one != "[Unreleased]"]
    assert headings.index(f"[{VERSION}] - {RELEASES[0][1]}") == headings.count("[Unreleased]")
    numbers = [tuple(map(int, number.split("."))) for number, _ in RELEASES]
    assert numbers == sorted(set(numbers), reverse=True)
    assert [day for _, day in RELEASES] == sorted((day for _, day in RELEASES), reverse=True)
    assert set(re.findall(r"^### (.*)$", CHANGELOG, flags=re.MULTILINE)) <= KINDS


def test_the_citation_has_this_version() -> None:
    assert re.findall(r"^version: (\S+)$", (ROOT / "CITATION.cff").read_text(), flags=re.MULTILINE) == [VERSION]


@each
def test_a_package_has_this_version(package: Package) -> None:
    assert package.version == VERSION
    assert version(package.name) == VERSION, "run `make .venv/installed`"


@each
def test_a_package_needs_the_same_version_of_ours(package: Package) -> None:
    for requirement in (one for of in package.requires.values() for one in of if one.name in BY_NAME):
        assert str(requirement.specifier) == f"=={VERSION}", f"{package.name}: {requirement}"


@each
def test_the_changelog_names_every_package(package: Package) -> None:
    assert f"`{package.name}`" in CHANGELOG


@each
def test_a_package_has_the_licence(package: Package) -> None:
    assert (package.folder / "LICENSE").read_bytes() == (ROOT / "LICENSE").read_bytes()

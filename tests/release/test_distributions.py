"""What `make dist` builds: wheels, whole, described, licensed and typed, the same bytes each time; the models."""

from __future__ import annotations

import configparser
import os
import shutil
import subprocess
import tarfile
import zipfile
from email import message_from_string
from email.message import Message
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name
from tests.release.packages import PACKAGES, ROOT, Package, build, lacking

each = pytest.mark.parametrize("package", PACKAGES, ids=lambda package: package.module)


def sources(package: Package) -> set[str]:
    """All files of a package but what Python writes itself, relative to the folder src."""
    paths = (path for path in package.source.rglob("*") if path.is_file() and "__pycache__" not in path.parts)
    return {path.relative_to(package.folder / "src").as_posix() for path in paths}


def information(package: Package) -> str:
    return f"{package.name.replace('-', '_')}-{package.version}.dist-info"


def text(wheel: Path, name: str) -> str:
    with zipfile.ZipFile(wheel) as file:
        return file.read(name).decode()


def metadata(package: Package, dist: Path) -> Message:
    return message_from_string(text(package.wheel(dist), f"{information(package)}/METADATA"))


def test_nothing_else_is_built(dist: Path) -> None:
    expected = [of for package in PACKAGES for of in (package.wheel(dist), package.archive(dist))]
    assert sorted(dist.iterdir()) == sorted(expected)


@each
def test_a_wheel_holds_the_package_and_nothing_else(package: Package, dist: Path) -> None:
    with zipfile.ZipFile(package.wheel(dist)) as file:
        assert file.testzip() is None
        held = {name for name in file.namelist() if not name.endswith("/")}
    about = {f"{information(package)}/{name}" for name in ("METADATA", "WHEEL", "RECORD", "licenses/LICENSE")}
    if package.scripts or package.entry_points:
        about.add(f"{information(package)}/entry_points.txt")
    assert held == sources(package) | about
    assert f"{package.module}/py.typed" in held


@each
def test_a_source_archive_holds_what_the_wheel_is_built_from(package: Package, dist: Path) -> None:
    with tarfile.open(package.archive(dist)) as file:
        held = {name.partition("/")[2] for name in file.getnames()}
    assert {f"src/{name}" for name in sources(package)} | {"LICENSE", "README.md", "pyproject.toml", "PKG-INFO"} <= held


@each
def test_the_metadata_says_what_pyproject_says(package: Package, dist: Path) -> None:
    about = metadata(package, dist)
    assert (canonicalize_name(about["Name"]), about["Version"]) == (package.name, package.version)
    assert (about["License-Expression"], about["License-File"]) == ("MIT", "LICENSE")
    assert about["Requires-Python"] == ">=3.11"
    assert about["Summary"]
    assert about["Description-Content-Type"] == "text/markdown"
    assert about.get_payload() == (package.folder / "README.md").read_text()
    found = [Requirement(line) for line in about.get_all("Requires-Dist", [])]
    of_extra = {extra: [one for one in found if (one.marker is None) == (extra == "")] for extra in package.requires}
    for extra, requirements in package.requires.items():
        applying = [one for one in of_extra[extra] if one.marker is None or one.marker.evaluate({"extra": extra})]
        assert {(one.name, str(one.specifier)) for one in applying} == {
            (one.name, str(one.specifier)) for one in requirements
        }
    assert set(about.get_all("Provides-Extra", [])) == set(package.requires) - {""}


@each
def test_entry_points_name_what_is_there(package: Package, dist: Path) -> None:
    if not (package.scripts or package.entry_points):
        pytest.skip("it has none")
    parser = configparser.ConfigParser(delimiters="=")
    parser.read_string(text(package.wheel(dist), f"{information(package)}/entry_points.txt"))
    found = {group: dict(parser[group]) for group in parser.sections()}
    declared = {**package.entry_points, **({"console_scripts": package.scripts} if package.scripts else {})}
    assert found == declared
    for value in (value for group in found.values() for value in group.values()):
        module = value.partition(":")[0].replace(".", "/")
        assert {f"{module}.py", f"{module}/__init__.py"} & sources(package), value


def test_the_same_sources_give_the_same_bytes(tmp_path: Path) -> None:
    """In another folder, from files of another age."""
    if why := lacking("make"):
        pytest.skip(why)
    out = []
    for name in ("one", "other"):
        root = tmp_path / name
        shutil.copytree(ROOT / "packages", root / "packages", ignore=shutil.ignore_patterns("__pycache__"))
        for file in ("Makefile", "pyproject.toml"):
            shutil.copyfile(ROOT / file, root / file)
        (root / ".venv").symlink_to(ROOT / ".venv")
        for path in (root / "packages").rglob("*.*"):
            os.utime(path, (1e9, 1e9) if name == "one" else None)
        out.append(build("wheels", tmp_path / f"dist-of-{name}", root))
    assert len(list(out[0].iterdir())) == 2 * len(PACKAGES)
    for path in sorted(out[0].iterdir()):
        assert path.read_bytes() == (out[1] / path.name).read_bytes(), path.name


def test_the_archive_holds_what_is_committed_in_shared(tmp_path: Path) -> None:
    if why := lacking("make", "git"):
        pytest.skip(why)
    listed = subprocess.run(
        ["git", "ls-tree", "-r", "--name-only", "HEAD", "shared"], cwd=ROOT, capture_output=True, text=True, check=False
    )
    if listed.returncode:
        pytest.skip(f"git lists no commit here: {listed.stderr.strip()}")
    out = build("dist", tmp_path / "out")
    (path,) = out.glob("reprise-shared-*.tar")
    assert path.name == f"reprise-shared-{PACKAGES[0].version}.tar"
    with tarfile.open(path) as file:
        held = {one.name for one in file.getmembers() if one.isfile()}
        licence = file.extractfile("shared/LICENSE")
        assert licence is not None
        assert licence.read() == (ROOT / "LICENSE").read_bytes()
    assert held == {*listed.stdout.splitlines(), "shared/LICENSE"}

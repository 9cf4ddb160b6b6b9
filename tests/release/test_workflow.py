"""The workflow of a release: what may write, and that a tag is the version and gives the changelog's section."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path
from typing import Any

import yaml  # type: ignore[import-untyped]
from tests.release.packages import PACKAGES, ROOT

VERSION = PACKAGES[0].version
CHANGELOG = (ROOT / "CHANGELOG.md").read_text()


def workflow() -> dict[str, Any]:
    found: dict[str, Any] = yaml.safe_load((ROOT / ".github" / "workflows" / "release.yml").read_text())
    return found


def test_what_writes_runs_nothing_of_the_checkout() -> None:
    found = workflow()
    assert found["permissions"] == {"contents": "read"}
    assert {name: job.get("permissions") for name, job in found["jobs"].items()} == {
        "build": None,
        "publish": {"contents": "write"},
    }
    assert [step.get("uses") for step in found["jobs"]["publish"]["steps"]] == ["actions/download-artifact@v4", None]
    for job in found["jobs"].values():
        assert all("${{" not in step.get("run", "") for step in job["steps"])


def notes(tag: str, folder: Path, built: str = VERSION) -> tuple[int, str]:
    """The exit status of the step that reads the changelog, and what it wrote; with sections around the newest one."""
    (step,) = [step for step in workflow()["jobs"]["build"]["steps"] if "TAG" in step.get("env", {})]
    dist = folder / "build" / "dist"
    dist.mkdir(parents=True, exist_ok=True)
    (dist / f"reprise-shared-{built}.tar").touch()
    head, newest, rest = CHANGELOG.partition(f"## [{VERSION}]")
    text = f"{head}## [Unreleased]\n\nLater.\n\n{newest}{rest}\n## [0.0.1] - 2020-01-01\n\nEarlier.\n"
    (folder / "CHANGELOG.md").write_text(text)
    shell = ["bash", "-e", "-o", "pipefail", "-c", step["run"]]
    done = subprocess.run(shell, cwd=folder, env={"PATH": os.environ["PATH"], "TAG": tag}, check=False, timeout=60)
    page = dist / "notes.md"
    return done.returncode, page.read_text() if page.exists() else ""


def test_the_notes_are_the_section_of_the_tag(tmp_path: Path) -> None:
    status, page = notes(f"v{VERSION}", tmp_path)
    assert status == 0
    (section,) = [one for one in CHANGELOG.split("\n## [") if one.startswith(f"{VERSION}]")]
    assert page.strip() == section.partition("\n")[2].strip()


def test_another_tag_than_the_version_fails(tmp_path: Path) -> None:
    assert notes("v0.0.1", tmp_path)[0] != 0


def test_a_version_that_the_changelog_lacks_fails(tmp_path: Path) -> None:
    assert notes("v99.0.0", tmp_path, built="99.0.0")[0] != 0

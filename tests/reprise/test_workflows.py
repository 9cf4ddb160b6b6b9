"""The workflows: what may write, what the nightly paper tier runs, and the comment that is posted."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path
from typing import Any

import yaml  # type: ignore[import-untyped]

from reprise import claim_changes_text, workspace

PROJECT = Path(__file__).parents[2]


def jobs(name: str) -> dict[str, Any]:
    workflow = yaml.safe_load((PROJECT / ".github" / "workflows" / name).read_text())
    assert workflow["permissions"] == {"contents": "read"}
    found: dict[str, Any] = workflow["jobs"]
    return found


def test_one_job_alone_may_write_and_it_runs_nothing_of_the_change() -> None:
    found = jobs("pull-request.yml")
    writing = {name: job for name, job in found.items() if "permissions" in job}
    assert {name: job["permissions"] for name, job in writing.items()} == {"comment": {"pull-requests": "write"}}
    steps = writing["comment"]["steps"]
    assert [step["uses"].partition("@")[0] for step in steps] == ["actions/download-artifact", "actions/github-script"]
    assert all("permissions" not in job for job in jobs("nightly.yml").values())


def test_the_comment_is_found_by_the_marker_that_it_begins_with() -> None:
    script = jobs("pull-request.yml")["comment"]["steps"][-1]["with"]["script"]
    assert f'const marker = "{claim_changes_text.MARKER}";' in script


def test_texts_from_outside_reach_no_shell_but_by_the_environment() -> None:
    for name in ("pull-request.yml", "nightly.yml", "main.yml"):
        for job in jobs(name).values():
            for step in job["steps"]:
                assert "github.event" not in step.get("run", "")
                assert "needs." not in step.get("run", "")


def test_a_pull_request_runs_the_tests_that_it_touches_and_main_all(tmp_path: Path) -> None:
    """The commands of the job themselves, with a stand-in for what they call."""
    job = jobs("pull-request.yml")["tests"]
    step = job["steps"][-1]
    assert (step["env"], "fetch-depth" in job["steps"][0]["with"]) == (
        {"BASE": "${{ github.event.pull_request.base.sha }}"},
        True,
    )
    (tmp_path / ".venv" / "bin").mkdir(parents=True)
    for name in ("reprise", "pytest"):
        program = tmp_path / ".venv" / "bin" / name
        told = 'echo "$@" >> asked; cat names' if name == "reprise" else 'echo "$@" >> ran'
        program.write_text(f"#!/bin/sh\n{told}\n")
        program.chmod(0o755)
    for names, ran in (("", None), ("tests/a.py\ntests/b.py\n", "tests/a.py tests/b.py\n")):
        (tmp_path / "names").write_text(names)
        subprocess.run(["bash", "-e", "-c", step["run"]], cwd=tmp_path, env={**os.environ, "BASE": "a1"}, check=True)
        assert ((tmp_path / "ran").read_text() if (tmp_path / "ran").exists() else None) == ran
    assert (tmp_path / "asked").read_text() == "touched a1 --tests\n" * 2
    main = jobs("main.yml")["tests"]
    assert main["steps"][-1]["run"].startswith("make test ")
    assert main["strategy"] == job["strategy"]


def test_every_night_all_papers_with_a_model_and_nothing_else_to_get() -> None:
    nightly = set(jobs("nightly.yml")["paper"]["strategy"]["matrix"]["paper"])
    papers = {paper.slug: paper for paper in workspace.load_papers(PROJECT)}
    with_models = {
        slug for slug, paper in papers.items() for tier, of in paper.tiers.items() if tier == "paper" and of.models
    }
    for slug in nightly:
        tier = papers[slug].tier("paper")
        assert tier.models
        assert tier.minutes is not None
        assert tier.minutes <= 180
    # Its questions are files that have to be given.
    assert with_models - nightly == {"contrastive_activation_addition"}

"""The workflows: what may write, what the nightly paper tier runs, and the comment that is posted."""

from __future__ import annotations

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
    for name in ("pull-request.yml", "nightly.yml"):
        for job in jobs(name).values():
            for step in job["steps"]:
                assert "github.event" not in step.get("run", "")
                assert "needs." not in step.get("run", "")


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

"""The generated claim tables of the README files: which file holds which table."""

from __future__ import annotations

from pathlib import Path

from reprise import claims, tables, workspace
from reprise.claims import ClaimResult


def claim_tables(root: Path) -> dict[Path, str]:
    """The claim table of every README that has one."""
    papers = workspace.load_papers(root)
    rows = {
        paper.slug: [row for tier in paper.tiers for row in claims.committed(root, paper, tier)] for paper in papers
    }
    every: list[ClaimResult] = [
        row for of in rows.values() for row in of if row.tier == "tiny" or row.verdict != "not run"
    ]
    files = {
        workspace.folder_of(root, paper) / "README.md": tables.markdown([paper], rows[paper.slug], False)
        for paper in papers
    }
    files[root / "README.md"] = tables.markdown(papers, every, True)
    return {path: table for path, table in files.items() if path.exists() and tables.BEGIN in path.read_text()}

"""The reports that are opened in a browser: of this project and of a toy paper."""

from __future__ import annotations

from pathlib import Path

import pytest
from tests.browser.toy_paper import toy_report

from reprise import workspace
from reprise.report import build

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture(scope="session")
def project(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The report of this project's committed results."""
    return build(ROOT, workspace.load_papers(ROOT), tmp_path_factory.mktemp("project")).parent


@pytest.fixture(scope="session")
def toy(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The report of one paper with hostile text, every kind of figure, and runs of every kind."""
    return toy_report(tmp_path_factory.mktemp("toy"))

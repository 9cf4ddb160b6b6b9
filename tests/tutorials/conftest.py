"""Tutorials as notebooks: read from their text, run in a kernel of their own, each once for all tests of a process."""

from __future__ import annotations

from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any

import pytest

TUTORIALS = Path(__file__).parents[2] / "docs" / "tutorials"
SECONDS_A_CELL = 600  # of a machine that is busy with other tests

Notebook = Any
Execute = Callable[[str], Notebook]


@pytest.fixture(scope="session")
def execute(tmp_path_factory: pytest.TempPathFactory) -> Execute:
    """Run a tutorial in an empty folder; gives the notebook with its outputs. A cell that fails raises."""
    jupytext = pytest.importorskip("jupytext")
    nbclient = pytest.importorskip("nbclient")
    pytest.importorskip("ipykernel")

    @cache
    def run(name: str) -> Notebook:
        notebook = jupytext.read(TUTORIALS / f"{name}.md")
        client = nbclient.NotebookClient(
            notebook,
            timeout=SECONDS_A_CELL,
            startup_timeout=SECONDS_A_CELL,
            kernel_name="python3",
            resources={"metadata": {"path": str(tmp_path_factory.mktemp(name))}},
        )
        return client.execute()

    return run

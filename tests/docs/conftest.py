"""The documentation site, built once for the tests that look at it."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
from tests.docs.pages import ROOT

# The trees of all pages stay until the end: a quarter of the time would go into looking for garbage among them.
SPHINX = "import gc, sys; gc.disable(); from sphinx.cmd.build import main; sys.exit(main(sys.argv[1:]))"


@pytest.fixture(scope="session")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of the built site; tutorials are shown without running them, which has tests of its own."""
    folder = tmp_path_factory.mktemp("site")
    options = ["-W", "--keep-going", "-q", "-D", "nb_execution_mode=off", "-c", str(ROOT / "docs")]
    done = subprocess.run(
        [sys.executable, "-c", SPHINX, *options, "-d", str(folder / "cache"), str(ROOT), str(folder / "html")],
        check=False,
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, f"the documentation does not build without warnings:\n{done.stderr[-4000:]}"
    return folder / "html"

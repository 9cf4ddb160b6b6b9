"""The wheels of all packages, built once for a test process."""

from __future__ import annotations

from pathlib import Path

import pytest
from tests.release.packages import build, lacking


@pytest.fixture(scope="session")
def dist(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What `make wheels` writes."""
    if why := lacking("make"):
        pytest.skip(why)
    return build("wheels", tmp_path_factory.mktemp("dist"))

"""The toy workspaces of tests/reprise, for what must hold whatever happens to a run."""

from __future__ import annotations

from tests.reprise.conftest import toys
from tests.reprise.test_units import sweep

__all__ = ["sweep", "toys"]

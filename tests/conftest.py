"""Settings of every test process."""

from __future__ import annotations

import os

# Tests run in parallel processes and on small tensors: one thread each. Set before torch is imported.
os.environ.setdefault("OMP_NUM_THREADS", "1")

from tests.browser.chromium import browser, visit  # noqa: F401 (fixtures)

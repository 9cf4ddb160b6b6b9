"""Settings of every test process, and the order of the files."""

from __future__ import annotations

import gc
import os
from pathlib import Path

import pytest

# Tests run in parallel processes and on small tensors: one thread each. Set before torch is imported.
os.environ.setdefault("OMP_NUM_THREADS", "1")

import beartype  # noqa: F401 (first: behind some of what tests import it fails to load)
from tests import shape_checks
from tests.browser.chromium import browser, visit  # noqa: F401 (fixtures)

shape_checks.install()  # before any of our packages is imported

# Importing all tests and what they test makes millions of objects that stay: looking for garbage among them finds none.
gc.disable()

# Files of few tests that take a minute or more begin first, else one process ends long after the others.
LONG = (
    "release/test_installed.py",
    "tutorials/test_language_models.py",
    "tutorials/test_training_and_claims.py",
    "hardening/test_killed_trainings.py",
    "reprise/test_ray.py",
    "docs/test_site.py",
    "reprise/test_scaffold.py",
    "hardening/test_kills.py",
    "replications/test_task_vectors.py",
    "replications/test_activation_addition.py",
    "replications/test_induction_heads.py",
    "zoo/test_pretraining.py",
    "zoo/test_stories_training.py",
    "steering/test_gguf_files.py",
    "training/vision/test_classification.py",
    "training/rl/test_learning_from_images.py",
    "docs/test_code_blocks.py",
)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    rank = {Path(__file__).parent / name: at for at, name in enumerate(LONG)}
    items.sort(key=lambda item: rank.get(item.path, len(rank)))


def pytest_collection_finish() -> None:
    gc.freeze()  # what is there now is never looked through again
    gc.enable()

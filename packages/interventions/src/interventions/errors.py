"""The error of this package: one line with what was expected, what was found, where, and what to do."""

from __future__ import annotations


class ModelError(RuntimeError):
    """A model that cannot be loaded."""

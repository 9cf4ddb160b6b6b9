"""What can go wrong: each a line that says what was expected, what was found, where, and what to do."""

from __future__ import annotations


class TrainingError(ValueError):
    """Parts, tasks and options that do not fit together; nothing was trained."""


class NonFiniteLoss(RuntimeError):  # noqa: N818 (what happened, not that it is an error)
    """The loss or its gradient became infinite or not a number; the weights are those before the step that failed."""


class CheckpointError(RuntimeError):
    """A checkpoint that cannot be read, or belongs to another run; nothing of the run was changed."""

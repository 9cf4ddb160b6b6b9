"""The errors of this package: one line with what was expected, what was found, where, and what to do."""

from __future__ import annotations


class TaskError(ValueError):
    """A task or a template that cannot be used as it is written."""


class EncodingError(ValueError):
    """A prompt or an answer that the tokenizer or the context of a model does not allow."""

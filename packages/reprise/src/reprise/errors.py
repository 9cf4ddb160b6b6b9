"""The one error that the command line turns into one line and exit code 2."""

from __future__ import annotations


class UserError(Exception):
    """Bad input: the message says what was wrong, where, and what to do."""

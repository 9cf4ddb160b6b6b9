"""The error of this package: one line with what was expected, what was found, where, and what to do."""

from __future__ import annotations

from collections.abc import Sequence


class SteeringError(ValueError):
    """A contrast, a vector or a way of adding it that means nothing, or does not fit the model."""


def check_choice(what: str, found: str, choices: Sequence[str]) -> None:
    """Refuse a name that is none of the choices.

    Raises:
        SteeringError: naming them.
    """
    if found not in choices:
        raise SteeringError(f"{what} {found!r}: expected one of {', '.join(choices)}")

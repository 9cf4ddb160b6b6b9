"""What `reprise doctor` says of one thing that it looked at."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

import msgspec

For = Literal["tiny", "paper", "optional"]
State = Literal["ok", "missing", "warning"]
INSTALL = "run `make .venv/installed`"


class Check(msgspec.Struct, frozen=True, kw_only=True):
    """One thing that was looked at; `remedy` is empty where all is well."""

    what: str
    needed_for: For
    state: State
    found: str
    remedy: str = ""


def of_names(what: str, count: int, absent: Sequence[str], needed_for: For, remedy: str) -> Check:
    return Check(
        what=what,
        needed_for=needed_for,
        state="missing" if absent else "ok",
        found=f"lacks {some(absent)}" if absent else f"{count} installed",
        remedy=remedy if absent else "",
    )


def some(names: Sequence[str]) -> str:
    return ", ".join(names[:4]) + (f" and {len(names) - 4} more" if len(names) > 4 else "")

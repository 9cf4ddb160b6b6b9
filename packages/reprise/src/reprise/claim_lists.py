"""Claims before there is code: read from a table (CSV) that people agreed on, and written as paper.toml writes them.

The table has one row a claim and the columns `id`, `statement`, `where`, `quantity`, `unit`, `provenance`, and, as far
as they apply, `paper_value`, `tiny`, `paper` (the accepted ranges) and `note`. A range reads as it is shown everywhere:
"at least 0.5", "at most 0.1", "0.4 to 0.6".
"""

from __future__ import annotations

import csv
import json
import math
import re
from collections.abc import Iterable, Mapping
from pathlib import Path

import msgspec

from reprise.errors import UserError
from reprise.paper import TIERS, Accept, Claim

NEEDED = ("id", "statement", "where", "quantity", "unit", "provenance")
COLUMNS = (*NEEDED, "paper_value", *TIERS, "note")
_NUMBER = r"([-+]?[\d.]+(?:e[-+]?\d+)?)"
_RANGES = (
    (re.compile(rf"(?:at least|>=)\s*{_NUMBER}"), ("at_least",)),
    (re.compile(rf"(?:at most|<=)\s*{_NUMBER}"), ("at_most",)),
    (re.compile(rf"{_NUMBER}\s*to\s*{_NUMBER}"), ("at_least", "at_most")),
)


def accept(text: str) -> Accept:
    """The range that a text states.

    Raises:
        UserError: if it states none.
    """
    for pattern, ends in _RANGES:
        if found := pattern.fullmatch(" ".join(text.lower().split())):
            try:
                return msgspec.convert(dict(zip(ends, map(float, found.groups()), strict=True)), Accept)
            except (ValueError, msgspec.ValidationError) as error:
                raise UserError(f"range {text!r}: {error}") from error
    raise UserError(f"range {text!r}: expected 'at least 0.5', 'at most 0.1' or '0.4 to 0.6'")


def claim(row: Mapping[str, str]) -> Claim:
    """A claim from texts by column; empty ones are as good as absent.

    Raises:
        UserError: naming the column and what was expected.
    """
    given = {name: " ".join(text.split()) for name, text in row.items() if text and text.strip()}
    if unknown := set(given) - set(COLUMNS):
        raise UserError(f"column {unknown.pop()!r}: expected some of: {', '.join(COLUMNS)}")
    if missing := [name for name in NEEDED if name not in given]:
        raise UserError(f"no {missing[0]}; a claim has: {', '.join(NEEDED)}")
    if bad := [name for name, text in given.items() if not text.isprintable()]:
        raise UserError(f"{bad[0]} {given[bad[0]]!r}: expected printable text")
    fields: dict[str, object] = {name: text for name, text in given.items() if name not in TIERS}
    if "paper_value" in given:
        fields["paper_value"] = number(given["paper_value"])
    fields["accept"] = {
        tier: {name: end for name, end in msgspec.structs.asdict(accept(given[tier])).items() if math.isfinite(end)}
        for tier in TIERS
        if tier in given
    }
    try:
        return msgspec.convert(fields, Claim)
    except msgspec.ValidationError as error:
        raise UserError(str(error)) from error


def number(text: str) -> float:
    """The number of the paper that a text states.

    Raises:
        UserError: if it is none, or not finite.
    """
    try:
        value = float(text)
    except ValueError:
        value = math.nan
    if not math.isfinite(value):
        raise UserError(f"paper_value {text!r}: expected a number, or nothing where the paper gives none")
    return value


def read(path: Path) -> tuple[Claim, ...]:
    """The claims of a CSV file.

    Raises:
        UserError: naming the file and the row.
    """
    try:
        with path.open(encoding="utf-8-sig", newline="") as file:
            reader = csv.DictReader(file, strict=True)
            rows = list(reader)
            columns = len(reader.fieldnames or ())
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise UserError(f"{path}: cannot be read ({error}); expected a CSV file with UTF-8 text") from error
    claims = []
    for place, row in enumerate(rows, 1):
        if None in row or None in row.values():
            raise UserError(f"{path}: row {place}: expected {columns} fields, as in the heading; quote commas")
        try:
            claims.append(claim(row))
        except UserError as error:
            raise UserError(f"{path}: row {place}: {error}") from error
    ids = [one.id for one in claims]
    if twice := [name for name in ids if ids.count(name) > 1]:
        raise UserError(f"{path}: id {twice[0]!r} stands in two rows; claims have names of their own")
    if not claims:
        raise UserError(f"{path}: no claims; expected a heading ({', '.join(COLUMNS)}) and a row for each claim")
    return tuple(claims)


def toml(claims: Iterable[Claim]) -> str:
    """The claims as tables of paper.toml."""
    return "\n".join(_toml(one) for one in claims)


def _toml(one: Claim) -> str:
    lines = ["[[claims]]"]
    for name in ("id", "statement", "where", "provenance", "quantity", "unit"):
        lines.append(f"{name} = {quoted(getattr(one, name))}")
    if one.paper_value is not None:
        lines.append(f"paper_value = {one.paper_value!r}")
    if one.note:
        lines.append(f"note = {quoted(one.note)}")
    ranges = (f"{tier} = {{ {_ends(range_)} }}" for tier, range_ in one.accept.items())
    return "\n".join([*lines, f"accept = {{ {', '.join(ranges)} }}"]) + "\n"


def _ends(range_: Accept) -> str:
    ends = msgspec.structs.asdict(range_)
    return ", ".join(f"{name} = {end!r}" for name, end in ends.items() if math.isfinite(end))


def quoted(text: str) -> str:
    """A TOML basic string; its escapes are those of JSON."""
    return json.dumps(text, ensure_ascii=False)

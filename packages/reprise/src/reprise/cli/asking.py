"""Asking a person in a terminal for what was not given; questions go to standard error."""

from __future__ import annotations

import sys
from collections.abc import Callable
from typing import get_args

import typer

from reprise import claim_lists
from reprise.errors import UserError
from reprise.paper import Claim, Provenance


def can_ask() -> bool:
    return sys.stdin is not None and sys.stdin.isatty()


def ask(question: str, check: Callable[[str], object] = lambda answer: None, default: str | None = None) -> str:
    """One answer, asked for again until `check` raises no UserError; with a default an empty answer means that."""
    while True:
        answer = str(typer.prompt(question, default=default, show_default=bool(default), err=True)).strip()
        try:
            check(answer)
        except UserError as error:
            typer.echo(f"  {error}", err=True)
            continue
        return answer


def ask_claims() -> tuple[Claim, ...]:
    """Claims, one after the other, until an empty id."""
    typer.echo("Claims: what would the paper be wrong about if it were wrong? An empty id ends the list.", err=True)
    claims: list[Claim] = []
    while name := ask(f"claim {len(claims) + 1}: id, such as heads-copy", _new_id(claims), default=""):
        row = {"id": name}
        row["statement"] = ask("  statement, in your own words")
        row["where"] = ask("  where it stands in the paper")
        row["quantity"] = ask("  the quantity that measures it")
        row["unit"] = ask("  its unit", default="1")
        row["paper_value"] = ask("  the paper's number, if it gives one", _number, default="")
        row["provenance"] = ask("  how it is known: read, second-hand, memory", _provenance, default="memory")
        row["tiny"] = ask("  accepted in the tiny tier, such as 'at least 0.5' (empty: not judged)", _range, default="")
        row["paper"] = ask("  accepted in the paper tier (empty: not judged)", _range, default="")
        try:
            claims.append(claim_lists.claim(row))
        except UserError as error:
            typer.echo(f"  {error}; once more", err=True)
    return tuple(claims)


def _new_id(claims: list[Claim]) -> Callable[[str], None]:
    def check(name: str) -> None:
        if name in {one.id for one in claims}:
            raise UserError(f"{name!r} is there already; claims have names of their own")

    return check


def _number(text: str) -> None:
    if text:
        claim_lists.number(text)


def _provenance(text: str) -> None:
    if text not in (known := get_args(Provenance)):
        raise UserError(f"{text!r}: expected one of: {', '.join(known)}")


def _range(text: str) -> None:
    if text:
        claim_lists.accept(text)

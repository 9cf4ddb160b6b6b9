"""Commands that packages add, under the entry point `reprise.commands`.

A command is a plain function. Each of its parameters is an option (`max_new_tokens` is `--max-new-tokens`; without a
default it has to be given, a bool is a flag, a list may be given again and again), and its docstring is the help, with
a line for each option under `Args:`. It returns plain data, {title: [{column: value}]}, which is printed here: as JSON
with `--json`, which every such command has, as tables in a terminal, as text elsewhere. A value may be an interval,
{"estimate": x, "low": x, "high": x}. A parameter `progress` is no option: it gets a function to be called with what is
done and how much there is, for the bar on standard error.

Names are looked up only when a command is none of ours or all are listed, and a package is imported only when its own
command is called: `reprise list` pays for neither.
"""

from __future__ import annotations

import inspect
import re
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Annotated, Any, cast, get_type_hints

import typer
from typer.core import TyperCommand, TyperGroup

if TYPE_CHECKING:  # its import takes a fifth of the time of `reprise list`
    from importlib.metadata import EntryPoint

Cell = str | float | int | bool | Mapping[str, float] | None
Tables = Mapping[str, Sequence[Mapping[str, Cell]]]
Function = Callable[..., Tables]
GROUP, PROGRESS = "reprise.commands", "progress"


class Commands(TyperGroup):
    """Our commands, and those that packages add; ours have the name where both have."""

    def list_commands(self, ctx: Any) -> list[str]:
        own = super().list_commands(ctx)
        return [*own, *(name for name in sorted(_entries()) if name not in own)]

    def get_command(self, ctx: Any, cmd_name: str) -> Any:
        own = super().get_command(ctx, cmd_name)
        if own is not None or (entry := _entries().get(cmd_name)) is None:
            return own
        return _Added(entry)


class _Added(TyperCommand):
    """A command that is imported when it is called; until then its package's summary says what it does."""

    def __init__(self, entry: EntryPoint) -> None:
        about = entry.dist.metadata["Summary"] if entry.dist else ""
        super().__init__(entry.name, help=about, rich_markup_mode=None)
        self.entry = entry

    def make_context(self, info_name: str | None, args: list[str], parent: Any = None, **extra: Any) -> Any:
        command: Any = as_command(self.entry.name, cast(Function, self.entry.load()))
        return command.make_context(info_name, args, parent=parent, **extra)


def as_command(name: str, function: Function) -> Any:
    """The command that a function describes; see the module's docstring."""
    about, of_options = _documented(inspect.getdoc(function) or "")
    hints = get_type_hints(function)
    parameters = [
        parameter.replace(
            kind=inspect.Parameter.KEYWORD_ONLY,
            annotation=Annotated[
                hints[known],
                typer.Option(_flag(known), help=of_options.get(known), metavar=_metavar(hints[known])),
            ],
        )
        for known, parameter in inspect.signature(function).parameters.items()
        if known != PROGRESS
    ]
    as_json = inspect.Parameter(
        "as_json",
        inspect.Parameter.KEYWORD_ONLY,
        default=False,
        annotation=Annotated[bool, typer.Option("--json", help="Print JSON.")],
    )

    def call(as_json: bool, **given: Any) -> None:
        from reprise.cli.output import print_json, print_records, progress_of

        if PROGRESS in hints:
            with progress_of(name) as bar:
                found = function(**given, progress=bar.within)
        else:
            found = function(**given)
        print_json(found) if as_json else print_records(found)

    call.__dict__["__signature__"] = inspect.Signature([*parameters, as_json])
    app = typer.Typer(add_completion=False, pretty_exceptions_enable=False, rich_markup_mode=None)
    app.command(name, help=about)(call)
    return typer.main.get_command(app)


def _entries() -> dict[str, EntryPoint]:
    from importlib.metadata import entry_points

    return {entry.name: entry for entry in entry_points(group=GROUP)}


def _flag(name: str) -> str:
    return "--" + name.replace("_", "-")


def _metavar(hint: Any) -> str | None:
    """What is to be given for a list: one of its elements."""
    found = re.search(r"list\[(?:\w+\.)*(\w+)\]", str(hint))
    return f"<{found[1].lower()}>" if found else None


def _documented(text: str) -> tuple[str, dict[str, str]]:
    """A docstring's beginning, and what its section `Args:` says of each parameter."""
    about, _, rest = text.partition("\nArgs:\n")
    section = re.split(r"\n(?=\S)", rest, maxsplit=1)[0]
    found = re.findall(r"^    (\w+): (.*(?:\n {5,}.*)*)", section, flags=re.MULTILINE)
    return about.split("\nRaises:\n")[0].strip(), {name: " ".join(words.split()) for name, words in found}

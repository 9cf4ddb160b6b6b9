"""What the commands print: tables, JSON, progress."""

from __future__ import annotations

import sys
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import msgspec

from reprise.claims import ClaimResult
from reprise.tables import interval, number

if TYPE_CHECKING:
    from reprise.run import Progress

PIPED = 150  # columns of a table that goes to a file or another program
VERDICT_STYLE = {"supported": "green", "refuted": "red", "inconclusive": "yellow", "not run": "dim"}


def print_json(value: Any) -> None:
    sys.stdout.write(msgspec.json.format(msgspec.json.encode(value), indent=2).decode() + "\n")


def print_table(title: str, columns: Sequence[str], rows: Iterable[Sequence[str]], numeric: Sequence[str] = ()) -> None:
    """A table whose cells break between words, and within them only where the window is narrower than the words."""
    from rich import box
    from rich.console import Console
    from rich.table import Table

    cells = list(rows)
    console = Console()
    if not console.is_terminal:
        console = Console(width=PIPED)
    shown = [[_plain(name), *(_plain(row[at]) for row in cells)] for at, name in enumerate(columns)]
    words = [max((len(word) for cell in column for word in cell.split()), default=0) for column in shown]
    fits = sum(words) + 2 * len(words) <= console.width
    table = Table(title=title or None, title_justify="left", box=box.SIMPLE_HEAD, pad_edge=False)
    for name, column, longest in zip(columns, shown, words, strict=True):
        whole = fits and max(map(len, column)) == longest
        table.add_column(name, justify="right" if name in numeric else "left", overflow="fold", no_wrap=whole)
    for row in cells:
        table.add_row(*row)
    console.print(table)


def print_records(tables: Mapping[str, Sequence[Mapping[str, Any]]]) -> None:
    """Tables of a command that a package added, each under its title.

    Outside a terminal a table that would be too wide, or has several lines in a cell, is written row by row instead, a
    line `column: value` for each cell: nothing is cut or folded that another program might read.
    """
    from rich.console import Console
    from rich.markup import escape

    for title, rows in tables.items():
        columns = list(dict.fromkeys(column for row in rows for column in row))
        cells = [[_cell(row.get(column)) for column in columns] for row in rows]
        widths = [max(map(len, column)) for column in zip(columns, *cells, strict=True)]
        broken = any("\n" in cell for row in cells for cell in row)
        if not Console().is_terminal and (broken or sum(widths) + 2 * len(widths) > PIPED):
            of_rows = ("\n".join(map(": ".join, zip(columns, row, strict=True))) for row in cells)
            sys.stdout.write(f"{title}\n\n" + "\n\n".join(of_rows) + "\n\n")
            continue
        numeric = [name for name in columns if all(isinstance(row.get(name), int | float) for row in rows)]
        print_table(escape(title), columns, [[escape(cell) for cell in row] for row in cells], numeric)


def print_claims(rows: Iterable[ClaimResult], seeds: Sequence[int] = ()) -> None:
    """The claim table: verdicts beside the paper's number; with the seed of each row where they are given.

    Which paper a row is of is said where there are several.
    """
    from rich.markup import escape

    rows = list(rows)
    several = len({row.paper for row in rows}) > 1
    print_table(
        "",
        (
            *(("paper",) if several else ()),
            "tier",
            *(("seed",) if seeds else ()),
            "claim",
            "verdict",
            "estimate",
            "95 % interval",
            "n",
            "unit",
            "the paper's",
        ),
        (
            (
                *((row.paper,) if several else ()),
                row.tier,
                *((str(seeds[at]),) if seeds else ()),
                escape(row.claim),
                f"[{VERDICT_STYLE[row.verdict]}]{row.verdict}[/]",
                number(row.estimate),
                escape(interval(row)),
                str(row.n if row.n is not None else "-"),
                escape(row.unit),
                f"{number(row.paper_value)} ({row.provenance})" if row.paper_value is not None else "figure",
            )
            for at, row in enumerate(rows)
        ),
        numeric=("seed", "estimate", "n"),
    )


@contextmanager
def progress_of(title: str) -> Iterator[Progress]:
    """A progress bar on standard error: one line a stage, a bar for the one that runs."""
    from rich.console import Console
    from rich.markup import escape
    from rich.progress import BarColumn, TextColumn, TimeElapsedColumn
    from rich.progress import Progress as Bars

    from reprise.run import Progress

    console = Console(stderr=True)
    bars = Bars(
        TextColumn("[bold]{task.fields[title]}[/] {task.description}"),
        BarColumn(bar_width=30),
        TimeElapsedColumn(),
        console=console,
        transient=True,
        disable=not console.is_terminal,
    )
    with bars:
        task = bars.add_task("", total=None, title=escape(title))

        def stage(label: str, state: str) -> None:
            if state == "running":
                bars.reset(task, total=None, description=escape(label))
            if state != "running" or not console.is_terminal:
                console.print(f"{title}: {label}: {state}", markup=False, highlight=False, soft_wrap=True)

        yield Progress(stage=stage, within=lambda done, total: bars.update(task, completed=done, total=total))


def _plain(cell: str) -> str:
    from rich.text import Text

    return Text.from_markup(cell).plain


def _cell(value: Any) -> str:
    if isinstance(value, Mapping):
        return f"{number(value['estimate'])} [{number(value['low'])}, {number(value['high'])}]"
    return number(value) if value is None or isinstance(value, float) else str(value)

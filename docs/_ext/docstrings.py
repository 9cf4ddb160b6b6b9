"""The docstrings of this project as reStructuredText: what autodoc reads of them is what a reader of the code sees.

Docstrings here are plain text: names stand in single backticks, equations are indented, a few hold a table of pipes,
and sections such as `Args:` are Google's, which Napoleon reads afterwards. So three things are translated and
everything else is escaped: `x` becomes a literal, an indented block a literal block (an equation is shown as it is
written), a table a list-table.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from sphinx.application import Sphinx

SECTION = re.compile(r"(Args|Attributes|Raises|Returns|Yields):")
OPENS = re.compile(r"(^|[\s'\"(\[{<\-/:])$")
CLOSES = re.compile(r"$|[\s'\")\]}>\-/\\:.,;!?]")
BEFORE_NAPOLEON = 400


def setup(app: Sphinx) -> dict[str, Any]:
    app.connect("autodoc-process-docstring", translate, priority=BEFORE_NAPOLEON)
    return {"parallel_read_safe": True}


def translate(app: Sphinx, what: str, name: str, obj: object, options: object, lines: list[str]) -> None:
    """Autodoc's event: `lines` is changed in place."""
    lines[:] = to_rst(lines)


def to_rst(lines: list[str]) -> list[str]:
    """A docstring, its common indentation removed, in reStructuredText with Google's sections as they were."""
    made: list[str] = []
    text: list[str] = []
    section = False

    def flush() -> None:
        made.extend(inline("\n".join(text)).split("\n") if text else [])
        text.clear()

    at = 0
    while at < len(lines):
        line = lines[at]
        if line and not line.startswith(" "):
            section = SECTION.fullmatch(line) is not None
        starts_block = not section and (at == 0 or not lines[at - 1].strip())
        if starts_block and line.startswith("    "):
            block, at = _take(lines, at, lambda row: not row.strip() or row.startswith("    "))
            flush()
            made += [*_as_it_is(block), ""]
        elif starts_block and line.startswith("|"):
            block, at = _take(lines, at, lambda row: row.startswith("|"))
            flush()
            made += [*_table(block), ""]
        else:
            text.append(line)
            at += 1
    flush()
    return made


def inline(text: str) -> str:
    """`x` as a literal; everything else escaped, so that an asterisk or a bar is itself."""
    pieces = re.split(r"`([^`]+)`", text)
    made = [_escaped(pieces[0])]
    for literal, after in zip(pieces[1::2], pieces[2::2], strict=True):
        # Around a literal reStructuredText wants spaces or punctuation: an escaped space is one that is not shown.
        before = "" if OPENS.search(made[-1]) else "\\ "
        made.append(f"{before}``{literal}``" + ("" if CLOSES.match(after) else "\\ ") + _escaped(after))
    return "".join(made)


def _escaped(text: str) -> str:
    return re.sub(r"[\\*|`]|(?<=\w)_(?!\w)", lambda found: "\\" + found[0], text)


def _take(lines: list[str], at: int, belongs: Any) -> tuple[list[str], int]:
    """The lines from `at` on that belong together, without blank ones at their end, and where they end."""
    end = at
    while end < len(lines) and belongs(lines[end]):
        end += 1
    block = lines[at:end]
    while block and not block[-1].strip():
        block.pop()
    return block, end


def _as_it_is(block: list[str]) -> list[str]:
    return [".. code-block:: none", "", *("    " + row for row in block)]


def _table(rows: list[str]) -> list[str]:
    cells = [[cell.strip() for cell in re.split(r"(?<!\\)\|", row.strip().strip("|"))] for row in rows]
    if len(cells) < 2 or not all(set(cell) <= set("-: ") for cell in cells[1]):
        return _as_it_is(rows)
    made = [".. list-table::", "   :header-rows: 1", ""]
    for row in (cells[0], *cells[2:]):
        made += [("   * - " if i == 0 else "     - ") + inline(cell) for i, cell in enumerate(row)]
    return made

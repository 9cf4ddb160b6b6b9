"""Sections of other files in a page, so that what stands in a README or in CONTRIBUTING.md is not written twice.

    ```{section} ../packages/circuits/README.md
    Speed
    ```

stands for everything below the heading "Speed" of that file, up to the next heading of its level or above. Links and
pictures in it are turned so that they hold from the page.
"""

from __future__ import annotations

import os
import re
from pathlib import Path

FENCE = re.compile(r"^```\{section\} (\S+)\n(.+?)\n```$", flags=re.MULTILINE)
TARGET = re.compile(r"(\]\()([^)\s#:]+)(#[^)\s]*)?(\))")


def expanded(text: str, page: Path) -> str:
    """A page's text with its `section` fences filled in.

    Raises:
        LookupError: there is no such file, or no such heading in it.
    """

    def filled(found: re.Match[str]) -> str:
        path = page.parent / found[1]
        if not path.is_file():
            raise LookupError(f"{page}: {found[1]}: no such file; a section is named by a path from the page")
        return moved(section(path.read_text(encoding="utf-8"), found[2], path), path.parent, page.parent)

    return FENCE.sub(filled, text)


def section(text: str, title: str, path: Path) -> str:
    """What stands below a heading, up to the next of its level or above; code that looks like one is none.

    Raises:
        LookupError: no heading has this title.
    """
    level, taken, code = 0, [], False
    for line in text.splitlines():
        code ^= line.startswith("```")
        heading = None if code else re.fullmatch(r"(#+) +(.+?) *", line)
        if level and heading and len(heading[1]) <= level:
            break
        if level:
            taken.append(line)
        elif heading and heading[2] == title:
            level = len(heading[1])
    if not level:
        raise LookupError(f"{path}: no heading {title!r}, which a page of the documentation shows; rename it in both")
    return "\n".join(taken).strip("\n")


def moved(text: str, origin: Path, to: Path) -> str:
    """Text whose relative links hold from another folder."""

    def turned(found: re.Match[str]) -> str:
        return f"{found[1]}{os.path.relpath(origin / found[2], to)}{found[3] or ''}{found[4]}"

    return TARGET.sub(turned, text)

"""The pages of Markdown of this project, and the blocks of code in them."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
NAMES = ("CHANGELOG.md", "CONTRIBUTING.md", "README.md")
GLOBS = ("docs/**/*.md", "packages/*/README.md", "replications/*/README.md", "shared/**/README.md")
NOT_RUN = re.compile(r"<!-- not run: (\S.*) -->")


@dataclass(frozen=True)
class Block:
    """A block of code: `line` is that of its first line; `not_run` is the reason in the comment in front of it."""

    language: str
    code: str
    line: int
    not_run: str


def pages() -> list[Path]:
    """Every page, as a path from the root."""
    found = [path for name in NAMES if (path := ROOT / name).is_file()]
    found += [path for pattern in GLOBS for path in sorted(ROOT.glob(pattern))]
    return [path.relative_to(ROOT) for path in found]


def blocks(page: Path) -> list[Block]:
    """The fenced blocks of a page, also those in lists; of any language, "" where none is named."""
    found, before, opened = [], "", None
    for number, line in enumerate((ROOT / page).read_text(encoding="utf-8").splitlines(), start=1):
        fence = re.match(r"( *)(`{3,})(.*)", line)
        if opened is None and fence:
            reason = NOT_RUN.fullmatch(before.strip())
            opened, language, start = fence, fence[3].strip(), number + 1
            code: list[str] = []
            not_run = reason[1] if reason else ""
        elif opened is not None and fence and fence[2] == opened[2] and not fence[3].strip():
            found.append(Block(language, "\n".join(code) + "\n", start, not_run))
            opened = None
        elif opened is not None:
            code.append(line.removeprefix(opened[1]))
        before = line if line.strip() else before
    assert opened is None, f"{page}:{start}: this block of code does not end"
    return found


def prose(page: Path) -> str:
    """A page's text without its blocks of code and its front matter; lines keep their numbers."""
    text = (ROOT / page).read_text(encoding="utf-8")
    text = re.sub(r"\A---\n.*?\n---\n", lambda found: "\n" * found[0].count("\n"), text, flags=re.DOTALL)
    blank = re.compile(r"^( *)(`{3,})[^`\n]*\n.*?^ *\2 *$", flags=re.DOTALL | re.MULTILINE)
    return blank.sub(lambda found: "\n" * found[0].count("\n"), text)

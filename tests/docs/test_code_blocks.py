"""Every block of Python in the pages runs as it stands, those of a page in order and in one namespace.

A block with a comment `<!-- not run: REASON -->` in front of it is compiled, and what it imports is looked for.
"""

from __future__ import annotations

import ast
import importlib.util
import math
import re
from pathlib import Path
from typing import Any

import pytest
from tests.docs.pages import ROOT, Block, blocks, pages

PYTHON = {page: found for page in pages() if (found := [block for block in blocks(page) if block.language == "python"])}
EXTRAS = ("gymnasium", "nnsight", "sklearn")


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Where a page's code runs: the shipped models and data are there, and what it writes harms nothing."""
    (tmp_path / "shared").symlink_to(ROOT / "shared")
    monkeypatch.chdir(tmp_path)
    return tmp_path


def run(page: Path) -> dict[str, Any]:
    """The namespace after a page's blocks."""
    names: dict[str, Any] = {"__name__": "page"}
    for block in PYTHON[page]:
        # Lines are those of the page, so that a traceback points there.
        code = compile("\n" * (block.line - 1) + block.code, str(ROOT / page), "exec")
        imports_exist(code_of(block), page)
        if not block.not_run:
            exec(code, names)
    return names


def code_of(block: Block) -> ast.Module:
    return ast.parse(block.code)


def imports_exist(tree: ast.Module, page: Path) -> None:
    for node in ast.walk(tree):
        names = [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
        names += [str(node.module)] if isinstance(node, ast.ImportFrom) else []
        for name in names:
            assert importlib.util.find_spec(name) is not None, f"{page}: import {name}: there is no such module"


@pytest.mark.parametrize("page", [page for page in PYTHON if page.name != "accuracy.md"], ids=str)
def test_the_code_of_a_page_runs(page: Path, folder: Path) -> None:
    for extra in EXTRAS:
        pytest.importorskip(extra)
    names = run(page)
    if page == Path("docs/tour.md"):  # what its text says came out
        assert names["judge"](names["measured"], names["Accept"](at_least=0.6)) == "inconclusive"
        assert names["rise"][names["layer"], names["head"]] > 2 * names["rise"].median()
        assert names["restored"].top(1)[0][1] > 1


def test_the_table_of_accuracy_is_what_its_code_prints(folder: Path) -> None:
    page = Path("docs/accuracy.md")
    text = (ROOT / page).read_text(encoding="utf-8")
    shown = re.findall(r"^\| (\w+) \| (\w+) \| (\S+) \| (\S+) \| (\S+) \| (\S+) \|$", text, flags=re.MULTILINE)
    measured = run(page)["table"]
    assert [tuple(row[:2]) for row in measured] == [row[:2] for row in shown]
    for row, told in zip(measured, shown, strict=True):
        # Another build of torch rounds differently: to a small factor, or to nothing at all in float64.
        for now, then in zip(map(float, row[2:]), map(float, told[2:]), strict=True):
            assert max(now, then) < 1e-6 or math.isclose(math.log(now), math.log(then), abs_tol=math.log(4)), row


def test_blocks_are_left_out_for_a_reason_only() -> None:
    """Few, and no page's only one: a page without code that runs teaches nothing that is checked."""
    left_out = [(page, block.line, block.not_run) for page, found in PYTHON.items() for block in found if block.not_run]
    assert len(left_out) <= 3, left_out
    assert len(PYTHON) >= 16


def test_a_block_that_fails_is_noticed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    page = tmp_path / "page.md"
    page.write_text("Text.\n\n```python\nx = 1\n```\n\n```python\nassert x == 2\n```\n")
    monkeypatch.setitem(PYTHON, page, blocks(page))
    with pytest.raises(AssertionError) as raised:
        run(page)
    assert raised.traceback[-1].lineno + 1 == 8
    page.write_text("<!-- not run: needs a GPU -->\n```python\nassert False\n```\n")
    monkeypatch.setitem(PYTHON, page, blocks(page))
    assert "x" not in run(page)
    page.write_text("<!-- not run: needs a GPU -->\n```python\nimport no_such_package\n```\n")
    monkeypatch.setitem(PYTHON, page, blocks(page))
    with pytest.raises(AssertionError, match="import no_such_package: there is no such module"):
        run(page)

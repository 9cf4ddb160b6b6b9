"""Commands in the pages are commands that there are: `reprise` with its options, and targets of the Makefile.

Every line of a block without a language, or of a shell's, that begins with `reprise` or `make` is parsed by the real
parser; the cheap ones run. In running text the command's name alone is checked.
"""

from __future__ import annotations

import itertools
import re
import shlex
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from tests.docs.pages import ROOT, blocks, pages, prose

SHELLS = ("", "sh", "bash", "console")
TARGETS = set(re.findall(r"^([\w-]+):(?!=)", (ROOT / "Makefile").read_text(encoding="utf-8"), flags=re.MULTILINE))
# Commands that read only, within a second or two.
CHEAP = {("bench",), ("list",), ("show", "induction_heads"), ("train", "attn-only-2l", "--help")}
PAPERS = {folder.parent.name for folder in ROOT.glob("replications/*/paper.toml")}
OF_PAPERS = ("accept", "figures", "run", "show", "verify")


def commands(page: Path) -> list[tuple[int, list[str]]]:
    """Line numbers and words of the commands of a page's blocks; behind two spaces stands what it does."""
    found = []
    for block in blocks(page):
        for number, line in enumerate(block.code.splitlines(), block.line) if block.language in SHELLS else ():
            for command in line.removeprefix("$ ").split("&&"):
                words = shlex.split(re.split(r" {2,}", command.strip())[0], comments=True)
                if words and Path(words[0]).name in ("make", "reprise"):
                    found.append((number, [Path(words[0]).name, *words[1:]]))
    return found


COMMANDS = [(page, line, words) for page in pages() for line, words in commands(page)]


@pytest.fixture(scope="module")
def group() -> Any:
    from typer.main import get_command

    from reprise import cli

    cli._register()
    return get_command(cli.app)


def parse(group: Any, words: list[str]) -> None:
    """Raises what the command line raises for words that it does not know."""
    top = group.make_context("reprise", [], resilient_parsing=True)
    command = group.get_command(top, words[0])
    assert command is not None, f"reprise {words[0]}: there is no such command"
    if "--help" in words:
        return
    given = command.make_context(words[0], list(words[1:]), parent=top).params
    assert given.get("tier") in (None, "tiny", "paper"), f"--tier {given['tier']}"
    if words[0] in OF_PAPERS:
        named = [word for word in itertools.takewhile(lambda word: word[0] != "-", words[1:]) if not word.isupper()]
        assert set(named) <= PAPERS, f"reprise {' '.join(words)}: there is no such paper"


@pytest.mark.parametrize(
    ("page", "line", "words"),
    [pytest.param(*row, id=f"{row[0]}:{row[1]}") for row in COMMANDS if row[2][0] == "reprise"],
)
def test_commands_parse(page: Path, line: int, words: list[str], group: Any) -> None:
    parse(group, words[1:])


def test_targets_are_in_the_makefile() -> None:
    asked = {(str(page), word) for page, _, words in COMMANDS if words[0] == "make" for word in words[1:]}
    asked = {(page, word) for page, word in asked if "=" not in word}
    assert len(asked) > 2
    assert {word for _, word in asked} <= TARGETS | {".venv/installed"}, asked


def test_names_in_running_text(group: Any) -> None:
    known = set(group.list_commands(group.make_context("reprise", [], resilient_parsing=True)))
    for page in pages():
        for program, name in re.findall(r"`(?:\.venv/bin/)?(reprise|make) ([\w-]+)[^`]*`", prose(page)):
            assert name in (known if program == "reprise" else TARGETS), f"{page}: `{program} {name}`"


@pytest.mark.parametrize("words", sorted(CHEAP), ids=" ".join)
def test_the_cheap_ones_run(words: tuple[str, ...]) -> None:
    assert any(tuple(told[1:]) == words for _, _, told in COMMANDS), "no page has this command any more: take it out"
    program = Path(sys.executable).with_name("reprise")
    done = subprocess.run([program, *words], cwd=ROOT, check=False, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
    assert len(done.stdout.splitlines()) > 3


def test_what_is_wrong_is_noticed(group: Any) -> None:
    with pytest.raises(AssertionError, match="no such command"):
        parse(group, ["walk"])
    with pytest.raises(Exception, match="No such option"):
        parse(group, ["run", "induction_heads", "--no-such-option"])
    with pytest.raises(AssertionError, match="huge"):
        parse(group, ["run", "induction_heads", "--tier", "huge"])
    with pytest.raises(AssertionError, match="no such paper"):
        parse(group, ["run", "induction_tails", "--tier", "tiny"])

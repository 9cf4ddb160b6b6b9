"""Commands that packages add: options from a plain function, and nothing imported before the call."""

from __future__ import annotations

import importlib.metadata
import json
import subprocess
import sys
from collections.abc import Callable
from importlib.metadata import EntryPoint
from pathlib import Path
from types import SimpleNamespace
from typing import Any, ClassVar

import pytest

from reprise import UserError
from reprise.cli import added, main

Call = Callable[..., tuple[int, str, str]]
TOLD: list[dict[str, Any]] = []


def greet(
    name: str,
    times: list[int],
    loud: bool = False,
    out_file: Path | None = None,
    factor: float = 1.5,
    progress: Callable[[int, int], None] = lambda done, total: None,
) -> dict[str, list[dict[str, Any]]]:
    """Greet somebody.

    More than once, if need be.

    Args:
        name: Who; a long line goes on
            in the next one.
        times: How often; may be given again.
        out_file: A file.

    Raises:
        UserError: nobody is there.
    """
    if name == "nobody":
        raise UserError("nobody is there:\nexpected somebody")
    progress(1, 2)
    TOLD.append({"name": name, "times": times, "loud": loud, "out_file": out_file, "factor": factor})
    rows = [{"name": name, "n": n, "x": factor * n, "over": {"estimate": 0.5, "low": 0.25, "high": 1.0}} for n in times]
    return {"greetings": rows, "[notes]": [{"text": "a [b] c", "nothing": None}]}


class Entry(EntryPoint):
    """An entry point of a package that is not installed."""

    dist: ClassVar[Any] = SimpleNamespace(metadata={"Summary": "Greets. And more."})
    loaded: ClassVar[list[str]] = []

    def load(self) -> Any:
        self.loaded.append(self.name)
        return {"greet": greet, "list": greet}[self.name]


@pytest.fixture
def call(monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]) -> Call:
    """The command line, with the command greet, and another one whose name is taken."""
    entries = tuple(Entry(name, "nowhere:at_all", added.GROUP) for name in ("greet", "list"))
    monkeypatch.setattr(
        importlib.metadata, "entry_points", lambda group: entries if group == "reprise.commands" else ()
    )
    TOLD.clear()
    Entry.loaded.clear()

    def call(*arguments: str) -> tuple[int, str, str]:
        monkeypatch.setattr(sys, "argv", ["reprise", *arguments])
        capfd.readouterr()
        with pytest.raises(SystemExit) as exit_:
            main()
        captured = capfd.readouterr()
        return int(exit_.value.code or 0), captured.out, captured.err

    return call


def test_parameters_are_options(call: Call) -> None:
    code, out, err = call(
        "greet", "--name", "Anna", "--times", "2", "--times", "3", "--loud", "--out-file", "x/y", "--json"
    )
    assert (code, err) == (0, "")
    assert [{"name": "Anna", "times": [2, 3], "loud": True, "out_file": Path("x/y"), "factor": 1.5}] == TOLD
    shown = json.loads(out)
    assert list(shown) == ["greetings", "[notes]"]
    assert shown["greetings"][1] == {
        "name": "Anna",
        "n": 3,
        "x": 4.5,
        "over": {"estimate": 0.5, "low": 0.25, "high": 1},
    }


def test_tables_are_printed_whole(call: Call) -> None:
    code, out, _ = call("greet", "--name", "Anna", "--times", "2", "--factor", "0.25")
    assert code == 0
    lines = [line.split() for line in out.splitlines()]
    assert ["Anna", "2", "0.5", "0.5", "[0.25,", "1]"] in lines
    assert ["[notes]"] in lines, "square brackets are no markup"
    assert ["a", "[b]", "c", "-"] in lines


@pytest.mark.parametrize("name", ["two\nlines", "wide " * 40])
def test_what_does_not_fit_a_table_is_written_row_by_row(call: Call, name: str) -> None:
    _, out, _ = call("greet", "--name", name, "--times", "2", "--times", "3")
    assert out.startswith(f"greetings\n\nname: {name}\nn: 2\nx: 3\nover: 0.5 [0.25, 1]\n\nname: {name}\nn: 3\n")


def test_help_is_the_docstring(call: Call) -> None:
    code, out, err = call("greet", "--help")
    assert (code, err) == (0, "")
    text = " ".join(out.split())
    assert "Greet somebody. More than once, if need be. Options:" in text
    assert "--name <str> Who; a long line goes on in the next one. [required]" in text
    assert "--times <int> How often; may be given again. [required]" in text
    assert "--out-file <path> A file." in text
    assert "--json Print JSON." in text
    assert "--progress" not in text
    assert "Raises" not in text


def test_a_command_is_imported_when_it_is_called_and_not_before(call: Call) -> None:
    code, out, _ = call("--help")
    assert (code, Entry.loaded) == (0, [])
    assert "greet    Greets." in out
    assert out.count("\n  list ") == 1, "ours has the name where both have"
    call("greet", "--name", "Anna", "--times", "1")
    assert Entry.loaded == ["greet"]


def test_names_are_not_looked_up_for_commands_of_ours(call: Call, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(group: str) -> tuple[EntryPoint, ...]:
        raise AssertionError(f"{group} looked up")

    monkeypatch.setattr(importlib.metadata, "entry_points", refuse)
    assert call("show", "--help")[0] == 0


@pytest.mark.parametrize(
    ("arguments", "parts"),
    [
        (("greet", "--times", "1"), ("--name",)),
        (("greet", "--name", "Anna", "--times", "x"), ("--times", "integer")),
        (("greet", "--name", "Anna", "--times", "1", "--progress", "1"), ("--progress",)),
        (("greet", "--name", "nobody", "--times", "1"), ("nobody is there: expected somebody",)),
        (("gret",), ("gret",)),
    ],
)
def test_bad_input_gets_one_line(call: Call, arguments: tuple[str, ...], parts: tuple[str, ...]) -> None:
    code, out, err = call(*arguments)
    assert (code, out, err.count("\n")) == (2, "", 1)
    for part in parts:
        assert part in err


INSTALLED = """
import sys
sys.argv = ["reprise", "--help"]
from reprise.cli import main
try:
    main()
finally:
    print(sorted({"torch", "numpy", "steering"} & sys.modules.keys()), file=sys.stderr)
"""


def test_listing_the_installed_commands_imports_none() -> None:
    names = [entry.name for entry in importlib.metadata.entry_points(group=added.GROUP)]
    finished = subprocess.run([sys.executable, "-c", INSTALLED], capture_output=True, text=True, check=True)
    assert finished.stderr == "[]\n"
    assert all(f"\n  {name} " in finished.stdout for name in names)

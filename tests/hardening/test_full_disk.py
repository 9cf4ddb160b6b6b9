"""No place left, or no folder to write to: one line that says where, nothing half-written, and what was there stays.

The disk is full by a limit on the size of files (`ulimit -f`), at which writes fail as on a disk that took a part.
"""

from __future__ import annotations

import re
import resource
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from tests.reprise.test_units import invoke

if TYPE_CHECKING:
    from tests.reprise.conftest import Toys


@contextmanager
def room(n_bytes: int) -> Iterator[None]:
    """Inside, no file can be written beyond so many bytes."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (n_bytes, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)


def refused(*command: str) -> str:
    """What a command says that ends with code 2: one line."""
    code, said = invoke(*command)
    last = said.splitlines()[-1]
    assert (code, last[:7]) == (2, "error: "), said
    assert "Traceback" not in said
    return last


def files(folder: Path) -> dict[Path, bytes]:
    """All files but locks and what Python keeps."""
    every = (path for path in folder.rglob("*") if path.is_file() and path.suffix not in (".lock", ".pyc"))
    return {path: path.read_bytes() for path in every if path.name != ".lock"}


@pytest.fixture
def made(toys: Toys, monkeypatch: pytest.MonkeyPatch) -> Toys:
    """The toy workspace after a run that was drawn, reported and accepted."""
    monkeypatch.delenv("TOYS_LOG")
    for command in (("run", "toys"), ("figures", "toys"), ("report",), ("accept", "toys")):
        assert invoke(*command)[0] == 0
    return toys


COMMANDS: dict[tuple[str, ...], tuple[str, tuple[int, ...]]] = {
    ("run", "toys", "--fresh"): (
        r"numbers/result\.safetensors: cannot be written \(File too large\); free",
        (0, 300, 900),
    ),
    ("figures", "toys"): (r"figures/numbers\.(svg|png): cannot be written \(File too large\); free", (0, 20_000)),
    ("report",): (r"build/report: cannot be written \(File too large\)", (0, 8_000)),
    ("accept", "toys"): (r"results/tiny/figures: cannot be written \(.*File too large.*\); free", (0, 20_000)),
    ("new", "another", "--title", "T", "--owner", "@a"): (
        r"README\.md: cannot be written \(File too large\); free",
        (0,),
    ),
}


@pytest.mark.parametrize("command", COMMANDS, ids=" ".join)
def test_on_a_full_disk_all_stays_as_it_was(made: Toys, command: tuple[str, ...]) -> None:
    says, sizes = COMMANDS[command]
    before = files(made.root)
    for size in sizes:
        with room(size):
            said = refused(*command)
        assert re.search(says, said), said
        assert files(made.root) == before
    assert invoke(*command)[0] == 0


def test_a_training_on_a_full_disk_is_refused_in_one_line(toys: Toys, monkeypatch: pytest.MonkeyPatch) -> None:
    import torch

    from zoo import catalogue

    def train(_: object, name: str, out: Path, *rest: object) -> Path:
        with (out / "training.pt").open("wb") as file:
            torch.save(torch.zeros(100_000), file)
        return out

    monkeypatch.setattr(catalogue._Catalogue, "train", train)
    with room(5_000):
        assert "File too large; free some space" in refused("train", "attn-only-0l", "--out", "model")
    assert invoke("train", "attn-only-0l", "--out", "model")[0] == 0


def test_output_that_cannot_be_written(toys: Toys) -> None:
    import subprocess
    import sys

    for command in (["list"], ["list", "--json"]):
        with Path("/dev/full").open("w") as full:
            program = [sys.executable, "-c", "from reprise.cli import main; main()", *command]
            ended = subprocess.run(program, stdout=full, stderr=subprocess.PIPE, text=True, check=False)
        assert ended.returncode == 2
        assert (
            ended.stderr
            == "error: output: No space left on device; free some space, check permissions or write elsewhere\n"
        )


def a_file(path: str) -> Callable[[Path], None]:
    def make(root: Path) -> None:
        (root / path).parent.mkdir(parents=True, exist_ok=True)
        (root / path).write_text("mine")

    return make


@pytest.mark.parametrize(
    ("path", "command"),
    [
        ("out", ("run", "toys", "--out", "out")),
        ("out", ("run", "toys", "--out", "out/deeper/still")),
        ("build/results", ("run", "toys")),
        ("build/results/toys/tiny/numbers", ("run", "toys")),
        ("out", ("report", "--out", "out")),
        ("build/report", ("report",)),
        ("out", ("train", "attn-only-0l", "--out", "out")),
        ("tests", ("new", "another", "--title", "T", "--owner", "@a")),
    ],
)
def test_a_file_where_a_folder_should_be(toys: Toys, path: str, command: tuple[str, ...]) -> None:
    a_file(path)(toys.root)
    assert Path(path).name in refused(*command)
    assert (toys.root / path).read_text() == "mine"


@pytest.mark.parametrize(
    ("path", "command"),
    [("build/results/toys/tiny/figures", ("figures", "toys")), ("replications/toys/results", ("accept", "toys"))],
)
def test_a_file_where_figures_should_be(toys: Toys, path: str, command: tuple[str, ...]) -> None:
    assert invoke("run", "toys")[0] == 0
    a_file(path)(toys.root)
    assert path in refused(*command)
    assert (toys.root / path).read_text() == "mine"

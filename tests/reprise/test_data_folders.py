"""`--data`: the folder's content counts as input, its results stay apart, and a bad one gets one line."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pytest

from reprise import UserError, data_folders, workspace
from reprise.cli import main
from reprise.experiment import Results, load_experiment
from reprise.run import Request, run

if TYPE_CHECKING:
    from tests.reprise.conftest import Toys

STAGES = ["numbers", "scaled one", "scaled two", "summary"]
READS_ITS_DATA = """
    offset = float(((job.data or job.root / "shared") / "offset.txt").read_text())"""


@pytest.fixture
def taking(toys: Toys) -> Toys:
    """The toy paper, which reads its offset from the folder that is given."""
    toys.edit('\n    offset = float((job.root / "shared" / "offset.txt").read_text())', READS_ITS_DATA)
    toys.edit("SCALE = 2.0", "SCALE = 2.0\nTAKES_DATA = True")
    return toys


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    path = tmp_path / "mine"
    path.mkdir()
    (path / "offset.txt").write_text("4.0")
    return path


def execute(toys: Toys, folder: Path | None) -> Results:
    (paper,) = workspace.load_papers(toys.root, ("toys",))
    data = None if folder is None else data_folders.resolve(folder)
    return run(Request(toys.root, paper, "tiny", toys.out, data=data), load_experiment(toys.folder))


def add_below(folder: Path) -> None:
    (folder / "more").mkdir()
    (folder / "more" / "notes.txt").write_text("1")


CHANGES: dict[str, Callable[[Path], object]] = {
    "a file's content": lambda folder: (folder / "offset.txt").write_text("5.0"),
    "a file in a folder below": add_below,
    "a further empty file": lambda folder: (folder / "nothing.txt").touch(),
}


@pytest.mark.parametrize("name", CHANGES)
def test_a_change_of_the_folders_content_runs_every_stage_again(taking: Toys, folder: Path, name: str) -> None:
    execute(taking, folder)
    execute(taking, folder)
    assert taking.executions() == STAGES
    CHANGES[name](folder)
    execute(taking, folder)
    assert taking.executions() == STAGES


def test_the_same_content_elsewhere_is_the_same_input(taking: Toys, folder: Path, tmp_path: Path) -> None:
    execute(taking, folder)
    taking.executions()
    (tmp_path / "other").mkdir()
    folder.rename(tmp_path / "other" / "mine")
    execute(taking, tmp_path / "other" / "mine")
    assert taking.executions() == []


def test_stages_read_the_folder_and_its_results_stay_apart(taking: Toys, folder: Path) -> None:
    shipped = execute(taking, None).one("numbers")["values"]
    given = execute(taking, folder).one("numbers")["values"]
    np.testing.assert_allclose(given - shipped, 4.0)
    assert {path.name for path in (taking.out / "results" / "toys").iterdir()} == {"tiny", "tiny-data-mine"}
    taking.executions()
    execute(taking, None)
    assert taking.executions() == []


def test_models_data_and_seed_are_all_in_the_name_of_the_results(toys: Toys, folder: Path) -> None:
    (paper,) = workspace.load_papers(toys.root, ("toys",))
    data = data_folders.resolve(folder)
    asked = Request(toys.root, paper, "tiny", toys.out, seed=2, model_names=(str(toys.models[0]),), data=data)
    assert asked.folder().name == "tiny-one-data-mine-seed2"
    odd = replace(data, path=folder.parent / "my data: 1")
    assert replace(asked, data=odd).folder().name == "tiny-one-data-my--data--1-seed2"


def test_a_relative_folder_is_that_of_the_working_directory(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    found = data_folders.resolve(Path("mine"))
    assert found == data_folders.resolve(folder)
    assert found.path == folder.resolve()
    content = hashlib.sha256(b"4.0").hexdigest()
    assert found.sha256 == hashlib.sha256(f"offset.txt\0{content}\0".encode()).hexdigest()
    monkeypatch.chdir(folder)
    assert data_folders.resolve(Path()).slug == "mine"


def test_a_home_folder_may_be_written_short(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", str(folder.parent))
    assert data_folders.resolve(Path("~/mine")).path == folder.resolve()


def test_folders_that_cannot_be_read_from_are_refused(tmp_path: Path, folder: Path) -> None:
    with pytest.raises(UserError, match=r"nowhere: no such folder; --data expects a folder of data files"):
        data_folders.resolve(tmp_path / "nowhere")
    with pytest.raises(UserError, match=r"offset\.txt: a file; --data expects a folder of data files"):
        data_folders.resolve(folder / "offset.txt")
    (tmp_path / "empty" / "below").mkdir(parents=True)
    with pytest.raises(UserError, match=r"empty: holds no files; --data expects"):
        data_folders.resolve(tmp_path / "empty")


def test_a_file_that_cannot_be_read_is_named(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(path: Path) -> str:
        raise PermissionError(13, "Permission denied", str(path))

    monkeypatch.setattr("reprise.models.file_sha256", refuse)
    with pytest.raises(UserError, match=r"offset\.txt: cannot be read \(Permission denied\); --data reads every file"):
        data_folders.resolve(folder)


def test_a_paper_that_takes_no_data_says_so_before_anything_runs(toys: Toys, folder: Path) -> None:
    with pytest.raises(UserError, match="toys: takes no data folder; run it without --data"):
        execute(toys, folder)
    assert toys.executions() == []
    assert not toys.out.exists()


def call(monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str], *arguments: str) -> tuple[int, str, str]:
    monkeypatch.setattr("sys.argv", ["reprise", *arguments])
    capfd.readouterr()
    with pytest.raises(SystemExit) as exit_:
        main()
    captured = capfd.readouterr()
    return int(exit_.value.code or 0), captured.out, captured.err


@pytest.mark.parametrize("command", ["run", "verify"])
def test_the_command_line_takes_a_folder(
    taking: Toys, folder: Path, command: str, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    folder.rename(taking.root / "mine")  # where the command runs
    code, out, _ = call(monkeypatch, capfd, command, "toys", "--data", "mine", "--json")
    assert (code, json.loads(out)[0]["estimate"] > 4.5) == (0, True)
    assert taking.executions() == STAGES
    assert (taking.out / "results" / "toys" / "tiny-data-mine" / "claims.json").exists()
    assert call(monkeypatch, capfd, "figures", "toys", "--data", "mine")[0] == 0
    assert list((taking.out / "results" / "toys" / "tiny-data-mine" / "figures").glob("*.svg"))


@pytest.mark.parametrize("command", ["run", "verify", "figures"])
def test_a_folder_that_is_not_there_gets_one_line(
    taking: Toys, command: str, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    code, out, err = call(monkeypatch, capfd, command, "toys", "--data", "nowhere")
    assert (code, out, err.count("\n")) == (2, "", 1)
    assert err == f"error: {taking.root / 'nowhere'}: no such folder; --data expects a folder of data files\n"
    assert taking.executions() == []

"""CODEOWNERS: what it says, and that the committed file says it."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from reprise import codeowners
from reprise.errors import UserError

ROOT = Path(__file__).parents[2]


@pytest.fixture
def root(tmp_path: Path) -> Path:
    texts = {
        "packages/circuits/pyproject.toml": '[project]\nname = "x"\n[tool.reprise]\nowner = "@reprise/circuits"\n',
        "packages/zoo/pyproject.toml": '[tool.reprise]\nowner = "@reprise/zoo"\n',
        "replications/induction_heads/paper.toml": 'title = "T"\nowner = "@reprise/induction"\n',
        "replications/.unfinished.partial/paper.toml": 'owner = "@reprise/nobody"\n',
        "replications/without_paper/README.md": "",
    }
    for name, text in texts.items():
        path = tmp_path / name
        path.parent.mkdir(parents=True)
        path.write_text(text)
    return tmp_path


def rules(text: str) -> list[list[str]]:
    return [line.split() for line in text.splitlines() if not line.startswith("#")]


def test_packages_papers_and_their_tests_have_owners_and_the_rest_a_default(root: Path) -> None:
    assert rules(codeowners.render(root)) == [
        ["*", "@reprise/maintainers"],  # first, since the last rule that matches decides
        ["/packages/circuits/", "@reprise/circuits"],
        ["/tests/circuits/", "@reprise/circuits"],
        ["/packages/zoo/", "@reprise/zoo"],
        ["/tests/zoo/", "@reprise/zoo"],
        ["/replications/induction_heads/", "@reprise/induction"],
        ["/tests/replications/test_induction_heads.py", "@reprise/induction"],
    ]


def test_an_empty_project_has_the_default_alone(tmp_path: Path) -> None:
    assert rules(codeowners.render(tmp_path)) == [["*", "@reprise/maintainers"]]


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ('title = "T"\n', "owner is None"),
        ("owner = 3\n", "owner is 3"),
        ('owner = "circuits"\n', "owner is 'circuits'"),
    ],
)
def test_a_paper_without_a_handle_is_named(root: Path, text: str, found: str) -> None:
    path = root / "replications" / "induction_heads" / "paper.toml"
    path.write_text(text)
    with pytest.raises(UserError) as caught:
        codeowners.render(root)
    assert str(caught.value) == f"{path}: {found}, expected a team handle such as '@reprise/circuits'; set it"


def test_a_file_that_is_no_toml_is_named(root: Path) -> None:
    path = root / "packages" / "zoo" / "pyproject.toml"
    path.write_text("owner = \n")
    with pytest.raises(UserError, match=r"pyproject\.toml: Invalid value .*; correct the file"):
        codeowners.render(root)


def check(root: Path) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "reprise.codeowners"]
    return subprocess.run([*command, "--check"], cwd=root, capture_output=True, text=True, check=False)


def test_check_fails_in_one_line_until_the_file_is_written(root: Path) -> None:
    line = ".github/CODEOWNERS: does not agree with the owners in packages/ and replications/; run"
    missing = check(root)
    assert (missing.returncode, missing.stderr.count("\n")) == (1, 1)
    assert missing.stderr.startswith(line)
    assert not (root / codeowners.FILE).exists()

    assert codeowners.main([], root) == 0
    assert (root / codeowners.FILE).read_text() == codeowners.render(root)
    assert codeowners.main(["--check"], root) == 0

    with (root / codeowners.FILE).open("a") as file:
        file.write("/shared/ @reprise/somebody\n")
    assert check(root).returncode == 1


def test_an_unknown_argument_is_refused(root: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert codeowners.main(["--chekc"], root) == 2
    assert capsys.readouterr().err == "expected no argument or --check, got --chekc\n"
    assert not (root / codeowners.FILE).exists()


def test_the_committed_file_agrees_with_the_owners() -> None:
    assert (ROOT / codeowners.FILE).read_text(encoding="utf-8") == codeowners.render(ROOT)

"""reprise new: what it writes passes every check and runs at once; what it refuses leaves nothing behind."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from reprise import UserError, claims, codeowners, drawing, models, store, tables, workspace
from reprise.experiment import load_experiment, load_figures
from reprise.models import ModelReference
from reprise.run import Request, run, stored_results
from reprise.scaffold import FILES, LONGEST, scaffold

PROJECT = Path(__file__).parents[2]
TITLE = 'On "quoted" paths C:\\n,\n<b>bold</b> | `code` and @SLUG@'


@pytest.fixture
def root(tmp_path: Path) -> Path:
    (tmp_path / "replications").mkdir()
    return tmp_path


def everything(root: Path) -> dict[str, bytes | None]:
    return {str(path): path.read_bytes() if path.is_file() else None for path in root.rglob("*")}


def test_writes_the_files_that_it_names(root: Path) -> None:
    written = scaffold(root, "some_paper", "A title", "@reprise/circuits")
    assert [path.relative_to(root).as_posix() for path in written] == [
        *(f"replications/some_paper/{name}" for name in FILES),
        "tests/replications/test_some_paper.py",
    ]
    assert {Path(path) for path, content in everything(root).items() if content is not None} == set(written)


def test_title_survives_quotes_backslashes_newlines_and_markup(root: Path) -> None:
    scaffold(root, "some_paper", TITLE, "@reprise/circuits")
    (paper,) = workspace.load_papers(root)
    assert paper.title == " ".join(TITLE.split())
    heading = (root / "replications/some_paper/README.md").read_text().splitlines()[0]
    assert heading == '# On "quoted" paths C:\\\\n, \\<b\\>bold\\</b\\> \\| \\`code\\` and @SLUG@'


def test_runs_and_draws_at_once(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(models, "resolve", lambda name: ModelReference(name, "shipped", "nowhere", "hash"))
    scaffold(root, "some_paper", "A title", "@reprise/circuits")
    (paper,) = workspace.load_papers(root)
    folder = workspace.folder_of(root, paper)
    request = Request(root=root, paper=paper, tier="tiny", out=root / "build")
    experiment = load_experiment(folder)
    rows = claims.evaluate(paper, experiment.claims, run(request, experiment))
    assert [row.verdict for row in rows] == ["supported"]
    (figure,) = drawing.draw(load_figures(folder), stored_results(request, experiment), root / "figures")
    assert figure.title == "Placeholder: random numbers"
    assert "title, the rest its caption" in figure.caption


def test_passes_lint_format_types_import_rules_and_its_own_test(root: Path) -> None:
    slug = "a_slug_of_as_many_characters_as_there_may_be_in_it"
    assert len(slug) == LONGEST
    (root / "pyproject.toml").write_bytes((PROJECT / "pyproject.toml").read_bytes())
    for package in PROJECT.glob("packages/*/src"):
        link = root / package.relative_to(PROJECT)
        link.parent.mkdir(parents=True)
        link.symlink_to(package)
    scaffold(root, slug, TITLE, "@reprise/circuits")
    bin_folder = Path(sys.executable).parent
    for tool, *arguments in (
        ("ruff", "check", "--no-cache", "replications", "tests"),
        ("ruff", "format", "--no-cache", "--check", "replications", "tests"),
        ("mypy", "--cache-dir", str(root / ".mypy_cache"), "replications", "tests"),
        ("lint-imports", "--no-cache"),
        ("pytest", "-p", "no:cacheprovider"),
    ):
        finished = subprocess.run(
            [bin_folder / tool, *arguments], cwd=root, capture_output=True, text=True, check=False, env=dict(os.environ)
        )
        assert finished.returncode == 0, f"{tool}: {finished.stdout}{finished.stderr}"


def test_refreshes_the_generated_files(root: Path) -> None:
    (root / "README.md").write_text(f"{tables.BEGIN}\n{tables.END}\n")
    scaffold(root, "some_paper", "A title", "@reprise/circuits")
    assert "| tiny | **not run** |" in (root / "README.md").read_text()
    assert "| paper | **not run** |" in (root / "replications/some_paper/README.md").read_text()


def test_refreshes_codeowners(root: Path) -> None:
    (root / ".github").mkdir()
    scaffold(root, "some_paper", "A title", "@reprise/circuits")
    text = (root / ".github" / "CODEOWNERS").read_text()
    assert "some_paper" in text
    assert text == codeowners.render(root)


@pytest.mark.parametrize(
    ("slug", "title", "owner", "message"),
    [
        ("Some-Paper", "A title", "@a/b", "slug 'Some-Paper': expected at most 50 characters, lower-case words"),
        ("../up", "A title", "@a/b", r"slug '../up': expected"),
        ("class", "A title", "@a/b", "no word of Python"),
        ("a" * 51, "A title", "@a/b", "at most 50 characters"),
        ("some_paper", " \n", "@a/b", "--title '': expected the paper's title"),
        ("some_paper", "bell \a", "@a/b", "printable"),
        ("some_paper", "A title", "circuits", "--owner 'circuits': expected a handle such as @reprise/circuits"),
        ("some_paper", "A title", "@a/b @c/d", "start it with @"),
    ],
)
def test_refuses_bad_input_and_writes_nothing(root: Path, slug: str, title: str, owner: str, message: str) -> None:
    with pytest.raises(UserError) as caught:
        scaffold(root, slug, title, owner)
    assert message in str(caught.value)
    assert everything(root) == {str(root / "replications"): None}


def test_refuses_a_replication_or_a_test_that_exists(root: Path) -> None:
    test = scaffold(root, "some_paper", "A title", "@reprise/circuits")[-1]
    before = everything(root)
    with pytest.raises(UserError, match="replications/some_paper: exists already; choose another slug"):
        scaffold(root, "some_paper", "Another", "@reprise/circuits")
    (root / "replications/some_paper").rename(root / "replications/renamed")
    with pytest.raises(UserError, match=f"{test.name}: exists already"):
        scaffold(root, "some_paper", "Another", "@reprise/circuits")
    (root / "replications/renamed").rename(root / "replications/some_paper")
    assert everything(root) == before


@pytest.mark.parametrize("failing", ["figures.py", "test_b.py", "README.md", "CODEOWNERS"])
def test_a_failure_half_way_leaves_everything_as_it_was(
    root: Path, monkeypatch: pytest.MonkeyPatch, failing: str
) -> None:
    (root / "README.md").write_text(f"{tables.BEGIN}\n{tables.END}\n")
    (root / ".github").mkdir()
    scaffold(root, "a", "A title", "@reprise/circuits")
    before = everything(root)

    def full_disk(path: Path, text: str) -> None:
        if path.name == failing and not (failing == "README.md" and path.parent != root):
            raise UserError(f"{path}: cannot be written (No space left on device)")
        write_text(path, text)

    write_text = store.write_text
    monkeypatch.setattr(store, "write_text", full_disk)
    with pytest.raises(UserError, match="No space left"):
        scaffold(root, "b", "A title", "@reprise/circuits")
    assert everything(root) == before


def test_refuses_outside_of_a_project(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="no folder replications/; run reprise in the project"):
        scaffold(tmp_path, "some_paper", "A title", "@reprise/circuits")

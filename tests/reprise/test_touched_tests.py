"""reprise touched --tests: in a toy repository, file by file; and in this one, against what Python really opens."""

from __future__ import annotations

import functools
import json
import subprocess
import sys
from pathlib import Path

import pytest
from tests.reprise.team import Cli, commit
from tests.reprise.test_touched import FILES as OF_PAPERS

from reprise import import_graph, touched_tests
from reprise.touched_tests import touched

PROJECT = Path(__file__).parents[2]
FILES = {
    **{name: text for name, text in OF_PAPERS.items() if not name.startswith("tests/")},
    "packages/shelf/pyproject.toml": (
        '[project]\nname = "shelf"\n[project.entry-points."reprise.models"]\na = "shelf.list:X"\n'
        '[project.entry-points."reprise.benches"]\nshelves = "shelf.training:rows"\n'
    ),
    "tests/conftest.py": "import os\n",
    "tests/tools/conftest.py": "from tools import used\nused.start()\n",
    "tests/tools/test_deep.py": "def test():\n    from tools import read\n",
    "tests/tools/helper.py": "from lazy import second\n",
    "tests/tools/test_helped.py": "from tests.tools.helper import second\n",
    "tests/tools/words.json": "",
    "tests/program.py": "from tools import alone\n",
    "tests/test_program.py": 'NAME = "program.py"\n',
    "tests/test_code.py": 'CODE = """\nfrom computed import hidden\n"""\n',
    "tests/test_bench.py": 'NAME = "shelves"\n',
    "tests/papers/test_plain.py": 'from pathlib import Path\nPAPER = Path(__file__).parents[1] / "plain"\n',
    "tests/papers/test_every.py": 'from pathlib import Path\nALL = Path(__file__).parent.glob("replications/*")\n',
    "tests/papers/test_import.py": "from replications.second import figures\n",
    "tests/test_documents.py": 'NAMES = ("README.md", ".github")\n',
    "tests/test_alone.py": "def test():\n    pass\n",
}
EVERY = {name.removeprefix("tests/") for name in FILES if "/test_" in name}
TOOLS = {"tools/test_deep.py", "tools/test_helped.py"}
PLAIN, ALL, IMPORT = "papers/test_plain.py", "papers/test_every.py", "papers/test_import.py"
CASES: dict[str, set[str]] = {
    "tests/test_alone.py": {"test_alone.py"},
    "tests/conftest.py": EVERY,
    "tests/tools/conftest.py": TOOLS,
    "tests/tools/helper.py": {"tools/test_helped.py"},
    "tests/tools/words.json": TOOLS,
    "tests/program.py": {"test_program.py"},
    "packages/tools/src/tools/deep.py": {*TOOLS, PLAIN, ALL, IMPORT, "test_program.py"},  # the package imports it
    "packages/tools/src/tools/late.py": {*TOOLS, PLAIN, ALL},  # TOOLS: their conftest calls what imports it
    "packages/tools/src/tools/alone.py": {"test_program.py"},  # of a program that a test names
    "packages/tools/src/tools/style.css": {*TOOLS, PLAIN, ALL, IMPORT, "test_program.py"},
    "packages/tools/src/tools/removed.py": {*TOOLS, PLAIN, ALL, IMPORT, "test_program.py"},
    "packages/lazy/src/lazy/two.py": {"tools/test_helped.py", ALL},
    "packages/computed/src/computed/hidden.py": {"test_code.py", ALL},  # code in a string
    "packages/shelf/src/shelf/training.py": {"test_bench.py"},  # an entry point that it names
    "replications/plain/paper.toml": {PLAIN, ALL},
    "replications/plain/parts.py": {PLAIN, ALL},  # by the experiment of the paper that it names
    "replications/second/figures.py": {IMPORT, ALL},
    "replications/second/README.md": {ALL},
    "shared/data/words/a.json": {PLAIN, ALL},
    "shared/data/nobody/a.json": EVERY,
    "requirements.lock": EVERY,
    "pyproject.toml": EVERY,
    "packages/lazy/pyproject.toml": EVERY,
    "Makefile": EVERY,
    "README.md": {"test_documents.py"},
    "CHANGELOG.md": set(),
    ".github/workflows/x.yml": {"test_documents.py"},
}


@pytest.fixture
def root(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    for name, text in FILES.items():
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    monkeypatch.setenv("REPRISE_ROOT", str(tmp_path))
    return tmp_path


@pytest.mark.parametrize("name", CASES)
def test_one_changed_file(root: Path, name: str) -> None:
    assert {test.removeprefix("tests/") for test in touched(root, [name]).tests} == CASES[name]


def test_reasons_say_how_a_file_is_reached(root: Path) -> None:
    found = touched(root, ["packages/lazy/src/lazy/two.py", "README.md"])
    assert found.reasons["tests/tools/test_helped.py"] == {
        "packages/lazy/src/lazy/two.py": "tests.tools.test_helped > lazy.two"
    }
    assert found.reasons["tests/test_documents.py"] == {"README.md": "names README.md"}


def test_code_that_does_not_parse_touches_everything(root: Path) -> None:
    (root / "tests/test_alone.py").write_text("def (:\n")
    assert {name.removeprefix("tests/") for name in touched(root, ["tests/program.py"]).tests} == EVERY
    assert touched(root, ["CHANGELOG.md"]).tests == ()


def test_the_command_prints_a_line_for_each(
    root: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    cli = Cli(monkeypatch, capfd)
    commit(root)
    assert cli("touched", "main", "--tests").out == ""
    (root / "packages/lazy/src/lazy/two.py").write_text("second = 3\n")
    (root / "tests/test_new.py").write_text("def test():\n    pass\n")  # not even added
    assert cli("touched", "main", "--tests").out.split("\n") == [
        "tests/papers/test_every.py",
        "tests/test_new.py",
        "tests/tools/test_helped.py",
        "",
    ]
    assert cli("touched", "main", "--tests", "--json").json["files"] == 2


@functools.cache
def whole_graph() -> import_graph.Graph:
    return import_graph.build(PROJECT, tests=True)


OPENED = """
import json, os, sys
import pytest
root, name = sys.argv[1:]
opened = set()
sys.addaudithook(lambda event, of: opened.add(str(of[0])) if event == "open" else None)
code = pytest.main(["-n", "0", "-p", "no:cacheprovider", "-q", name])
below = {os.path.relpath(os.path.realpath(path), root) for path in opened}
print(json.dumps([code, sorted(path for path in below if path[0] not in "./" and "__pycache__" not in path)]))
"""


@pytest.mark.parametrize("name", ["tests/reprise/test_codeowners.py", "tests/steering/test_similarity.py"])
def test_every_file_that_a_test_opens_touches_it(name: str) -> None:
    """In a process of its own, which notes what is opened; conftest.py and configuration among it."""
    command = [sys.executable, "-c", OPENED, str(PROJECT), name]
    told = subprocess.run(command, capture_output=True, text=True, check=True, cwd=PROJECT).stdout
    code, opened = json.loads(told.splitlines()[-1])
    assert code == 0, told
    known = {line for line in opened if Path(line).suffix != ".pyc" and (PROJECT / line).is_file()}
    assert len(known) > 20
    graph = whole_graph()
    reach = {name: touched_tests._reaches(PROJECT, graph, only=name)[name]}
    assert {file for file in known if name not in touched_tests._by(file, graph, reach)} == set()

"""reprise touched: in a toy repository, file by file; and in this one, against what Python really imports."""

from __future__ import annotations

import functools
import json
import subprocess
import sys
from pathlib import Path

import pytest
from tests.reprise.team import Cli, commit, git, one_line

from reprise import import_graph
from reprise.touched import touched

PROJECT = Path(__file__).parents[2]

PAPER = """
title = "A paper"
authors = ["A. Author"]
year = 2022
link = "https://example.org"
owner = "@reprise/team"
about = "About."
[tiers.tiny]
about = "Small."
{models}
[[claims]]
id = "a-claim"
statement = "It holds."
where = "section 1"
provenance = "read"
quantity = "share"
unit = "1"
accept = {{ tiny = {{ at_least = 0.5 }} }}
"""
FILES = {
    # Packages: `tools` is plain, `lazy` gives names on first use, `shelf` is a catalogue of models.
    "packages/tools/pyproject.toml": '[project]\nname = "tools"\n',
    "packages/tools/src/tools/__init__.py": "from tools.used import start\n",
    "packages/tools/src/tools/used.py": "from . import deep\ndef start():\n    from tools import late\n",
    "packages/tools/src/tools/deep.py": "",
    "packages/tools/src/tools/late.py": "",
    "packages/tools/src/tools/alone.py": "",
    "packages/tools/src/tools/style.css": "",
    "packages/tools/src/tools/read.py": 'import json\nTABLE = ("shared", "data")\n',
    "packages/lazy/pyproject.toml": '[project]\nname = "lazy"\n',
    "packages/lazy/src/lazy/__init__.py": (
        "from typing import TYPE_CHECKING\nif TYPE_CHECKING:\n    from lazy.one import first\n"
        "    from lazy.two import second\n"
        "def __getattr__(name):\n    from importlib import import_module\n    return import_module(f'lazy.{name}')\n"
    ),
    "packages/lazy/src/lazy/one.py": "first = 1\n",
    "packages/lazy/src/lazy/two.py": "second = 2\n",
    "packages/shelf/pyproject.toml": (
        '[project]\nname = "shelf"\n[project.entry-points."reprise.models"]\na = "shelf.list:X"\n'
    ),
    "packages/shelf/src/shelf/__init__.py": "",
    "packages/shelf/src/shelf/list.py": 'NAMES = ("small", "big")\ndef train():\n    from shelf import training\n',
    "packages/shelf/src/shelf/training.py": "",
    "packages/computed/pyproject.toml": '[project]\nname = "computed"\n',
    "packages/computed/src/computed/__init__.py": (
        "import importlib\ndef get(name):\n    return importlib.import_module(name)\n"
    ),
    "packages/computed/src/computed/hidden.py": "",
    # Papers.
    "replications/plain/paper.toml": PAPER.format(models='models = ["small"]'),
    "replications/plain/experiment.py": "import tools\nfrom replications.plain import parts\ntools.start()\n",
    "replications/plain/parts.py": (
        'from lazy import first\nfrom tools.read import TABLE\nDATA = "shared/data/words/"\n'
    ),
    "replications/plain/bench.py": "from tools import alone\n",
    "replications/second/paper.toml": PAPER.format(models="trains = true"),
    "replications/second/experiment.py": "import lazy\nimport computed\ncomputed.get('x')\nx = lazy.second\n",
    "replications/second/figures.py": 'FOLDER = "lists"\nfrom tools.read import TABLE\n',
    "shared/data/words/a.json": "",
    "shared/data/lists/a.json": "",
    "shared/data/nobody/a.json": "",
    "shared/models/small/model.safetensors": "",
    "shared/models/big/model.safetensors": "",
    "requirements.lock": "",
    "README.md": "",
    "Makefile": "",
    "tests/test_it.py": "",
    ".github/workflows/x.yml": "",
    ".github/CODEOWNERS": "",
}
BOTH = {"plain", "second"}
CASES: dict[str, set[str]] = {
    "replications/plain/experiment.py": {"plain"},
    "replications/plain/bench.py": {"plain"},
    "replications/second/results/tiny/claims.json": {"second"},
    "replications/gone/paper.toml": set(),
    "packages/tools/src/tools/__init__.py": BOTH,  # second takes tools.read, which imports the package around it
    "packages/tools/src/tools/used.py": BOTH,
    "packages/tools/src/tools/deep.py": BOTH,  # a relative import
    "packages/tools/src/tools/late.py": {"plain"},  # imported in a function of what only plain uses
    "packages/tools/src/tools/alone.py": set(),  # of a benchmark, which no run imports
    "packages/tools/src/tools/style.css": BOTH,
    "packages/tools/src/tools/removed.py": BOTH,
    "packages/tools/pyproject.toml": BOTH,
    "packages/tools/README.md": set(),
    "packages/tools/Makefile": BOTH,
    "packages/lazy/src/lazy/one.py": {"plain"},
    "packages/lazy/src/lazy/two.py": {"second"},
    "packages/shelf/src/shelf/list.py": {"plain"},
    "packages/shelf/src/shelf/training.py": set(),
    "packages/computed/src/computed/hidden.py": {"second"},  # imported by a name that is computed
    "shared/data/words/a.json": {"plain"},
    "shared/data/words/removed.json": {"plain"},
    "shared/data/lists/a.json": {"second"},
    "shared/data/nobody/a.json": BOTH,
    "shared/models/small/model.safetensors": {"plain"},
    "shared/models/small/README.md": set(),
    "shared/models/big/model.safetensors": BOTH,  # the catalogue alone names it
    "requirements.lock": BOTH,
    "pyproject.toml": BOTH,
    "Makefile": BOTH,
    "README.md": set(),
    "tests/test_it.py": set(),
    ".github/workflows/x.yml": BOTH,
    ".github/CODEOWNERS": set(),
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
    assert set(touched(root, [name]).papers) == CASES[name]


def test_reasons_say_how_a_file_is_reached(root: Path) -> None:
    found = touched(root, ["packages/tools/src/tools/late.py", "shared/data/words/a.json", "README.md"])
    assert found.reasons == {
        "plain": {
            "packages/tools/src/tools/late.py": "experiment > tools.used > tools.late",
            "shared/data/words/a.json": "names data/words",
        }
    }
    assert found.files == 3


def test_code_that_does_not_parse_touches_everything(root: Path) -> None:
    (root / "packages/tools/src/tools/alone.py").write_text("def (:\n")
    assert set(touched(root, ["packages/tools/src/tools/alone.py"]).papers) == BOTH
    assert touched(root, ["README.md"]).papers == ()


def test_circular_imports_end(root: Path) -> None:
    (root / "packages/tools/src/tools/used.py").write_text("from tools import start\nfrom tools import used\n")
    assert set(touched(root, ["packages/tools/src/tools/used.py"]).papers) == BOTH


def test_the_command_compares_with_where_the_branch_left(
    root: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    cli = Cli(monkeypatch, capfd)
    assert one_line(cli("touched", "main"), "git repository")
    base = commit(root)
    git(root, "checkout", "--quiet", "-b", "branch")
    (root / "packages/lazy/src/lazy/two.py").write_text("second = 3\n")  # committed
    commit(root)
    (root / "replications/plain/experiment.py").unlink()  # removed
    (root / "shared/data/lists/new name.json").touch()  # not even added
    git(root, "checkout", "--quiet", "main")
    (root / "requirements.lock").write_text("x==1\n")
    commit(root, "The base moves on.")
    git(root, "checkout", "--quiet", "branch")
    found = cli("touched", "main", "--json").json
    assert found["commit"] == base
    # `git checkout main` and `commit` took the uncommitted changes along.
    assert found["reasons"]["second"] == {"packages/lazy/src/lazy/two.py": "experiment > lazy.two"}
    assert "they touch 1 of 2 papers" in cli("touched", "main").out
    assert one_line(cli("touched", "nosuch"), "'nosuch'", "git fetch")


LOADED = """
import json, sys
from pathlib import Path
from reprise.experiment import load_experiment, load_figures
root, own, found = Path(sys.argv[1]), sys.argv[2].split(","), {}
for slug in sys.argv[3:]:
    for name in [name for name in sys.modules if name.split(".")[0] in own and name.split(".")[0] != "reprise"]:
        del sys.modules[name]
    load_experiment(root / "replications" / slug), load_figures(root / "replications" / slug)
    found[slug] = [name for name in sys.modules if name.split(".")[0] in own]
print(json.dumps(found))
"""


@functools.cache
def graph_of_this_project() -> import_graph.Graph:
    return import_graph.build(PROJECT)


def test_every_module_that_python_loads_for_a_paper_is_reached() -> None:
    graph = graph_of_this_project()
    own = sorted({name.split(".")[0] for name in graph.files})
    slugs = ("task_vectors", "transformer_circuits")
    command = [sys.executable, "-c", LOADED, str(PROJECT), ",".join(own), *slugs]
    loaded = json.loads(subprocess.run(command, capture_output=True, text=True, check=True, cwd=PROJECT).stdout)
    for slug in slugs:
        reached = graph.reached([f"replications.{slug}.{name}" for name in ("experiment", "figures")])
        assert {name for name in loaded[slug] if name in graph.files} - set(reached) == set()
        assert len(loaded[slug]) > 30


def test_in_this_repository(monkeypatch: pytest.MonkeyPatch) -> None:
    graph = graph_of_this_project()
    monkeypatch.setattr(import_graph, "build", lambda root: graph)

    def papers(*names: str) -> set[str]:
        return set(touched(PROJECT, names).papers)

    every = {path.parent.name for path in PROJECT.glob("replications/*/paper.toml")}
    assert papers("requirements.lock") == papers("packages/reprise/src/reprise/run.py") == every
    assert papers("packages/reprise/src/reprise/measurement.py") == every
    assert papers("packages/reprise/src/reprise/report/site.py") == set()
    assert papers("packages/steering/src/steering/vectors.py") == {
        "activation_addition",
        "contrastive_activation_addition",
    }
    assert papers("packages/zoo/src/zoo/ioi.py") >= {"indirect_object_identification"}
    assert "activation_addition" not in papers("packages/zoo/src/zoo/ioi.py")
    assert papers("shared/models/ioi-4l/model.safetensors") == {"indirect_object_identification"}
    assert papers("shared/data/town/barber_of.json") == {"function_vectors", "task_vectors"}
    assert papers("replications/induction_heads/claims.py") == {"induction_heads"}

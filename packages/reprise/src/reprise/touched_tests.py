"""reprise touched --tests: which test files a change touches, so that a pull request runs these and no others.

A test file *reaches* what it imports, with the conftest.py above it and whatever these import (`import_graph`); what
the code in its strings imports, and a file of tests/ that it names (programs that it starts); the command line where it
names `reprise`; the papers that it names, with what their experiments reach; the modules of the entry points that it
names. A changed file touches the test files that reach it. Any other file touches those that read it: that name the
file, or the folder at the top and, for papers, the paper. What configures every test touches all; and so does a file of
which nothing is known, and all files do where a Python file does not parse.

A test that finds its files by a pattern (`*`), or walks the project without naming a paper, reads all of them. More is
touched than would be needed; what a test does to files whose names it gets from outside the repository is not seen.
"""

from __future__ import annotations

import tomllib
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

import msgspec

from reprise import import_graph, workspace
from reprise.errors import UserError
from reprise.import_graph import Graph
from reprise.touched import HARMLESS_NAMES, LOCK

CONFIGURATION = frozenset({LOCK, "pyproject.toml"})
COMMAND_LINE, HARNESS, EXPERIMENTS = "reprise", "reprise.", ("experiment", "figures")


class TouchedTests(msgspec.Struct, frozen=True, kw_only=True):
    """The test files to run, and for each the changed files that touch it, with how."""

    commit: str
    files: int
    tests: tuple[str, ...]
    reasons: dict[str, dict[str, str]]


@dataclass(frozen=True)
class _Reach:
    """What one test file reaches, and the words of its own strings and those of tests/ that it uses.

    `walks` says whether it knows where the project lies and names no paper in it, or finds files by a pattern there.
    """

    modules: Mapping[str, str]
    words: frozenset[str]
    folders: frozenset[str]
    walks: bool

    def reads(self, *names: str) -> bool:
        return self.words.issuperset(names)


def touched(root: Path, changed: Iterable[str], commit: str = "") -> TouchedTests:
    """The test files that these files (relative to the root, with slashes; they may be gone) touch.

    Raises:
        UserError: if a package's pyproject.toml is malformed.
    """
    changed = tuple(changed)
    graph = import_graph.build(root, tests=True)
    reaches = _reaches(root, graph)
    reasons: dict[str, dict[str, str]] = {name: {} for name in reaches}
    for name in changed:
        for test, reason in _by(name, graph, reaches).items():
            reasons[test][name] = reason
    if graph.unread and any(name.endswith(".py") for name in changed):
        for of in reasons.values():
            of[graph.unread[0]] = "does not parse, so what it imports is not known"
    hit = {test: of for test, of in reasons.items() if of}
    return TouchedTests(commit=commit, files=len(changed), tests=tuple(hit), reasons=hit)


def _reaches(root: Path, graph: Graph, only: str | None = None) -> dict[str, _Reach]:
    """Every test file by its path, or one of them."""
    entries = _entry_points(root)
    papers = frozenset(path.name for path in workspace.folders(root))
    found = {}
    for module, file in graph.files.items():
        path = PurePosixPath(file)
        if path.parts[0] == "tests" and path.name.startswith("test_") and only in (None, file):
            found[file] = _reach(module, graph, papers, entries)
    return dict(sorted(found.items()))


def _reach(module: str, graph: Graph, papers: frozenset[str], entries: Mapping[str, Mapping[str, str]]) -> _Reach:
    parts = module.split(".")
    above = [".".join([*parts[:depth], "conftest"]) for depth in range(1, len(parts))]
    starts = {module, *(name for name in above if name in graph.files)}
    while True:  # what is reached names what is reached
        modules = graph.reached(sorted(starts))
        own = [name for name in modules if name.startswith("tests.")]
        words = frozenset().union(*(graph.scans[name].words for name in own))
        knows = any("__file__" in names for name in own for names in graph.scans[name].reads.values())
        pattern = any("*" in word for word in words) or "--all" in words
        walks = knows and (pattern or papers.isdisjoint(words))
        named = papers if walks and "replications" in words | _words(graph, modules) else papers & words
        more = {f"replications.{slug}.{name}" for slug in named for name in EXPERIMENTS}
        more |= {_module_of(quoted, graph) for name in own for quoted in graph.scans[name].quoted}
        more |= {
            name for name, file in graph.files.items() if file[:6] == "tests/" and file.rpartition("/")[2] in words
        }
        # A group that has the name of a module is for this one: whoever reaches it may load all of the group.
        more |= {
            entry for group, of in entries.items() for name, entry in of.items() if name in words or group in modules
        }
        more |= {f"{COMMAND_LINE}.cli"} if COMMAND_LINE in words else set()
        more &= graph.files.keys()
        if more <= starts:
            return _Reach(modules, words, named, walks)
        starts |= more


def _words(graph: Graph, modules: Iterable[str]) -> frozenset[str]:
    """The words of the harness, as far as it is reached."""
    return frozenset().union(*(graph.scans[name].words for name in modules if name.startswith(HARNESS)))


def _module_of(name: str, graph: Graph) -> str:
    """The module that a dotted name is, or lies in; "" for one of others."""
    while name and name not in graph.files:
        name = name.rpartition(".")[0]
    return name


def _entry_points(root: Path) -> dict[str, dict[str, str]]:
    """The modules that packages register, by group and name."""
    found: dict[str, dict[str, str]] = {}
    for path in sorted(root.glob("packages/*/pyproject.toml")):
        try:
            project = tomllib.loads(path.read_text(encoding="utf-8")).get("project", {})
            for group, of in project.get("entry-points", {}).items():
                found.setdefault(group, {}).update({name: str(entry).partition(":")[0] for name, entry in of.items()})
        except (ValueError, RecursionError, AttributeError) as error:
            raise UserError(f"{path}: {error}; correct the file") from error
    return found


def _by(name: str, graph: Graph, reaches: Mapping[str, _Reach]) -> dict[str, str]:
    """The test files that one file touches, each with the reason."""
    path = PurePosixPath(name)
    top = path.parts[0]
    if name in CONFIGURATION or (top == "packages" and path.name == "pyproject.toml"):
        return dict.fromkeys(reaches, "configures every test")
    found = _by_name(path, reaches)
    module = next((module for module, file in graph.files.items() if file == name), None)
    if module is not None:
        for test, reach in reaches.items():
            if module in reach.modules:
                found[test] = import_graph.chain(reach.modules, module)
        return found
    if top == "tests":
        around = dict.fromkeys((test for test in reaches if PurePosixPath(test).is_relative_to(path.parent)), "near it")
        return around | found
    if top == "packages" and len(path.parts) > 2:
        return _around(path, graph, reaches) | found
    if top == "shared" and len(path.parts) > 1:
        return _by_shared(path, graph, reaches) | found
    harmless = path.suffix == ".md" or path.name in HARMLESS_NAMES or top in ("replications", "docs")
    return found or ({} if harmless else dict.fromkeys(reaches, "what depends on it is not known"))


def _by_name(path: PurePosixPath, reaches: Mapping[str, _Reach]) -> dict[str, str]:
    """Who reads a file as a file."""
    top = path.parts[0]
    if top == "replications" and len(path.parts) > 2:
        return _those(reaches, lambda reach: path.parts[1] in reach.folders, f"reads the paper {path.parts[1]}")
    if len(path.parts) == 1 or top in ("tests", "shared"):
        return _those(reaches, lambda reach: reach.reads(path.name), f"names {path.name}")
    if path.suffix == ".py":
        return _those(reaches, lambda reach: reach.walks and reach.reads(top), f"walks {top}/")
    return _those(reaches, lambda reach: reach.reads(top) or reach.reads(path.name), f"names {top}/")


def _around(path: PurePosixPath, graph: Graph, reaches: Mapping[str, _Reach]) -> dict[str, str]:
    """Data of a package, or a module that was removed: whoever reaches what lies around it."""
    around = path.parent
    while len(around.parts) > 2 and not any(PurePosixPath(file).parent == around for file in graph.files.values()):
        around = around.parent
    inside = {module for module, file in graph.files.items() if PurePosixPath(file).is_relative_to(around)}
    return _those(reaches, lambda reach: not inside.isdisjoint(reach.modules), f"reaches {around.as_posix()}")


def _by_shared(path: PurePosixPath, graph: Graph, reaches: Mapping[str, _Reach]) -> dict[str, str]:
    """Whoever names the folders on the way to a file, itself or by a paper or package; for a model, its name."""
    way = path.parts[1:2] if path.parts[1] == "models" else path.parts[1:-1] or path.parts[1:]

    def names(reach: _Reach) -> bool:
        by_code = frozenset().union(*(graph.scans[module].words for module in reach.modules))
        return by_code.issuperset(way)

    found = _those(reaches, names, f"names {'/'.join(way)}")
    return found or dict.fromkeys(reaches, "nothing is known to read it")


def _those(reaches: Mapping[str, _Reach], which: Callable[[_Reach], bool], reason: str) -> dict[str, str]:
    return {test: reason for test, reach in reaches.items() if which(reach)}

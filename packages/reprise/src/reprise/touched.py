"""reprise touched: which papers a change touches, so that a pull request reruns these and no others.

A changed file touches a paper if it lies in the paper's folder; if it is a Python file that the paper's experiment or
figures reach through imports, or that carries out a run; if it is another file of a package that they reach; if it lies
below shared/ and their code names the folders that lead to it, or a tier the model. The lock touches every paper, tests
and documents none. A file of which nothing is known, or a Python file that does not parse, touches every paper.
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
from reprise.paper import Paper

RUNS = ("reprise.run", "reprise.claims", "reprise.drawing")
COMMANDS = frozenset(
    f"packages/reprise/src/reprise/cli/{name}.py" for name in ("__init__", "options", "preparing", "running")
)
LOCK = "requirements.lock"
HARMLESS_FOLDERS = frozenset({"tests", "docs"})
HARMLESS_NAMES = frozenset({"LICENSE", "CITATION.cff", ".gitignore", ".pre-commit-config.yaml", "CODEOWNERS"})
WORKFLOWS, GITHUB = ".github/workflows/", ".github/"


class Touched(msgspec.Struct, frozen=True, kw_only=True):
    """The papers to rerun, and for each the changed files that touch it, with how."""

    commit: str
    files: int
    papers: tuple[str, ...]
    reasons: dict[str, dict[str, str]]


@dataclass(frozen=True)
class _Reach:
    """What one paper reaches: modules (with the one that imports each), path words of their strings, its models."""

    modules: Mapping[str, str]
    words: frozenset[str]
    own_words: frozenset[str]


def touched(root: Path, changed: Iterable[str], commit: str = "") -> Touched:
    """The papers that these files (relative to the root, with slashes; they may be gone) touch.

    Raises:
        UserError: if a paper.toml or a package's pyproject.toml is malformed.
    """
    changed = tuple(changed)
    papers = workspace.load_papers(root)
    graph = import_graph.build(root)
    reaches = {paper.slug: _reach(root, paper, graph) for paper in papers}
    reasons: dict[str, dict[str, str]] = {paper.slug: {} for paper in papers}
    for name in changed:
        for slug, reason in _by(name, graph, reaches).items():
            reasons[slug][name] = reason
    if graph.unread and any(name.endswith(".py") for name in changed):
        for of in reasons.values():
            of[graph.unread[0]] = "does not parse, so what it imports is not known"
    hit = {slug: of for slug, of in reasons.items() if of}
    return Touched(commit=commit, files=len(changed), papers=tuple(hit), reasons=hit)


def _reach(root: Path, paper: Paper, graph: Graph) -> _Reach:
    own = [name for name in graph.files if name.startswith(f"replications.{paper.slug}.")]
    starts = [name for name in own if name.rpartition(".")[2] in ("experiment", "figures")] or own
    with_models = any(tier.models for tier in paper.tiers.values())
    catalogues = _catalogues(root) if with_models else ()
    modules = graph.reached([*starts, *RUNS], catalogues)
    words = {name: graph.scans[name].words for name in modules if name not in catalogues}
    named = frozenset(model for tier in paper.tiers.values() for model in tier.models)
    return _Reach(
        modules,
        frozenset().union(*words.values()),
        # A catalogue names every model there is; only what the paper itself names is its own.
        named.union(*(of for name, of in words.items() if name.startswith("replications."))),
    )


def _catalogues(root: Path) -> tuple[str, ...]:
    """The modules that the packages register as catalogues of models."""
    found = []
    for path in sorted(root.glob("packages/*/pyproject.toml")):
        try:
            project = tomllib.loads(path.read_text(encoding="utf-8")).get("project", {})
            entries = project.get("entry-points", {}).get("reprise.models", {}).values()
        except (ValueError, RecursionError, AttributeError) as error:
            raise UserError(f"{path}: {error}; correct the file") from error
        found += [str(entry).partition(":")[0] for entry in entries]
    return tuple(found)


def _by(name: str, graph: Graph, reaches: Mapping[str, _Reach]) -> dict[str, str]:
    """The papers that one file touches, each with the reason."""
    path = PurePosixPath(name)
    top = path.parts[0]
    if top == "replications" and len(path.parts) > 2:
        return {slug: "its own folder" for slug in reaches if slug == path.parts[1]}
    if top in HARMLESS_FOLDERS or path.suffix == ".md" or path.name in HARMLESS_NAMES:
        return {}
    if name.startswith(GITHUB) and not name.startswith(WORKFLOWS):
        return {}
    if name == LOCK:
        return dict.fromkeys(reaches, "the lock: versions that every paper runs on")
    if name in COMMANDS:
        return dict.fromkeys(reaches, "carries out every run")
    if top == "packages" and len(path.parts) > 2:
        return _by_package(path, graph, reaches)
    if top == "shared" and len(path.parts) > 1:
        return _by_shared(path, reaches)
    return _every(reaches, "what depends on it is not known")


def _by_package(path: PurePosixPath, graph: Graph, reaches: Mapping[str, _Reach]) -> dict[str, str]:
    module = next((module for module, file in graph.files.items() if file == path.as_posix()), None)
    if module is not None:
        found = {}
        for slug, reach in reaches.items():
            if module in reach.modules:
                found[slug] = import_graph.chain(reach.modules, module).replace(f"replications.{slug}.", "")
        return found
    if path.parts[2] not in ("src", "pyproject.toml"):
        return _every(reaches, "what depends on it is not known")
    # Data, a stub, a module that was removed, or the package's own metadata: whoever reaches what lies around it.
    around = path.parent
    while len(around.parts) > 2 and not any(PurePosixPath(file).parent == around for file in graph.files.values()):
        around = around.parent
    inside = {module for module, file in graph.files.items() if PurePosixPath(file).is_relative_to(around)}
    what = f"part of {around.as_posix()}, which it reaches"
    return _those(reaches, lambda reach: not inside.isdisjoint(reach.modules), what)


def _by_shared(path: PurePosixPath, reaches: Mapping[str, _Reach]) -> dict[str, str]:
    """Whoever names the folders on the way to a file, and the file itself where it lies close below shared/."""
    if path.parts[1] == "models" and len(path.parts) > 3:
        model = path.parts[2]
        found = _those(reaches, lambda reach: model in reach.own_words, f"names the model {model}")
    else:
        way = path.parts[1:] if len(path.parts) <= 3 else path.parts[1:-1]
        found = _those(reaches, lambda reach: reach.words.issuperset(way), f"names {'/'.join(way)}")
    return found or _every(reaches, "nothing is known to read it")


def _those(reaches: Mapping[str, _Reach], which: Callable[[_Reach], bool], reason: str) -> dict[str, str]:
    return {slug: reason for slug, reach in reaches.items() if which(reach)}


def _every(reaches: Iterable[str], reason: str) -> dict[str, str]:
    return dict.fromkeys(reaches, reason)

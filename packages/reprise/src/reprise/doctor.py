"""reprise doctor: whether this installation can run the tiny tier, the paper tier, and what is optional.

Every check says what it is for. One that is *missing* for "tiny" keeps some paper's tiny tier from running; for
"paper", some paper's paper tier; for "optional", what the check names. A *warning* keeps nothing from running: versions
other than the pinned ones move the last digits of results, little memory or few cores make a run slow.
"""

from __future__ import annotations

import platform
import shutil
import sys
from collections.abc import Iterable, Iterator
from pathlib import Path

from reprise import import_graph, installation, surroundings, workspace
from reprise.checks import INSTALL, Check, For, of_names, some
from reprise.import_graph import Graph
from reprise.paper import Paper

OLDEST = (3, 11)


def examine(root: Path, out: Path) -> tuple[Check, ...]:
    """Look at everything; takes seconds, most of them to import torch.

    Raises:
        UserError: if a paper.toml, a pyproject.toml or the lock is malformed.
    """
    papers = workspace.load_papers(root)
    graph = import_graph.build(root)
    return (
        _python(),
        *_packages(root),
        *_imports(graph, papers),
        *surroundings.shipped_models(papers),
        surroundings.writing(out),
        *surroundings.machine(out),
        _git(),
        *_extras(root, graph),
        *surroundings.cuda(),
        *surroundings.paper_models(papers),
    )


def can_run(checks: Iterable[Check], tier: For) -> bool:
    """Whether nothing is missing for a tier; the paper tier needs what the tiny tier needs, too."""
    return not any(check.state == "missing" and check.needed_for in ("tiny", tier) for check in checks)


def _python() -> Check:
    found = f"{platform.python_version()} at {sys.executable}"
    if sys.version_info[:2] >= OLDEST:
        return Check(what="Python", needed_for="tiny", state="ok", found=found)
    remedy = "install Python 3.11 or later, and run `make .venv/installed PYTHON=python3.11`"
    return Check(what="Python", needed_for="tiny", state="missing", found=found, remedy=remedy)


def _packages(root: Path) -> Iterator[Check]:
    own = installation.packages(root)
    if not own and not installation.pinned(root):  # a project of one's own: nothing is built or pinned there
        ours_here = installation.distributions()
        found = f"{len(ours_here)} installed: {', '.join(ours_here)}"
        yield Check(what="our packages", needed_for="tiny", state="ok", found=found)
        return
    ours = {installation.canonical(package.name) for package in own}
    absent = sorted(package.name for package in own if installation.installed(package.name) is None)
    yield of_names("our packages", len(own), absent, "tiny", INSTALL)
    needed = installation.required(line for package in own for line in package.requires)
    needed = {name: version for name, version in needed.items() if name not in ours}
    yield of_names(
        "packages that they need", len(needed), sorted(name for name in needed if needed[name] is None), "tiny", INSTALL
    )
    pins = installation.pinned(root)
    if not pins:
        yield Check(
            what="pinned versions",
            needed_for="tiny",
            state="warning",
            found="no requirements.lock",
            remedy="restore it",
        )
        return
    here = {name: installation.installed(name) for name in pins}
    other = [
        f"{name} {here[name]} (pinned {pins[name]})" for name in pins if here[name] and not _is(here[name], pins[name])
    ]
    yield Check(
        what="pinned versions",
        needed_for="tiny",
        state="warning" if other else "ok",
        found=f"{len(other)} differ: {some(other)}"
        if other
        else f"all {sum(map(bool, here.values()))} that are installed",
        remedy=f"{INSTALL}; results may differ in their last digits until then" if other else "",
    )
    tools = sorted(name for name in pins if here[name] is None and name not in needed)
    yield of_names("other packages of the lock (checks, tests)", len(pins) - len(needed), tools, "optional", INSTALL)


def _is(version: str | None, pin: str) -> bool:
    """A build such as 2.13.0+cpu is the pinned 2.13.0."""
    return version is not None and version.partition("+")[0] == pin.partition("+")[0]


def _imports(graph: Graph, papers: Iterable[Paper]) -> Iterator[Check]:
    """Modules that a paper's code imports as soon as it is loaded, and that are not here."""
    from importlib.util import find_spec

    for paper in papers:
        starts = (f"replications.{paper.slug}.{name}" for name in ("experiment", "figures"))
        loaded = graph.reached((), starts)
        lacking = {top: by for top, by in graph.outside(loaded).items() if top and find_spec(top) is None}
        if lacking:
            yield Check(
                what=f"imports of {paper.slug}",
                needed_for="tiny",
                state="missing",
                found=some([f"{top} (for {by})" for top, by in sorted(lacking.items())]),
                remedy=INSTALL,
            )


def _git() -> Check:
    where = shutil.which("git")
    remedy = "" if where else "install git: `reprise diff` and `reprise touched` need it"
    return Check(
        what="git", needed_for="optional", state="ok" if where else "missing", found=where or "not found", remedy=remedy
    )


def _extras(root: Path, graph: Graph) -> Iterator[Check]:
    """The optional requirements of our packages, and which of their modules import them."""
    from importlib.metadata import packages_distributions

    tops: dict[str, list[str]] = {}
    for top, distributions in packages_distributions().items():
        for distribution in distributions:
            tops.setdefault(installation.canonical(distribution), []).append(top)
    for package in installation.packages(root):
        for extra, lines in package.extras.items():
            names = [name for line in lines if (name := installation.name_of(line))]
            modules = {top for name in names for top in tops.get(name, [name.replace("-", "_")])}
            users = [
                module
                for module, file in sorted(graph.files.items())
                if file.startswith(f"packages/{package.folder.name}/") and _uses(graph, module, modules)
            ]
            absent = [name for name in names if installation.installed(name) is None]
            yield Check(
                what=f"extra {package.name}[{extra}]",
                needed_for="optional",
                state="missing" if absent else "ok",
                found=(f"lacks {some(absent)}" if absent else "installed") + (f"; for {some(users)}" if users else ""),
                remedy=f"`.venv/bin/uv pip install {' '.join(absent)}`" if absent else "",
            )


def _uses(graph: Graph, module: str, others: set[str]) -> bool:
    """Whether a module imports one of others, under a name of its own (torch.utils.tensorboard) or by a namesake."""
    named = any(other in module.rpartition(".")[2] for other in others)
    return named or any(not others.isdisjoint(found.module.split(".")) for found in graph.scans[module].imports)

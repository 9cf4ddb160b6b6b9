"""The import graph of our own packages and replications: which files the code of a paper reaches.

A module is *imported*: its top level runs, and with it that of all that is imported there. Or a name of it is *taken*:
then what that definition reads in its own file is used with it, and the imports inside of these count, and the names
that they take of others. Taking a name that a module merely passes on takes it where it comes from. Every imported file
is reached. So more is reached than a run executes, and never less, up to functions that are called while a module is
imported of which nothing is taken, and to names that are put together (`importlib` with a computed name counts as the
whole package in which it stands).
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path

from reprise.import_scan import NOTHING, Import, Scan, scan

# It imports by computed names only what papers and entry points name.
HARNESS = "reprise"
MERELY, WHOLE = "", "*"  # what is taken of a module that is imported alone, and of one that is handed on as an object


@dataclass(frozen=True)
class Step:
    """A module, and the name that is taken of it, or MERELY or WHOLE."""

    module: str
    taken: str


@dataclass(frozen=True)
class Graph:
    """Modules by name: their files, relative to the root, and what is in these. `unread` do not parse."""

    files: Mapping[str, str]
    scans: Mapping[str, Scan]
    unread: tuple[str, ...]
    behind: dict[Step, tuple[Step, ...]] = field(default_factory=dict, compare=False, repr=False)  # what was found once

    def reached(self, used: Iterable[str], imported: Iterable[str] = ()) -> dict[str, str]:
        """The modules that these lead to, each with the one that imports it ("" for those given)."""
        found: dict[str, str] = {}
        done: set[Step] = set()
        waiting = [(Step(name, WHOLE), "") for name in used] + [(Step(name, MERELY), "") for name in imported]
        for step, by in waiting:  # grows while it is read
            if step in done or step.module not in self.files or Step(step.module, WHOLE) in done:
                continue
            done.add(step)
            found.setdefault(step.module, by)
            if step not in self.behind:
                self.behind[step] = tuple(self._after(step))
            waiting += [(after, step.module) for after in self.behind[step]]
        return found

    def outside(self, names: Iterable[str]) -> dict[str, str]:
        """Modules of others that these modules import at their top level, each with one that does."""
        own = set(map(_top, self.files))
        return {
            top: name
            for name in sorted(names, reverse=True)
            for found in self.scans[name].imports
            if found.when == "top" and (top := _top(found.module)) not in own
        }

    def _after(self, step: Step) -> Iterator[Step]:
        of = self.scans[step.module]
        yield Step(step.module.rpartition(".")[0], MERELY)
        whole = step.taken == WHOLE
        used = of.uses(None if whole else step.taken) if step.taken != MERELY else frozenset()
        read = frozenset().union(*(of.reads[name] for name in used))
        for found in of.imports:
            if found.when == "top":
                follow = whole or found.bound in read
                yield from (after if follow else replace(after, taken=MERELY) for after in self._behind(found))
            elif found.when == "call" and found.inside in used:
                yield from self._behind(found)
        if not of.lazy and _top(step.module) != HARNESS and not of.computed.isdisjoint(used):
            yield from (Step(other, WHOLE) for other in self.files if _top(other) == _top(step.module))

    def _behind(self, found: Import, seen: frozenset[Step] = frozenset()) -> Iterator[Step]:
        """What one import leads to."""
        module = found.module if found.name is None else f"{found.module}.{found.name}"
        if found.name is not None and module not in self.files:
            yield Step(found.module, MERELY)
            yield from self._taken(Step(found.module, found.name), seen)
        elif found.attributes is None or (found.name is None and found.bound != module and "." in module):
            yield Step(module, WHOLE)
            if module in self.scans and self.scans[module].lazy:
                for given in self.scans[module].imports:
                    yield from self._behind(given, seen)
        else:
            yield Step(module, MERELY)
            for name in found.attributes:
                yield from self._taken(Step(module, name), seen)

    def _taken(self, step: Step, seen: frozenset[Step]) -> Iterator[Step]:
        """What taking a name of a module takes: where it is passed on from, a module in it, or what it defines."""
        if step.module not in self.files or step in seen:
            return
        of = self.scans[step.module]
        kinds = ("top", "typing") if of.lazy else ("top",)
        passed_on = [found for found in of.imports if found.bound == step.taken and found.when in kinds]
        for found in passed_on:
            yield from self._behind(replace(found, attributes=None), seen | {step})
        if f"{step.module}.{step.taken}" in self.files:
            yield Step(f"{step.module}.{step.taken}", WHOLE)
        elif not passed_on:
            yield step


def build(root: Path, *, tests: bool = False) -> Graph:
    """Read every Python file below packages/*/src and replications/, and below tests/ if these are asked for."""
    files: dict[str, str] = {}
    scans: dict[str, Scan] = {}
    unread = []
    places = [(base, base) for base in sorted(root.glob("packages/*/src"))] + [(root, root / "replications")]
    places += [(root, root / "tests")] if tests else []
    for base, folder in places:
        for path in sorted(folder.rglob("*.py")):
            parts = path.relative_to(base).with_suffix("").parts
            name = ".".join(parts[:-1] if parts[-1] == "__init__" else parts)
            files[name] = path.relative_to(root).as_posix()
            try:
                scans[name] = scan(path.read_bytes(), ".".join(parts[:-1]))
            except (SyntaxError, ValueError, OSError, RecursionError):
                scans[name] = NOTHING
                unread.append(files[name])
    return Graph(files, scans, tuple(unread))


def _top(module: str) -> str:
    return module.partition(".")[0]


def chain(found: Mapping[str, str], name: str) -> str:
    """How a module is reached: "start > ... > name"."""
    steps = [name]
    while (by := found[steps[0]]) and by not in steps:
        steps.insert(0, by)
    return " > ".join(steps)

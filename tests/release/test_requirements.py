"""What a package imports is what it declares: nothing missing, nothing left over, and what is optional in an extra."""

from __future__ import annotations

import re
import sys
from collections.abc import Iterator
from functools import cache
from importlib.metadata import packages_distributions

import pytest
from packaging.utils import canonicalize_name
from tests.release.packages import BY_NAME, PACKAGES, ROOT, Package, names

from reprise.import_scan import Import, scan

each = pytest.mark.parametrize("package", PACKAGES, ids=lambda package: package.module)
# By the name that is imported; packages that are installed from a checkout name no module.
DISTRIBUTIONS = {**packages_distributions(), **{package.module: [package.name] for package in PACKAGES}}
# `reprise doctor` asks whether torch is there; no package of ours that has a model comes without it.
ASKED_FOR = {"reprise": {"torch"}}
# Needed by what the package imports: torch.utils.tensorboard; the view of interventions through nnsight.
IMPORTED_BY_OTHERS = {
    "reprise-training": {"tensorboard"},
    "reprise-function-vectors": {"nnsight"},
}
HINT = re.compile(r"(reprise[\w-]*)\[([\w,-]+)\]")


@cache
def modules(package: Package) -> dict[str, tuple[Import, ...]]:
    """What each module imports that can happen; imports for type checking alone cannot."""
    found = {}
    for path in sorted(package.source.rglob("*.py")):
        parts = path.relative_to(package.folder / "src").with_suffix("").parts
        inside = ".".join(parts[:-1])
        name = inside if parts[-1] == "__init__" else ".".join(parts)
        found[name] = tuple(one for one in scan(path.read_bytes(), inside).imports if one.when != "typing")
    return found


def loaded(package: Package) -> set[str]:
    """The modules that are there as soon as the package, a package in it, or an entry point is imported."""
    known = modules(package)
    packages = {name.rpartition(".")[0] for name in known if "." in name}
    points = {value.partition(":")[0] for group in package.entry_points.values() for value in group.values()}
    waiting = [*packages, *points, *(value.partition(":")[0] for value in package.scripts.values())]
    found: set[str] = set()
    for name in waiting:  # grows while it is read
        if name in known and name not in found:
            found.add(name)
            at_once = [one for one in known[name] if one.when == "top"]
            waiting += [one.module for one in at_once] + [f"{one.module}.{one.name}" for one in at_once]
    return found


def outside(package: Package) -> Iterator[tuple[str, Import]]:
    """Module and import, for imports of what is neither in the package nor in Python."""
    for name, found in modules(package).items():
        yield from ((name, one) for one in found if top(one) not in {package.module, *sys.stdlib_module_names})


def top(one: Import) -> str:
    return one.module.partition(".")[0]


def distributions(one: Import) -> set[str]:
    """The distributions that an import may come from; the module's own name where none is installed."""
    return {canonicalize_name(name) for name in DISTRIBUTIONS.get(top(one), [top(one)])}


@each
def test_imports_are_declared(package: Package) -> None:
    always = names(package.requires[""])
    some = names(requirement for extra in package.requires.values() for requirement in extra)
    at_once = loaded(package)
    for module, one in outside(package):
        plain = one.when == "top" and module in at_once
        assert distributions(one) & ((always if plain else some) | ASKED_FOR.get(package.name, set())), (
            f"{module} imports {one.module} {'at once' if plain else 'when it is asked to'}: declare "
            f"{' or '.join(distributions(one))} in packages/{package.folder.name}/pyproject.toml"
        )


@each
def test_declared_requirements_are_imported(package: Package) -> None:
    used = {name for _, one in outside(package) for name in distributions(one)}
    declared = names(requirement for extra in package.requires.values() for requirement in extra)
    assert declared - used - IMPORTED_BY_OTHERS.get(package.name, set()) == set()


def hints() -> Iterator[tuple[str, str, str]]:
    """File, distribution and extra, wherever code or a page of ours names an extra to install."""
    for path in sorted([*ROOT.glob("packages/*/src/**/*.py"), *ROOT.glob("packages/*/README.md")]):
        for name, extras in HINT.findall(path.read_text()):
            for extra in extras.split(","):
                yield str(path.relative_to(ROOT)), name, extra


def test_extras_that_are_named_exist() -> None:
    found = list(hints())
    assert len({(name, extra) for _, name, extra in found}) >= 6
    for file, name, extra in found:
        assert name in BY_NAME, f"{file}: no package {name}"
        assert extra in BY_NAME[name].requires, f"{file}: {name} has no extra {extra}"

"""What changes the hash of a stage's code, and what does not."""

from __future__ import annotations

import importlib.util
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from textwrap import dedent
from types import ModuleType
from typing import Any

import pytest

from reprise.fingerprint import code_sha256

LIBRARY = '''
"""A library of ours."""
import numpy as np

WINDOW = 3


def smooth(values):
    """Smooth."""
    return np.convolve(values, np.ones(WINDOW))


def unrelated(values):
    return values[::-1]


class Base:
    def first(self):
        return 1


class Probe(Base):
    """A probe."""

    depth = WINDOW

    def __init__(self, width=2):
        self.width = width

    @property
    def area(self):
        return self.helped() * 2

    @staticmethod
    def helped():
        return half(3)


def half(value):
    return value / 2
'''
# Imported inside functions alone.
LATER = """
def late():
    return 7


def early():
    return 8
"""

EXPERIMENT = '''
"""An experiment."""
from __future__ import annotations

import functools
from dataclasses import dataclass
from functools import cache, partial, wraps
from pathlib import Path

import msgspec
import numpy as np

import steering
from steering import Probe, smooth

RATE = 0.1
TABLE = {"a": [1, 2], "b": {"x", "y", "z"}}
ARRAY = np.array([1.0, 2.0])
STEPS = 4


@dataclass(frozen=True)
class Config:
    lr: float = 0.5
    names: tuple[str, ...] = ("p",)


class Limits(msgspec.Struct, frozen=True):
    low: float = 0.0


CONFIG = Config(names=("q",))
LIMITS = Limits(low=2.0)


def helper(value):
    # why
    return value * RATE


def chosen():
    return 1


def other():
    return 2


CHOICES = {"one": chosen}
PAIR = (chosen, other)


def doubled(function):
    @wraps(function)
    def wrapper(job):
        return function(job) * 2

    return wrapper


def plain(job):
    return helper(1)


def table(job):
    return TABLE["a"]


def array(job):
    return ARRAY.sum()


def config(job):
    return CONFIG.lr + LIMITS.low


def choice(job):
    return CHOICES["one"]()


def pair(job):
    return PAIR[0]()


def library(job):
    return smooth([1.0])


def through_module(job):
    return steering.half(2)


def probe(job):
    return Probe().area


def inside(job):
    from function_vectors import late

    return late()


def inside_module(job):
    import function_vectors as vectors

    return vectors.early()


def nested(job):
    def inner():
        return helper(2)

    return [inner() for _ in range(2)]


def defaults(job, steps=STEPS):
    return steps


def recursive(job, depth=2):
    return mutual(depth - 1) if depth else 0


def mutual(depth):
    return recursive(None, depth)


@cache
def cached(job):
    return helper(3)


@doubled
def decorated(job):
    return helper(4)


def make(factor):
    def stage(job):
        return factor

    return stage


closed = make(5)
bound = partial(plain, job=6)
called = functools.lru_cache()(lambda job: helper(7))
method = Probe(2).first
'''

FUNCTIONS = (
    *("plain", "table", "array", "config", "choice", "pair", "library", "through_module", "probe", "inside"),
    *("inside_module", "nested", "defaults", "recursive", "cached", "decorated", "closed", "bound", "called", "method"),
)
USE_HELPER = {"plain", "nested", "cached", "decorated", "bound", "called"}

Hashes = dict[str, str]
Hasher = Callable[..., Hashes]


def load(name: str, path: Path, text: str) -> ModuleType:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)
    spec = importlib.util.spec_from_file_location(name, path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module
    spec.loader.exec_module(module)
    return module


@pytest.fixture
def hashes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Hasher:
    """Hashes of all functions for texts of the modules, which take the names of an experiment and of two packages."""
    versions = iter(range(100))
    for name in ("steering", "function_vectors", "replications.toy.experiment"):
        monkeypatch.setitem(sys.modules, name, ModuleType(name))

    def of(experiment: str = EXPERIMENT, library: str = LIBRARY, later: str = LATER) -> Hashes:
        folder = tmp_path / str(next(versions))
        load("steering", folder / "steering.py", library)
        load("function_vectors", folder / "function_vectors.py", later)
        module = load("replications.toy.experiment", folder / "experiment.py", experiment)
        return {name: code_sha256(getattr(module, name)) for name in FUNCTIONS}

    return of


CHANGES: dict[str, tuple[str, str, set[str]]] = {
    "a constant": ("RATE = 0.1", "RATE = 0.2", USE_HELPER),
    "a helper": ("return value * RATE", "return RATE * value", USE_HELPER),
    "a list in a dict": ('"a": [1, 2]', '"a": [1, 3]', {"table"}),
    "a set in a dict": ('"y", "z"}', '"y", "w"}', {"table"}),
    "an array": ("np.array([1.0, 2.0])", "np.array([1.0, 2.5])", {"array"}),
    "a type of an array": ("np.array([1.0, 2.0])", "np.array([1.0, 2.0], dtype='f4')", {"array"}),
    "a field of a constant dataclass": ('Config(names=("q",))', 'Config(names=("r",))', {"config"}),
    "a default of a dataclass": ("lr: float = 0.5", "lr: float = 0.6", {"config"}),
    "a field of a constant struct": ("Limits(low=2.0)", "Limits(low=3.0)", {"config"}),
    "a function in a dict": ("    return 1\n", "    return 10\n", {"choice", "pair"}),
    "a function in a tuple": ("    return 2\n", "    return 20\n", {"pair"}),
    "which function a dict holds": ('{"one": chosen}', '{"one": other}', {"choice"}),
    "a default argument's constant": ("STEPS = 4", "STEPS = 5", {"defaults"}),
    "a function that calls back": ("recursive(None, depth)", "recursive(0, depth)", {"recursive"}),
    "a decorator": ("function(job) * 2", "function(job) * 3", {"decorated"}),
    "a closed-over variable": ("make(5)", "make(6)", {"closed"}),
    "an argument of a partial": ("job=6", "job=7", {"bound"}),
    "a lambda in a call": ("lambda job: helper(7)", "lambda job: helper(8)", {"called"}),
    "the instance of a method": ("Probe(2).first", "Probe(3).first", {"method"}),
    "the function itself": ("return ARRAY.sum()", "return ARRAY.mean()", {"array"}),
}
LIBRARY_CHANGES: dict[str, tuple[str, str, set[str]]] = {
    "a function of a package": ("np.ones(WINDOW)", "np.zeros(WINDOW)", {"library"}),
    "a constant of a package": ("WINDOW = 3", "WINDOW = 4", {"library", "probe", "method"}),
    "a method": ("self.helped() * 2", "self.helped() * 3", {"probe", "method"}),
    "a function that a method uses": ("value / 2", "value / 3", {"probe", "through_module", "method"}),
    "a base class": ("        return 1\n", "        return 2\n", {"probe", "method"}),
}
NO_CHANGES: dict[str, tuple[str, str]] = {
    "a comment": ("# why", "# why not"),
    "a docstring": ('"""An experiment."""', '"""Another."""'),
    "layout": ("def helper(value):\n", "\n\n\ndef helper(\n    value,\n):\n"),
    "the order of a set": ('{"x", "y", "z"}', '{"z", "x", "y"}'),
}


def changed(before: Hashes, after: Hashes) -> set[str]:
    return {name for name in FUNCTIONS if before[name] != after[name]}


@pytest.mark.parametrize("name", CHANGES)
def test_a_change_of_the_experiment_changes_the_functions_that_reach_it(hashes: Hasher, name: str) -> None:
    old, new, reached = CHANGES[name]
    assert EXPERIMENT.count(old) == 1
    before, after = hashes(), hashes(EXPERIMENT.replace(old, new))
    assert changed(before, after) == reached


@pytest.mark.parametrize("name", LIBRARY_CHANGES)
def test_a_change_of_a_package_changes_the_functions_that_reach_it(hashes: Hasher, name: str) -> None:
    old, new, reached = LIBRARY_CHANGES[name]
    assert LIBRARY.count(old) == 1
    assert changed(hashes(), hashes(library=LIBRARY.replace(old, new))) == reached


@pytest.mark.parametrize(("old", "new", "reached"), [("7", "17", "inside"), ("8", "18", "inside_module")])
def test_what_is_imported_inside_a_function_is_reached(hashes: Hasher, old: str, new: str, reached: str) -> None:
    assert changed(hashes(), hashes(later=LATER.replace(old, new))) == {reached}


@pytest.mark.parametrize("name", NO_CHANGES)
def test_comments_docstrings_and_layout_do_not_count(hashes: Hasher, name: str) -> None:
    old, new = NO_CHANGES[name]
    assert EXPERIMENT.count(old) == 1
    assert changed(hashes(), hashes(EXPERIMENT.replace(old, new))) == set()


def test_docstrings_and_unrelated_functions_of_a_package_do_not_count(hashes: Hasher) -> None:
    library = LIBRARY.replace('"""Smooth."""', "").replace('"""A probe."""', "").replace("values[::-1]", "values")
    assert changed(hashes(), hashes(library=library)) == set()


def test_other_packages_are_not_followed(hashes: Hasher, monkeypatch: pytest.MonkeyPatch) -> None:
    import msgspec
    import numpy as np

    before = hashes()
    monkeypatch.setattr(np, "ones", np.zeros)
    monkeypatch.setattr(msgspec, "Raw", object)
    assert changed(before, hashes()) == set()


def test_how_a_class_shows_itself_does_not_count(hashes: Hasher) -> None:
    shown = LIBRARY.replace(
        "        return half(3)\n",
        "        return half(3)\n\n    def __repr__(self):\n        return str(smooth(self.width))\n\n"
        "    def _repr_html_(self):\n        return unrelated('')\n\n    def plot(self):\n        return WINDOW\n",
    )
    other = shown.replace("plot(", "draw(")
    assert len({LIBRARY, shown, other}) == 3
    assert changed(hashes(), hashes(library=shown)) == set()
    assert changed(hashes(), hashes(library=other)) == changed(
        hashes(), hashes(library=LIBRARY.replace("helped() * 2", "helped() * 3"))
    )


def test_what_a_library_keeps_on_a_class_while_a_run_goes_on_does_not_count(tmp_path: Path) -> None:
    text = "class Ours:\n    _depth = 2\n\n\ndef stage():\n    return Ours\n"
    module = load("zoo.of_this_test", tmp_path / "of_this_test.py", text)
    before = code_sha256(module.stage)
    module.Ours._cached = True
    assert code_sha256(module.stage) == before
    module.Ours._depth = 3
    assert code_sha256(module.stage) != before


def test_registries_of_other_packages_may_fill_while_a_run_goes_on() -> None:
    from reprise.fingerprint import code_sha256

    class Registry(dict[str, int]):
        pass

    def hashed(registry: dict[str, int]) -> str:
        def stage() -> object:
            return registry

        return code_sha256(stage)

    Registry.__module__ = "transformers.registries"
    assert hashed(Registry(eager=1)) == hashed(Registry(eager=1, ours=2))
    assert hashed({"eager": 1}) != hashed({"eager": 1, "ours": 2})


def test_every_process_gives_the_same_hashes(tmp_path: Path) -> None:
    program = dedent(
        """
        import sys
        sys.path.insert(0, sys.argv[1])
        import replications.toy.experiment as module
        from reprise.fingerprint import code_sha256
        print([code_sha256(getattr(module, name)) for name in sys.argv[2:]])
        """
    )
    for name, text in (
        ("steering.py", LIBRARY),
        ("function_vectors.py", LATER),
        ("replications/toy/experiment.py", EXPERIMENT),
    ):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(text)

    def output(hash_seed: str) -> str:
        arguments: list[Any] = [sys.executable, "-c", program, str(tmp_path), *FUNCTIONS]
        environment = {"PYTHONHASHSEED": hash_seed, "PATH": ""}
        return subprocess.run(arguments, env=environment, capture_output=True, text=True, check=True).stdout

    first = output("1")
    assert len(set(first.split())) == len(FUNCTIONS)
    assert first == output("2")

"""A hash of the code that a stage runs: it changes when that code changes, and not when other code does.

The hash covers the function's syntax tree, its default arguments and the variables that it closes over and, following
the global names and the imports that it uses, every function, class and constant of our own packages that it can
reach: numbers and strings, containers, arrays, dataclasses and structs. Comments, docstrings and layout do not count,
nor does how a class shows itself (`__repr__`, `_repr_html_` and the like, `plot`): no result depends on that.
Code reached by other ways (a method looked up by a string, the inside of other packages' objects) is not seen;
`--fresh` is there for that.
"""

from __future__ import annotations

import ast
import enum
import hashlib
import importlib
import importlib.util
import inspect
import re
import textwrap
import threading
from collections.abc import Callable, Iterable, Iterator, Mapping, Set
from dataclasses import dataclass, field
from functools import cache, partial
from pathlib import PurePath
from types import CodeType, FunctionType, MethodType, ModuleType
from typing import Any

OWN = frozenset({"circuits", "function_vectors", "interventions", "replications", "steering", "training", "zoo"})
_REPR = (bool, int, float, complex, str, bytes, type(None), type(...), slice, range, re.Pattern, PurePath, enum.Enum)
_SHOWS = re.compile(r"__repr__|_repr_\w+_|plot")
_OF_PYTHON = frozenset({"_abc_impl", "_is_protocol", "_is_runtime_protocol"})
_PLAIN = frozenset({"builtins", "collections", "types"})
_PARSES = threading.Lock()  # ast.parse counts its depth for all threads together, and fails where two of them parse


def code_sha256(function: Callable[..., Any]) -> str:
    """The hash of a function and of everything of ours that it reaches."""
    reach = _Reach()
    with _PARSES:
        reach.collect(function)
    return hashlib.sha256("\0".join(sorted(reach.texts)).encode()).hexdigest()


@dataclass
class _Reach:
    """What was reached so far: a text for each function, class and constant, and the objects that were visited."""

    texts: set[str] = field(default_factory=set)
    visited: dict[int, object] = field(default_factory=dict)

    def collect(self, value: Any) -> None:
        """Add a function, class or partial of ours and all that it reaches."""
        if id(value) in self.visited:
            return
        self.visited[id(value)] = value
        if isinstance(value, type):
            self._collect_class(value)
        elif isinstance(value, FunctionType):
            self.texts.add(f"{_name(value)}\0{_syntax(value)}")
            self._collect_uses(value, _tree(value))
        elif isinstance(value, MethodType):
            self.collect(value.__func__)
            self.texts.add(f"{value.__func__.__qualname__} of {self.describe(value.__self__)}")
        elif isinstance(value, partial):
            self.texts.add(f"partial {self.describe(value.args)} {self.describe(value.keywords)}")
            self.collect(value.func)
        if hasattr(value, "__wrapped__"):
            self.collect(value.__wrapped__)

    def describe(self, value: Any) -> str:
        """A value as text that is the same in every process; code of ours that it holds is collected."""
        if isinstance(value, _REPR):
            return repr(value)
        kind = f"{type(value).__module__}.{type(value).__qualname__}"
        if isinstance(value, type | partial) or inspect.isroutine(value):
            if isinstance(value, partial) or _is_own(_module(value)):
                self.collect(value)
            return f"{_module(value)}.{getattr(value, '__qualname__', kind)}"
        if id(value) in self.visited:
            return f"{kind} again"
        self.visited[id(value)] = value
        described = f"{kind}{self._contents(value)}"
        del self.visited[id(value)]
        return described

    def _contents(self, value: Any) -> str:
        if isinstance(value, Mapping):
            if not _is_own(type(value).__module__) and type(value).__module__ not in _PLAIN:
                return ""  # a registry of another package: it fills while a run goes on
            return f"{[f'{self.describe(key)}: {self.describe(of)}' for key, of in value.items()]}"
        if isinstance(value, Set):
            return f"{sorted(map(self.describe, value))}"
        if isinstance(value, list | tuple):
            return f"{[self.describe(item) for item in value]}"
        if hasattr(value, "tobytes") and hasattr(value, "dtype"):
            return f"{value.shape} {value.dtype.str} {hashlib.sha256(value.tobytes()).hexdigest()}"
        fields = getattr(value, "__struct_fields__", ()) or getattr(value, "__dataclass_fields__", ())
        if _is_own(type(value).__module__):
            self.collect(type(value))
            fields = fields or getattr(value, "__dict__", ())
        return f"{[f'{name}={self.describe(getattr(value, name, None))}' for name in fields]}"

    def _collect_class(self, value: type) -> None:
        self.texts.add(f"{_name(value)}\0{_syntax(value)}\0{self.describe(getattr(value, '__struct_defaults__', ()))}")
        for base in value.__mro__[1:]:
            if _is_own(base.__module__):
                self.collect(base)
        for name, member in vars(value).items():
            if _SHOWS.fullmatch(name):
                continue
            method = getattr(member, "fget", None) or getattr(member, "func", None) or member
            method = inspect.unwrap(getattr(method, "__func__", method))
            if isinstance(method, FunctionType):
                self._collect_uses(method, _tree(value))
            elif not name.startswith("__") and not _set_later(value, name):
                self.texts.add(f"{_name(value)}.{name}\0{self.describe(member)}")

    def _collect_uses(self, function: FunctionType, tree: ast.AST | None) -> None:
        """Follow the default arguments, closed-over variables, global names and imports of a function."""
        label = _name(function)
        cells = dict(zip(function.__code__.co_freevars, function.__closure__ or (), strict=True))
        held = {name: cell.cell_contents for name, cell in cells.items() if name != "__class__" and _is_filled(cell)}
        for values in (function.__defaults__, function.__kwdefaults__, held):
            if values:
                self.texts.add(f"{label}\0{self.describe(values)}")
        names = set(_names(function.__code__))
        for name in names & function.__globals__.keys():
            self._follow(f"{function.__module__}.{name}", function.__globals__[name], names)
        for module, name in _imports(tree, function):
            self._follow(f"{module.__name__}.{name}", getattr(module, name, module), names)

    def _follow(self, label: str, value: Any, names: set[str]) -> None:
        """Describe what a name stands for; through a module of ours, the attributes that are used."""
        if not isinstance(value, ModuleType):
            self.texts.add(f"{label}\0{self.describe(value)}")
        elif _is_own(value.__name__) and id(value) not in self.visited:
            self.visited[id(value)] = value
            for name in names & vars(value).keys():
                self._follow(f"{value.__name__}.{name}", vars(value)[name], names)
            del self.visited[id(value)]


def _is_filled(cell: Any) -> bool:
    try:
        return cell.cell_contents is not cell
    except ValueError:  # a variable that is assigned later
        return False


def _is_own(module: str) -> bool:
    return module.split(".", 1)[0] in OWN


def _module(value: Any) -> str:
    return getattr(value, "__module__", "") or ""


def _name(value: FunctionType | type) -> str:
    """Unlike `__qualname__`, a name that a decorated function does not share with its wrapper."""
    return f"{value.__module__}.{value.__code__.co_qualname if isinstance(value, FunctionType) else value.__qualname__}"


def _names(code: CodeType) -> Iterator[str]:
    yield from code.co_names
    for constant in code.co_consts:
        if isinstance(constant, CodeType):
            yield from _names(constant)


def _imports(tree: ast.AST | None, function: FunctionType) -> Iterator[tuple[ModuleType, str]]:
    """The modules of ours that are imported inside the function, each with the name that is taken from it."""
    for node in _import_statements(tree) if tree else ():
        if isinstance(node, ast.Import):
            for alias in node.names:
                if _is_own(alias.name):
                    yield importlib.import_module(alias.name), ""
        else:
            relative = "." * node.level + (node.module or "")
            name = importlib.util.resolve_name(relative, function.__globals__.get("__package__"))
            if _is_own(name):
                module = importlib.import_module(name)
                for alias in node.names:
                    if not hasattr(module, alias.name) and importlib.util.find_spec(f"{name}.{alias.name}"):
                        importlib.import_module(f"{name}.{alias.name}")
                    yield module, alias.name


@cache
def _import_statements(tree: ast.AST) -> tuple[ast.Import | ast.ImportFrom, ...]:
    """Those anywhere in a tree; kept, since a class' tree is asked for each of its methods."""
    return tuple(node for node in ast.walk(tree) if isinstance(node, ast.Import | ast.ImportFrom))


@cache
def _tree(value: FunctionType | type) -> ast.AST | None:
    """The syntax tree without docstrings and what shows a class.

    None for code without a source of its own, such as a lambda in a call.
    """
    try:
        # Of the code, since the source of a wrapper is taken to be that of the function inside.
        source = inspect.getsource(value.__code__ if isinstance(value, FunctionType) else value)
        tree = ast.parse(textwrap.dedent(source))
    except (OSError, TypeError, SyntaxError):
        return None
    for node in ast.walk(tree):
        if isinstance(node, ast.ClassDef):
            node.body = [of for of in node.body if not _shows(of)] or [ast.Pass()]
        if isinstance(node, ast.FunctionDef | ast.ClassDef | ast.AsyncFunctionDef):
            first = node.body[0]
            if isinstance(first, ast.Expr) and isinstance(first.value, ast.Constant):
                node.body = node.body[1:] or [ast.Pass()]
    return tree


def _set_later(value: type, name: str) -> bool:
    """Whether a library keeps this name on a class while a run goes on: private, and nowhere in the class' body."""
    tree = _tree(value)
    if tree is None or not name.startswith("_") or name in _OF_PYTHON:
        return False
    return name not in {node.id for node in ast.walk(tree) if isinstance(node, ast.Name)}


def _shows(node: ast.stmt) -> bool:
    return isinstance(node, ast.FunctionDef) and _SHOWS.fullmatch(node.name) is not None


@cache
def _syntax(value: FunctionType | type) -> str:
    tree = _tree(value)
    if tree is not None:
        return ast.dump(tree)
    return " ".join(_instructions(value.__code__)) if isinstance(value, FunctionType) else ""


def _instructions(code: CodeType) -> Iterable[str]:
    yield code.co_code.hex()
    for constant in code.co_consts:
        if isinstance(constant, CodeType):
            yield from _instructions(constant)
        else:
            yield repr(sorted(constant, key=repr) if isinstance(constant, frozenset) else constant)
    yield repr(code.co_names)

"""A hash of the code that a stage runs: it changes when that code changes, and not when other code does.

The hash covers the function's syntax tree and, following the global names that it uses, every function, class and
constant of our own packages that it can reach. Comments, docstrings and layout do not count. Code reached by other
ways (a method looked up by a string, a callable passed in data) is not seen; `--fresh` is there for that.
"""

from __future__ import annotations

import ast
import hashlib
import inspect
import textwrap
from collections.abc import Iterator
from functools import cache
from types import CodeType, FunctionType, ModuleType
from typing import Any

OWN = frozenset({"circuits", "function_vectors", "interventions", "replications", "steering", "training", "zoo"})
_PLAIN = (bool, int, float, str, bytes, tuple, frozenset, type(None))


def code_sha256(function: FunctionType) -> str:
    """The hash of a function and of everything of ours that it reaches."""
    reached: dict[str, str] = {}
    _collect(function, reached)
    digest = hashlib.sha256()
    for name, text in sorted(reached.items()):
        digest.update(f"{name}\0{text}\0".encode())
    return digest.hexdigest()


def _collect(value: Any, reached: dict[str, str]) -> None:
    value = inspect.unwrap(value) if callable(value) else value
    name = f"{value.__module__}.{value.__qualname__}"
    if name in reached:
        return
    reached[name] = _syntax(value)
    for function in _functions(value):
        names = set(_names(function.__code__))
        for used in sorted(names & function.__globals__.keys()):
            _follow(f"{function.__module__}.{used}", function.__globals__[used], names, reached)


def _follow(label: str, value: Any, names: set[str], reached: dict[str, str]) -> None:
    """Collect what a global name stands for, if it is ours; through a module, the attributes that are used."""
    if isinstance(value, ModuleType):
        if _is_own(value.__name__):
            for attribute in sorted(names & vars(value).keys()):
                _follow(f"{value.__name__}.{attribute}", vars(value)[attribute], names, reached)
    elif isinstance(value, type) or inspect.isroutine(value):
        if _is_own(getattr(value, "__module__", "") or ""):
            _collect(value, reached)
    elif isinstance(value, _PLAIN):
        reached[label] = repr(value)


def _functions(value: Any) -> Iterator[FunctionType]:
    if isinstance(value, FunctionType):
        yield value
    elif isinstance(value, type):
        for member in vars(value).values():
            member = getattr(member, "fget", None) or getattr(member, "__func__", None) or member
            if isinstance(member, FunctionType):
                yield inspect.unwrap(member)


def _names(code: CodeType) -> Iterator[str]:
    yield from code.co_names
    for constant in code.co_consts:
        if isinstance(constant, CodeType):
            yield from _names(constant)


@cache
def _syntax(value: Any) -> str:
    """The syntax tree as text, without docstrings and positions."""
    tree = ast.parse(textwrap.dedent(inspect.getsource(value)))
    for node in ast.walk(tree):
        body = getattr(node, "body", None)
        if isinstance(body, list) and body and isinstance(node, ast.FunctionDef | ast.ClassDef | ast.AsyncFunctionDef):
            first = body[0]
            if (
                isinstance(first, ast.Expr)
                and isinstance(first.value, ast.Constant)
                and isinstance(first.value.value, str)
            ):
                node.body = body[1:] or [ast.Pass()]
    return ast.dump(tree)


def _is_own(module: str) -> bool:
    return module.split(".", 1)[0] in OWN

"""What one Python file imports, what in it reads what, and which words it holds; from the syntax tree, nothing is run.

Imports at the file's top level happen when it is imported; those inside a function when that is called; those for type
checking alone never. A package that imports names on first use (`__getattr__` in its __init__.py) lists them, for
readers and type checkers, among the last: there they say which name comes from which module.
"""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

IMPORTERS = frozenset({"import_module", "__import__"})
# The owner of what belongs to no definition: bare statements, and what a decorator may have put into some table.
ALWAYS = ""
QUOTED = re.compile(r"\b(?:from[ ]+([\w.]+)[ ]+)?import[ ]+([\w.]+(?:[ ]*,[ ]*\w+)*)")


@dataclass(frozen=True)
class Import:
    """`import module`, or `from module import name` for one name, bound to a name of the file.

    `attributes` are those that the file takes of what it has imported; None where it is used otherwise, too. `inside`
    is the definition at the top level that holds the statement.
    """

    module: str
    name: str | None
    bound: str
    attributes: frozenset[str] | None
    when: str  # "top", "call" or "typing"
    inside: str


@dataclass(frozen=True)
class Scan:
    """One file.

    `reads` maps each definition at the top level to the names that are read in it. `lazy` says whether the file gives
    names on first use. `computed` are the definitions that import by a name which is computed. `quoted` are
    the modules, or names in modules, that code in strings seems to import.
    """

    imports: tuple[Import, ...]
    reads: Mapping[str, frozenset[str]]
    lazy: bool
    computed: frozenset[str]
    words: frozenset[str]
    quoted: frozenset[str] = frozenset()

    def uses(self, name: str | None) -> frozenset[str]:
        """The definitions that one of them leads to inside the file; all for None and for a name that is not known."""
        if name is None or name not in self.reads:
            return frozenset(self.reads)
        found: set[str] = set()
        waiting = [name, ALWAYS]
        for one in waiting:  # grows while it is read
            if one in self.reads and one not in found:
                found.add(one)
                waiting += self.reads[one]
        return frozenset(found)


NOTHING = Scan((), {}, False, frozenset(), frozenset())


def scan(source: bytes, package: str) -> Scan:
    """Read a file that belongs to `package` (for relative imports).

    Raises:
        SyntaxError, ValueError: it is no Python.
    """
    tree = ast.parse(source)
    owned = [(owner, node, list(ast.walk(node))) for owner, node in _owned(tree.body)]
    used = _used([node for _, _, nodes in owned for node in nodes])
    imports: list[Import] = []
    reads: dict[str, set[str]] = {ALWAYS: set()}
    computed = set()
    words: set[str] = set()
    quoted: set[str] = set()
    for owner, top, nodes in owned:
        read = {node.id for node in nodes if isinstance(node, ast.Name) and isinstance(node.ctx, ast.Load)}
        reads.setdefault(owner, set()).update(read)
        if getattr(top, "decorator_list", ()):
            reads[ALWAYS].add(owner)
        for node, when in _statements([top], "top"):
            for module, name, bound in _imported(node, package):
                imports.append(Import(module, name, bound, used.get(bound, frozenset()), when, owner))
        for argument in _import_calls(nodes):
            if isinstance(argument, ast.Constant):
                imports.append(Import(str(argument.value), None, ALWAYS, None, "call", owner))
            else:
                computed.add(owner)
        words.update(_words(nodes))
        quoted.update(_quoted(nodes))
    lazy = any(isinstance(node, ast.FunctionDef) and node.name == "__getattr__" for node in tree.body)
    frozen = {owner: frozenset(names) for owner, names in reads.items()}
    return Scan(tuple(imports), frozen, lazy, frozenset(computed), frozenset(words), frozenset(quoted))


def _owned(body: Sequence[ast.stmt]) -> Iterator[tuple[str, ast.stmt]]:
    """The statements at the top level, each with the name that it defines, if it defines one."""
    for node in body:
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
            yield node.name, node
            continue
        targets = node.targets if isinstance(node, ast.Assign) else [getattr(node, "target", None)]
        names = [target.id for target in targets if isinstance(target, ast.Name)]
        simple = isinstance(node, ast.Assign | ast.AnnAssign) and len(names) == len(targets) == 1
        yield (names[0] if simple else ALWAYS), node


def _statements(body: Sequence[ast.stmt], when: str) -> Iterator[tuple[ast.stmt, str]]:
    """Import statements with the time at which they run."""
    for node in body:
        if isinstance(node, ast.Import | ast.ImportFrom):
            yield node, when
            continue
        inside = "call" if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef) else when
        if isinstance(node, ast.If) and "TYPE_CHECKING" in ast.dump(node.test):
            yield from _statements(node.body, "typing")
            yield from _statements(node.orelse, when)
            continue
        for field in ("body", "orelse", "finalbody"):
            if isinstance(statements := getattr(node, field, None), list):
                yield from _statements(statements, inside)
        for part in (*getattr(node, "handlers", ()), *getattr(node, "cases", ())):
            yield from _statements(part.body, inside)


def _imported(node: ast.stmt, package: str) -> Iterator[tuple[str, str | None, str]]:
    """Module, name and the name that is bound, for each name of an import statement."""
    if isinstance(node, ast.Import):
        for alias in node.names:
            yield alias.name, None, alias.asname or alias.name.partition(".")[0]
    elif isinstance(node, ast.ImportFrom):
        parents = package.split(".")
        above = parents[: len(parents) - node.level + 1] if node.level else []
        module = ".".join([*above, *([node.module] if node.module else [])])
        for alias in node.names:
            yield module, alias.name, alias.asname or alias.name


def _used(nodes: Sequence[ast.AST]) -> dict[str, frozenset[str] | None]:
    """For each name that is read, the attributes taken of it; None where it is read as a whole as well."""
    taken: dict[str, set[str]] = {}
    of_attributes = set()
    for node in nodes:
        if isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name):
            taken.setdefault(node.value.id, set()).add(node.attr)
            of_attributes.add(id(node.value))
    whole = {node.id for node in nodes if isinstance(node, ast.Name) and id(node) not in of_attributes}
    return {name: None if name in whole else frozenset(taken.get(name, ())) for name in {*taken, *whole}}


def _import_calls(nodes: Sequence[ast.AST]) -> Iterator[ast.expr]:
    """What import functions are called with."""
    for node in nodes:
        if isinstance(node, ast.Call) and node.args and _callee(node) in IMPORTERS:
            yield node.args[0]


def _callee(node: ast.Call) -> str:
    return str(getattr(node.func, "attr", getattr(node.func, "id", "")))


def _quoted(nodes: Sequence[ast.AST]) -> Iterator[str]:
    """What import statements in strings name: a module, or a module and a name of it."""
    for node in nodes:
        if isinstance(node, ast.Constant) and isinstance(node.value, str) and "import" in node.value:
            for module, listed in QUOTED.findall(node.value):
                names = (name.strip() for name in listed.split(","))
                yield from (f"{module}.{name}" if module else name for name in names)


def _words(nodes: Sequence[ast.AST]) -> Iterator[str]:
    """The components of all strings that may be paths or parts of some; docstrings do not count."""
    docstrings = {id(node.value) for node in nodes if isinstance(node, ast.Expr)}
    for node in nodes:
        if isinstance(node, ast.Constant) and isinstance(node.value, str) and id(node) not in docstrings:
            yield from (word for word in node.value.split("/") if word and not any(map(str.isspace, word)))

"""Directives `package` and `commands`: the reference of a package's public names, and of the command line.

    .. package:: circuits

shows, for every module that the package's `__init__.py` imports public names from, the module's docstring (the method)
and below it those names (autodoc). The order is that of the imports, found by reading the file: names that are made on
first use, and constants, which know no module, stand where they belong. Every name of `__all__` must be found, or the
build stops.

    .. commands::

shows the help text of every `reprise` command, as the command itself prints it.
"""

from __future__ import annotations

import ast
import importlib
import inspect
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING, Any

from docstrings import to_rst
from sphinx.pycode import ModuleAnalyzer
from sphinx.util.docutils import SphinxDirective

if TYPE_CHECKING:
    from docutils import nodes
    from sphinx.application import Sphinx

LONGEST_VALUE = 120  # characters: a longer constant is named and described, not shown


def setup(app: Sphinx) -> dict[str, Any]:
    app.add_directive("package", Package)
    app.add_directive("commands", Commands)
    return {"parallel_read_safe": True}


class Package(SphinxDirective):
    required_arguments = 1

    def run(self) -> list[nodes.Node]:
        package = importlib.import_module(self.arguments[0])
        self.env.note_dependency(str(inspect.getsourcefile(package)))
        return self.parse_text_to_nodes(reference(package), allow_section_headings=True)


class Commands(SphinxDirective):
    def run(self) -> list[nodes.Node]:
        return self.parse_text_to_nodes(commands(), allow_section_headings=True)


def public_names(package: ModuleType) -> dict[str, list[str]]:
    """Names of `__all__` by the module they are imported from, in the order of the imports; own ones first.

    Raises:
        LookupError: a name of `__all__` that the file neither imports nor defines.
    """
    wanted = set(package.__all__)
    tree = ast.parse(Path(str(package.__file__)).read_text(encoding="utf-8"))
    found: dict[str, list[str]] = {}
    for node in ast.walk(tree):
        if isinstance(node, ast.ImportFrom) and node.module and node.level == 0:
            names = [alias.asname or alias.name for alias in node.names]
            found.setdefault(node.module, []).extend(name for name in names if name in wanted)
    imported = {name for names in found.values() for name in names}
    own = [name for name in package.__all__ if name not in imported and name in vars(package)]
    if missing := wanted - imported - set(own):
        raise LookupError(
            f"{package.__name__}.__all__: {', '.join(sorted(missing))}: neither imported nor defined there"
        )
    return {module: names for module, names in ({package.__name__: own} | found).items() if names}


def reference(package: ModuleType) -> str:
    """The package's reference, in reStructuredText."""
    text = [f".. automodule:: {package.__name__}", "   :no-members:", ""]
    for module, names in public_names(package).items():
        objects = {name: getattr(package, name) for name in names}
        plain = {name: value for name, value in objects.items() if not inspect.ismodule(value)}
        if plain and module != package.__name__:
            text += [*heading(module.removeprefix(f"{package.__name__}."), "-"), f".. automodule:: {module}"]
            text += ["   :no-members:", "   :no-index:", ""]
        for name, value in plain.items():
            text += [*entry(f"{package.__name__}.{name}", value, module), ""]
        for value in objects.values():
            if inspect.ismodule(value):
                text += [*heading(value.__name__, "-"), module_reference(value)]
    return "\n".join(text)


def module_reference(module: ModuleType) -> str:
    """A module that is public as a whole: everything of `__all__`, or what it defines without an underscore."""
    tree = ast.parse(inspect.getsource(module))
    defined = [name for node in tree.body for name in _bound(node)]
    home = {name: str(node.module) for node in tree.body if isinstance(node, ast.ImportFrom) for name in _bound(node)}
    text = [f".. automodule:: {module.__name__}", "   :no-members:", ""]
    for name in getattr(module, "__all__", [name for name in defined if name not in home and name[0] != "_"]):
        text += [*entry(f"{module.__name__}.{name}", getattr(module, name), home.get(name, module.__name__)), ""]
    return "\n".join(text)


def entry(name: str, value: object, module: str) -> list[str]:
    """The directive for a public name that `module` defines."""
    know_annotations(importlib.import_module(module))
    if inspect.isclass(value):
        kind = "autoexception" if issubclass(value, BaseException) else "autoclass"
        return [f".. {kind}:: {name}", "   :members:", "   :undoc-members:"]
    if inspect.isroutine(value):
        return [f".. autofunction:: {name}"]
    # A constant has no docstring of its own: what stands below or beside it in the source is shown, and a short value.
    analyzer = ModuleAnalyzer.for_module(module)
    owner, _, short = name.rpartition(".")
    about = analyzer.find_attr_docs().get(("", short), [])
    source = next((node for node in ast.parse(analyzer.code).body if short in _bound(node)), None)
    written = ast.unparse(source.value) if isinstance(source, ast.Assign | ast.AnnAssign) and source.value else ""
    shown = [f"   :value: {written}"] if 0 < len(written) <= LONGEST_VALUE else []
    return [
        f".. py:currentmodule:: {owner}",
        "",
        f".. py:data:: {short}",
        *shown,
        "",
        *("   " + line for line in to_rst(list(about))),
    ]


def know_annotations(module: ModuleType) -> None:
    """Import what `module` imports for its annotations alone: signatures are evaluated to be shown."""
    for block in ast.parse(inspect.getsource(module)).body:
        if isinstance(block, ast.If) and ast.unparse(block.test).endswith("TYPE_CHECKING"):
            for node in block.body:
                if isinstance(node, ast.ImportFrom) and node.module:
                    for alias in node.names:
                        value = getattr(importlib.import_module(node.module), alias.name)
                        vars(module).setdefault(alias.asname or alias.name, value)


def _bound(node: ast.stmt) -> list[str]:
    """Names that a statement gives to something."""
    match node:
        case ast.FunctionDef(name=name) | ast.ClassDef(name=name):
            return [name]
        case ast.Assign(targets=targets):
            return [target.id for target in targets if isinstance(target, ast.Name)]
        case ast.AnnAssign(target=ast.Name(id=name)):
            return [name]
        case ast.ImportFrom(names=names):
            return [alias.asname or alias.name for alias in names]
    return []


def heading(title: str, underline: str) -> list[str]:
    return [title, underline * len(title), ""]


def commands() -> str:
    """Help texts of all commands as literal blocks, in reStructuredText."""
    from typer.main import get_command

    from reprise import cli

    cli._register()
    group: Any = get_command(cli.app)
    top = group.make_context("reprise", [], resilient_parsing=True)
    text: list[str] = []
    for name in ("", *group.list_commands(top)):
        title = f"reprise {name}".strip()
        command = group.get_command(top, name) if name else group
        context = command.make_context(title, [], resilient_parsing=True, max_content_width=88, terminal_width=88)
        shown = context.command.get_help(context)
        text += heading(title, "-")
        text += [".. code-block:: none", "", *("   " + line for line in shown.rstrip().splitlines()), ""]
    return "\n".join(text)

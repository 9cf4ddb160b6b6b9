""".github/CODEOWNERS, generated from the owner in every package's pyproject.toml and every paper.toml.

`python -m reprise.codeowners` writes the file below the current folder; with `--check` it compares only.
"""

from __future__ import annotations

import sys
import tomllib
from collections.abc import Sequence
from pathlib import Path

from reprise import paper as papers
from reprise import store, workspace
from reprise.errors import UserError

DEFAULT_OWNER = "@reprise/maintainers"
FILE = Path(".github", "CODEOWNERS")
_HEAD = "# Generated from the owners in packages/*/pyproject.toml and replications/*/paper.toml: change them there,\n"
_REMEDY = "run `python -m reprise.codeowners`"


def render(root: Path) -> str:
    """The text of CODEOWNERS; tests are owned with what they test, everything else by the maintainers.

    Raises:
        UserError: naming the file that states no owner.
    """
    owners = {"*": DEFAULT_OWNER}
    for path in sorted(root.glob("packages/*/pyproject.toml")):
        owner = _owner(path, "tool", "reprise", "owner")
        owners[f"/packages/{path.parent.name}/"] = owner
        owners[f"/tests/{path.parent.name}/"] = owner
    for folder in workspace.folders(root):
        if (folder / "paper.toml").exists():
            owner = _owner(folder / "paper.toml", "owner")
            owners[f"/replications/{folder.name}/"] = owner
            owners[f"/tests/replications/test_{folder.name}.py"] = owner
    width = max(map(len, owners))
    lines = (f"{pattern:<{width}} {owner}\n" for pattern, owner in owners.items())
    return f"{_HEAD}# then {_REMEDY}.\n" + "".join(lines)


def main(arguments: Sequence[str], root: Path) -> int:
    """Write the file, or compare with it; returns the exit code: 1 when it differs, 2 for bad input."""
    if list(arguments) not in ([], ["--check"]):
        sys.stderr.write(f"expected no argument or --check, got {' '.join(arguments)}\n")
        return 2
    path = root / FILE
    try:
        text = render(root)
        if not arguments:
            store.write_text(path, text)
            return 0
    except UserError as error:
        sys.stderr.write(f"{error}\n")
        return 2
    if path.exists() and path.read_text(encoding="utf-8") == text:
        return 0
    sys.stderr.write(f"{FILE}: does not agree with the owners in packages/ and replications/; {_REMEDY}\n")
    return 1


def _owner(path: Path, *keys: str) -> str:
    try:
        value: object = tomllib.loads(path.read_text(encoding="utf-8"))
    except (ValueError, RecursionError) as error:
        raise UserError(f"{path}: {error}; correct the file") from error
    for key in keys:
        value = value.get(key) if isinstance(value, dict) else None
    if not isinstance(value, str) or not papers.OWNER.fullmatch(value):
        name = ".".join(keys)
        raise UserError(f"{path}: {name} is {value!r}, expected a team handle such as '@reprise/circuits'; set it")
    return value


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:], Path.cwd()))

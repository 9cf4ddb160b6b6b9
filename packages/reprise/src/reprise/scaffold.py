"""reprise new: a replication that passes every check at once, to be filled in claim by claim.

What is written comes from the texts in scaffold_templates/, with the words between @ signs filled in. replications/ and
the folders below it hold no __init__.py: the import rules see every replication without one, and with one in
replications/ alone they would see none.
"""

from __future__ import annotations

import json
import keyword
import re
import shutil
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

from reprise import codeowners, store, tables
from reprise import paper as papers
from reprise.errors import UserError

TEMPLATES = Path(__file__).parent / "scaffold_templates"
FILES = ("README.md", "paper.toml", "experiment.py", "figures.py")
MODEL = "attn-only-1l"
OWNER = re.compile(r"@[\w.-]+(/[\w.-]+)?", re.ASCII)
LONGEST = 50


def scaffold(root: Path, slug: str, title: str, owner: str) -> tuple[Path, ...]:
    """Write a replication and its test, and refresh what is generated from all replications; returns the new files.

    When it fails, everything is as it was.

    Raises:
        UserError: for a slug, title or owner that will not do, a replication that exists, or a folder that cannot be
            written.
    """
    title = " ".join(title.split())
    _check(root, slug, title, owner)
    folder = root / "replications" / slug
    test = root / "tests" / "replications" / f"test_{slug}.py"
    for path in (folder, test):
        if path.exists():
            raise UserError(f"{path}: exists already; choose another slug or remove it")
    words = {
        "SLUG": slug,
        "TITLE": _toml(title),
        "HEADING": _markdown(title),
        "OWNER": _toml(owner),
        "MODEL": MODEL,
        "BEGIN": tables.BEGIN,
        "END": tables.END,
    }
    with _undone_on_failure(root, folder, test) as partial:
        for name in FILES:
            store.write_text(partial / name, _filled(name, words))
        partial.rename(folder)
        store.write_text(test, _filled("test.py", words))
        _refresh(root)
    return (*(folder / name for name in FILES), test)


def _check(root: Path, slug: str, title: str, owner: str) -> None:
    if not (root / "replications").is_dir():
        raise UserError(f"{root}: no folder replications/; run reprise in the project, or set REPRISE_ROOT")
    if not papers.SLUG.fullmatch(slug) or keyword.iskeyword(slug) or len(slug) > LONGEST:
        raise UserError(
            f"slug {slug!r}: expected at most {LONGEST} characters, lower-case words joined by underscores, no word "
            "of Python; for example induction_heads"
        )
    if not title or not title.isprintable():
        raise UserError(f"--title {title!r}: expected the paper's title, printable and not empty; give it in quotes")
    if not OWNER.fullmatch(owner):
        raise UserError(f"--owner {owner!r}: expected a handle such as @reprise/circuits; start it with @")


def _filled(name: str, words: Mapping[str, str]) -> str:
    """A template with its words filled in, all at once: a title may hold the name of another word."""
    text = (TEMPLATES / f"{name}.txt").read_text(encoding="utf-8")
    return re.sub(r"@([A-Z]+)@", lambda match: words[match[1]], text)


def _refresh(root: Path) -> None:
    """Bring what is generated from all replications up to date: the claim tables, CODEOWNERS."""
    from reprise.readme import claim_tables

    for path, table in claim_tables(root).items():
        tables.update(path, table)
    if (root / ".github").is_dir():
        store.write_text(root / codeowners.FILE, codeowners.render(root))


@contextmanager
def _undone_on_failure(root: Path, folder: Path, test: Path) -> Iterator[Path]:
    """The folder to build in, beside the one it becomes; on failure all that was written is taken back."""
    partial = folder.with_name(f".{folder.name}.partial")
    shutil.rmtree(partial, ignore_errors=True)
    generated = [root / "README.md", root / codeowners.FILE, *root.glob("replications/*/README.md")]
    before = {path: path.read_bytes() for path in generated if path.exists()}
    had_tests = test.parent.exists()
    try:
        yield partial
    except BaseException as error:
        shutil.rmtree(partial, ignore_errors=True)
        shutil.rmtree(folder, ignore_errors=True)
        test.unlink(missing_ok=True)
        if not had_tests and test.parent.exists():
            test.parent.rmdir()
        for path, content in before.items():
            if path.read_bytes() != content:
                path.write_bytes(content)
        if isinstance(error, OSError):
            raise UserError(f"{folder}: cannot be written ({error.strerror}); check its permissions") from error
        raise


def _toml(text: str) -> str:
    """A TOML basic string; its escapes are those of JSON."""
    return json.dumps(text, ensure_ascii=False)


def _markdown(text: str) -> str:
    return re.sub(r"([\\`*_\[\]<>#|])", r"\\\1", text)

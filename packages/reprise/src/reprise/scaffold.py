"""reprise new: a replication that passes every check at once, claims first, to be filled in claim by claim.

With claims given, their table is what a second person reviews: nothing measures them yet, and all say "not run".
Without claims a placeholder stands for them.

What is written comes from the texts in scaffold_templates/, with the words between @ signs filled in. replications/ and
the folders below it hold no __init__.py: the import rules see every replication without one, and with one in
replications/ alone they would see none.
"""

from __future__ import annotations

import keyword
import re
import shutil
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from reprise import claim_lists, codeowners, store, tables
from reprise import paper as papers
from reprise.claim_lists import quoted
from reprise.errors import UserError
from reprise.paper import OWNER, Accept, Claim

TEMPLATES = Path(__file__).parent / "scaffold_templates"
FILES = ("README.md", "paper.toml", "experiment.py", "figures.py")
MODEL = "attn-only-1l"
LONGEST = 50
PLACEHOLDER = Claim(
    id="placeholder",
    statement="Placeholder, to be replaced: the mean of uniform random numbers between 0 and 1 is near one half.",
    where="not in the paper",
    provenance="memory",
    quantity="mean of 400 uniform random numbers",
    unit="1",
    accept={"tiny": Accept(at_least=0.4, at_most=0.6), "paper": Accept(at_least=0.4, at_most=0.6)},
)


@dataclass(frozen=True)
class Description:
    """What is known of a paper; what is not stands in paper.toml to be filled in."""

    authors: tuple[str, ...] = ("To be named",)
    year: int = 2000
    link: str = "https://example.org/"
    about: str = "To be written: what the paper asks, and how it answers."
    model: str = MODEL
    claims: tuple[Claim, ...] = ()


def scaffold(root: Path, slug: str, title: str, owner: str, description: Description | None = None) -> tuple[Path, ...]:
    """Write a replication and its test, and refresh what is generated from all replications; returns the new files.

    When it fails, everything is as it was.

    Raises:
        UserError: for a slug, title, owner or description that will not do, a replication that exists, or a folder
            that cannot be written.
    """
    title = " ".join(title.split())
    description = description or Description()
    check_slug(root, slug)
    check_title(title)
    check_owner(owner)
    folder, test = root / "replications" / slug, _test(root, slug)
    words = {
        "SLUG": slug,
        "TITLE": quoted(title),
        "HEADING": _markdown(title),
        "OWNER": quoted(owner),
        "AUTHORS": "[" + ", ".join(map(quoted, description.authors)) + "]",
        "YEAR": str(description.year),
        "LINK": quoted(description.link),
        "ABOUT": quoted(" ".join(description.about.split())),
        "LABEL": quoted("paper: " + slug.replace("_", " ")[: papers.LONGEST_LABEL - 7]),
        "MODEL": quoted(description.model),
        "CLAIMS": claim_lists.toml(description.claims or (PLACEHOLDER,)),
        "MEASURES": _measures(description.claims),
        "BEGIN": tables.BEGIN,
        "END": tables.END,
    }
    papers.decode(_filled("paper.toml", words).encode(), slug, f"{folder / 'paper.toml'}")
    with _undone_on_failure(root, folder, test) as partial:
        for name in FILES:
            store.write_text(partial / name, _filled(name, words))
        partial.rename(folder)
        store.write_text(test, _filled("test.py", words))
        _refresh(root)
    return (*(folder / name for name in FILES), test)


def check_slug(root: Path, slug: str) -> None:
    """Raises UserError for a name that will not do, or that a replication or a test has."""
    if not (root / "replications").is_dir():
        raise UserError(f"{root}: no folder replications/; run reprise in the project, or set REPRISE_ROOT")
    if not papers.SLUG.fullmatch(slug) or keyword.iskeyword(slug) or len(slug) > LONGEST:
        raise UserError(
            f"slug {slug!r}: expected at most {LONGEST} characters, lower-case words joined by underscores, no word "
            "of Python; for example induction_heads"
        )
    for path in (root / "replications" / slug, _test(root, slug)):
        if path.exists():
            raise UserError(f"{path}: exists already; choose another slug or remove it")


def check_title(title: str) -> None:
    """Raises UserError for a title that is empty or cannot be printed."""
    if not title.strip() or not title.isprintable():
        raise UserError(f"--title {title!r}: expected the paper's title, printable and not empty; give it in quotes")


def check_owner(owner: str) -> None:
    """Raises UserError for what is no handle."""
    if not OWNER.fullmatch(owner):
        raise UserError(f"--owner {owner!r}: expected a handle such as @reprise/circuits; start it with @")


def _test(root: Path, slug: str) -> Path:
    return root / "tests" / "replications" / f"test_{slug}.py"


def _measures(claims: tuple[Claim, ...]) -> str:
    """The lines of the experiment's table of measures."""
    names = {one.id: "not_measured" for one in claims} or {PLACEHOLDER.id: "mean_number"}
    return "".join(f'    "{name}": {measure},\n' for name, measure in names.items())


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


def _markdown(text: str) -> str:
    return re.sub(r"([\\`*_\[\]<>#|])", r"\\\1", text)

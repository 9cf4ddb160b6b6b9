"""What the repository's own files need to be pages: links to folders, sections of other files, each package's
reference, and the first page.

A README may link to a folder. On the site that is a link to the folder's README where it is a page, and otherwise the
words alone, since the site knows no address of the repository to send a reader to. (A file is a download.)
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import TYPE_CHECKING, Any

from sections import expanded

if TYPE_CHECKING:
    from sphinx.application import Sphinx

LINK = re.compile(r"(?<!!)\[([^\]]+)\]\(([^)\s#:]+)\)")
PACKAGE = re.compile(r"packages/(\w+)/README")
FIRST_PAGE = """<!doctype html>
<html lang="en"><head><meta charset="utf-8"><title>Reprise</title>
<meta http-equiv="refresh" content="0; url={page}"></head>
<body><a href="{page}">Reprise</a></body></html>
"""


def setup(app: Sphinx) -> dict[str, Any]:
    app.connect("source-read", read)
    app.connect("build-finished", first_page)
    return {"parallel_read_safe": True}


def read(app: Sphinx, page: str, source: list[str]) -> None:
    """Sphinx's event for the text of a page."""
    root = Path(app.srcdir)
    folder = (root / page).parent
    source[0] = expanded(source[0], root / page)
    source[0] = LINK.sub(lambda found: _linked(found, folder), source[0])
    if package := PACKAGE.fullmatch(page):
        names = sorted(path.stem for path in (root / "docs" / "api").glob(f"{package[1]}*.rst"))
        entries = "\n".join(f"{name} reference </docs/api/{name}>" for name in names)
        source[0] += f"\n\n## Reference\n\n```{{toctree}}\n:maxdepth: 2\n\n{entries}\n```\n"


def _linked(found: re.Match[str], folder: Path) -> str:
    words, target = found.groups()
    if not (folder / target).is_dir():
        return found[0]
    return f"[{words}]({target.rstrip('/')}/README.md)" if (folder / target / "README.md").is_file() else words


def first_page(app: Sphinx, exception: Exception | None) -> None:
    if exception is None and app.builder.format == "html":
        page = app.builder.get_target_uri(app.config.root_doc)
        Path(app.outdir, "index.html").write_text(FIRST_PAGE.format(page=page), encoding="utf-8")

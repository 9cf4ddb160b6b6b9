"""Links and pictures of the pages: files, folders and headings inside the repository are there; others have a form."""

from __future__ import annotations

import re
from pathlib import Path
from urllib.parse import unquote, urlsplit

import pytest
from tests.docs.pages import ROOT, pages, prose

LINK = re.compile(r"!?\[(?:[^\[\]]|\[[^\[\]]*\])*\]\(([^)\s]+)(?: \"[^\"]*\")?\)|<(https?://[^>\s]+)>|src=\"([^\"]+)\"")
PAGES = [*pages(), *(path.relative_to(ROOT) for path in (ROOT / ".github").glob("**/*.md"))]


def anchors(page: Path) -> set[str]:
    """What the headings of a page are called in an address: the rule of GitHub, and of the site."""
    found: dict[str, int] = {}
    for title in re.findall(r"^#{1,6} +(.+?) *#*$", prose(page), flags=re.MULTILINE):
        words = re.sub(r"\[([^\]]*)\]\([^)]*\)", r"\1", title).replace("`", "").replace("*", "")
        slug = re.sub(r"[^\w\- ]", "", words.lower()).replace(" ", "-")
        found[slug] = found.get(slug, -1) + 1
    return {f"{slug}-{i}" if i else slug for slug, times in found.items() for i in range(times + 1)}


def problems(page: Path) -> list[str]:
    found = []
    text = re.sub(r"`[^`\n]*`(?!\])", "", prose(page))
    for match in LINK.finditer(text):
        target = next(group for group in match.groups() if group)
        parts = urlsplit(target)
        if parts.scheme:
            well_formed = parts.scheme == "mailto" or (parts.scheme in ("http", "https") and "." in parts.netloc)
            found += [] if well_formed else [f"{page}: {target}: no address"]
            continue
        path = (ROOT / page).parent / unquote(parts.path) if parts.path else ROOT / page
        if not path.exists():
            found.append(f"{page}: {target}: there is no such file")
        elif parts.fragment and path.suffix == ".md":
            names = anchors(path.resolve().relative_to(ROOT))
            found += [] if parts.fragment in names else [f"{page}: {target}: no heading of that name"]
    return found


@pytest.mark.parametrize("page", PAGES, ids=str)
def test_links_lead_somewhere(page: Path) -> None:
    assert problems(page) == []


def test_what_is_wrong_is_noticed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(globals(), "ROOT", tmp_path)
    monkeypatch.setattr("tests.docs.pages.ROOT", tmp_path)
    (tmp_path / "other.md").write_text("# One `two`, three\n\n## Again\n\n## Again\n")
    (tmp_path / "page.md").write_text(
        "[a](other.md#one-two-three) [b](other.md#again-1) [c](https://a.org/b) ![d](no.png)\n"
        "[e](other.md#again-2) [f](https:/a.org) [`g`](gone.md)\n\n```\n[h](nowhere.md)\n```\n"
    )
    wrong = [text.removeprefix("page.md: ").split(":")[0] for text in problems(Path("page.md"))]
    assert wrong == ["no.png", "other.md#again-2", "https", "gone.md"]

"""The built site: every page and public name is there, links resolve, nothing comes from elsewhere, and it opens."""

from __future__ import annotations

import importlib
import re
from html.parser import HTMLParser
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import unquote, urlsplit

import pytest
from tests.docs.pages import pages

if TYPE_CHECKING:
    from tests.browser.chromium import Visit

PACKAGES = (
    "circuits",
    "function_vectors",
    "interventions",
    "reprise",
    "steering",
    "training",
    "training.rl",
    "training.vision",
    "zoo",
)
LOADS = {
    "script": "src",
    "link": "href",
    "img": "src",
    "iframe": "src",
    "source": "src",
    "audio": "src",
    "video": "src",
}
OPENED = (
    "docs/index",
    "docs/tour",
    "docs/methods/patching",
    "docs/api/circuits",
    "packages/interventions/README",
    "replications/induction_heads/README",
    "README",
)


class Reader(HTMLParser):
    """The links, the anchors and what is loaded of one page."""

    def __init__(self, path: Path) -> None:
        super().__init__()
        self.links: list[str] = []
        self.anchors: set[str] = set()
        self.loaded: list[str] = []
        self.feed(path.read_text(encoding="utf-8"))

    def handle_starttag(self, tag: str, attributes: list[tuple[str, str | None]]) -> None:
        given = {name: value or "" for name, value in attributes}
        self.anchors |= {given[name] for name in ("id", "name") if name in given}
        if tag == "a" and "href" in given:
            self.links.append(given["href"])
        if tag in LOADS and LOADS[tag] in given and given.get("rel") not in ("index", "search", "next", "prev"):
            self.loaded.append(given[LOADS[tag]])


@pytest.fixture(scope="module")
def read(site: Path) -> dict[Path, Reader]:
    return {path: Reader(path) for path in sorted(site.rglob("*.html"))}


def test_every_page_is_there(site: Path) -> None:
    missing = [page for page in pages() if not (site / page.with_suffix(".html")).is_file()]
    assert missing == []
    assert "docs/index.html" in (site / "index.html").read_text()


@pytest.mark.parametrize("package", PACKAGES)
def test_every_public_name_is_in_the_reference(package: str, site: Path, read: dict[Path, Reader]) -> None:
    page = read[site / "docs" / "api" / f"{package}.html"]
    module = importlib.import_module(package)
    names = {f"{package}.{name}" for name in module.__all__ if not isinstance(getattr(module, name), type(re))}
    assert names - page.anchors == set()
    home = site / "packages" / package.partition(".")[0] / "README.html"
    assert any(f"api/{package}.html" in link for link in read[home].links)


def test_signatures_have_shapes_and_equations_are_as_they_are_written(site: Path) -> None:
    page = (site / "docs" / "api" / "circuits.html").read_text(encoding="utf-8")
    words = re.sub(r"<[^>]+>", "", page).replace("&#39;", "'").replace("&#x27;", "'")
    assert "tokens: Int[Tensor, 'batch pos']" in words
    assert "M = W_E W_V W_O W_U                             full OV circuit, [d_vocab, d_vocab]" in words
    assert '<math xmlns="http://www.w3.org/1998/Math/MathML"' in (site / "docs/methods/patching.html").read_text()


def test_commands_are_in_the_reference(site: Path) -> None:
    words = (site / "docs" / "api" / "command_line.html").read_text(encoding="utf-8")
    assert "Usage: reprise run [OPTIONS]" in words
    assert "--executor" in words


def test_links_and_anchors_resolve(site: Path, read: dict[Path, Reader]) -> None:
    broken, followed = [], 0
    for path, page in read.items():
        for link in page.links:
            parts = urlsplit(link)
            if parts.scheme:
                continue
            followed += 1
            target = (path.parent / unquote(parts.path)).resolve() if parts.path else path
            if not target.is_file():
                broken.append(f"{path.relative_to(site)}: {link}: there is no such file")
            elif parts.fragment and target.suffix == ".html" and unquote(parts.fragment) not in read[target].anchors:
                broken.append(f"{path.relative_to(site)}: {link}: there is no such anchor")
    assert broken == []
    assert followed > 1000


def test_nothing_is_loaded_from_elsewhere(site: Path, read: dict[Path, Reader]) -> None:
    for path, page in read.items():
        for address in page.loaded:
            assert not urlsplit(address).scheme or address.startswith("data:"), f"{path.name} loads {address}"
            assert (path.parent / unquote(urlsplit(address).path)).is_file() or address.startswith("data:"), address
    for path in site.rglob("*.css"):
        assert not re.search(r"(@import|url\()\s*[\"']?(https?:)?//", path.read_text(encoding="utf-8")), path


@pytest.mark.parametrize("page", OPENED)
def test_pages_open_without_a_complaint(page: str, site: Path, visit: Visit) -> None:
    opened = visit(site / f"{page}.html")
    assert opened.locator("h1").first.inner_text().strip()
    phone = visit(site / f"{page}.html", width=400, dark=True)
    assert phone.evaluate("document.documentElement.scrollWidth") <= 400
    assert brightness(phone) < 0.3 < 0.7 < brightness(opened)


def test_the_first_page_leads_to_the_tour(site: Path, visit: Visit) -> None:
    page = visit(site / "index.html")
    page.wait_for_url("**/docs/index.html")
    page.get_by_role("link", name="the ten-minute tour").first.click()
    assert page.locator("h1").inner_text().startswith("The ten-minute tour")


def test_search_finds_a_function(site: Path, visit: Visit) -> None:
    page = visit(site / "search.html", fragment="?q=path_patch")
    found = page.locator("ul.search li a")
    found.first.wait_for()
    assert any("interventions" in text for text in found.all_inner_texts())


def brightness(page: Any) -> float:
    colour = page.evaluate("getComputedStyle(document.body).backgroundColor")
    red, green, blue = map(int, re.findall(r"\d+", colour)[:3])
    return (red + green + blue) / 3 / 255

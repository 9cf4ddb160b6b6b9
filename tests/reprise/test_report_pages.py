"""Interactive pages on their way: drawn, listed, tidied, committed, and shown in the report's frames."""

from __future__ import annotations

import sys
from collections.abc import Mapping
from html.parser import HTMLParser
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from matplotlib.figure import Figure

from reprise import Page, Results, UserError, claims, store, workspace
from reprise.cli import main
from reprise.drawing import CAPTIONS, FigureFile, draw, drawn
from reprise.experiment import Draw, load_experiment, load_figures
from reprise.report import build
from reprise.report.gather import gather
from reprise.run import Request, run, stored_results

if TYPE_CHECKING:
    from tests.reprise.conftest import Toys

RESULTS = Results("tiny", 0, {})
PAGES = '''
from reprise import Page


def explore(results):
    """Explore <it> & "more"

    Point at something.
    """
    return Page("<!doctype html><title>\u2423</title>", 321)


FIGURES = {"explore it": explore, "numbers": line}
'''


def plot(results: Results) -> Figure:
    """A plot"""
    return Figure()


def page(results: Results) -> Page:
    """A page

    To be explored.
    """
    return Page("<!doctype html>\n<p>\u2423</p>", 400)


def files(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def test_a_page_is_drawn_beside_a_plot(tmp_path: Path) -> None:
    made = draw({"one": page, "two": plot}, RESULTS, tmp_path)
    assert made == (FigureFile("one", "A page", "To be explored.", 400), FigureFile("two", "A plot", ""))
    assert drawn(tmp_path) == made
    assert files(tmp_path) == ["figures.json", "one.html", "two.png", "two.svg"]
    assert (tmp_path / "one.html").read_bytes() == page(RESULTS).html.encode()


@pytest.mark.parametrize(
    ("then", "left"),
    [
        ({"one": page}, ["one.html"]),
        ({"two": page}, ["two.html"]),
        ({"one": plot, "two": plot}, ["one.png", "one.svg", "two.png", "two.svg"]),
        ({"one": page, "two": lambda results: None}, ["one.html"]),
        ({}, []),
    ],
)
def test_files_of_figures_that_are_gone_or_of_another_kind_are_removed(
    tmp_path: Path, then: Mapping[str, Draw], left: list[str]
) -> None:
    draw({"one": page, "two": plot}, RESULTS, tmp_path)
    (tmp_path / "notes.html").write_text("not drawn here")
    draw(then, RESULTS, tmp_path)
    assert files(tmp_path) == sorted(["figures.json", "notes.html", *left])


@pytest.mark.parametrize("listed", ["[", '[{"name": "../mine", "title": "", "caption": "", "height": 1}]'])
def test_a_damaged_list_removes_nothing_and_is_replaced(tmp_path: Path, listed: str) -> None:
    folder = tmp_path / "figures"
    store.write_text(folder / CAPTIONS, listed)
    (tmp_path / "mine.html").write_text("mine")
    draw({"one": page}, RESULTS, folder)
    assert files(tmp_path) == ["figures", "mine.html"]
    assert [figure.name for figure in drawn(folder)] == ["one"]


def test_lists_written_before_there_were_pages_are_read_and_written_alike(tmp_path: Path) -> None:
    old = '[\n  {\n    "name": "two",\n    "title": "A plot",\n    "caption": ""\n  }\n]\n'
    store.write_text(tmp_path / CAPTIONS, old)
    assert drawn(tmp_path) == (FigureFile("two", "A plot", ""),)
    draw({"two": plot}, RESULTS, tmp_path)
    assert (tmp_path / CAPTIONS).read_text() == old


class Frames(HTMLParser):
    """The attributes of a page's frames, and its links."""

    def __init__(self, path: Path) -> None:
        super().__init__()
        self.frames: list[dict[str, str | None]] = []
        self.links: list[str | None] = []
        self.feed(path.read_text())

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        if tag == "iframe":
            self.frames.append(dict(attrs))
        self.links += [value for name, value in attrs if (tag, name) == ("a", "href")]


@pytest.fixture
def explored(toys: Toys) -> Toys:
    """The toy workspace after a run, with a page and a plot drawn."""
    (toys.folder / "figures.py").write_text((toys.folder / "figures.py").read_text() + PAGES)
    (paper,) = workspace.load_papers(toys.root)
    request = Request(toys.root, paper, "tiny", toys.out)
    experiment = load_experiment(toys.folder)
    results = run(request, experiment)
    claims.save(claims.evaluate(paper, experiment.claims, results), request.folder())
    draw(load_figures(toys.folder), stored_results(request, experiment), request.folder() / "figures")
    return toys


def report(toys: Toys) -> Path:
    return build(toys.root, workspace.load_papers(toys.root), toys.out).parent


def test_the_report_shows_a_page_in_a_sandboxed_frame_with_a_link(explored: Toys) -> None:
    papers = report(explored) / "papers"
    shown = Frames(papers / "toys.html")
    address = "toys/tiny/explore%20it.html"
    assert shown.frames == [
        {
            "src": address,
            "sandbox": "allow-scripts",
            "loading": "lazy",
            "title": 'Interactive: Explore <it> & "more"',
            "style": "height: 321px",
        }
    ]
    assert address in shown.links
    assert (papers / "toys/tiny/explore it.html").read_text() == "<!doctype html><title>\u2423</title>"
    assert files(papers / "toys/tiny") == ["explore it.html", "numbers.png", "numbers.svg"]
    before = {path: path.read_bytes() for path in papers.rglob("*.html")}
    report(explored)
    assert {path: path.read_bytes() for path in papers.rglob("*.html")} == before


def test_a_page_that_is_missing_is_said(explored: Toys) -> None:
    (explored.out / "results/toys/tiny/figures/explore it.html").unlink()
    page = report(explored) / "papers" / "toys.html"
    assert Frames(page).frames == []
    assert "The file of this figure is missing" in page.read_text()


def test_a_page_without_height_is_one_line(explored: Toys) -> None:
    listed = explored.out / "results/toys/tiny/figures/figures.json"
    listed.write_text(listed.read_text().replace("321", "0"))
    with pytest.raises(UserError, match=r"figures\.json: Expected `int` >= 1.*; draw the figures again"):
        gather(explored.root, workspace.load_papers(explored.root)[0], explored.out)


def test_accept_commits_pages_and_drops_those_that_are_gone(explored: Toys, monkeypatch: pytest.MonkeyPatch) -> None:
    def call(command: str) -> int:
        monkeypatch.setattr(sys, "argv", ["reprise", command, "toys"])
        with pytest.raises(SystemExit) as ended:
            main()
        return int(ended.value.code or 0)

    committed = explored.folder / "results" / "tiny" / "figures"
    assert call("accept") == 0
    assert files(committed) == ["explore it.html", "figures.json", "numbers.png", "numbers.svg"]
    explored.edit('"explore it": explore, ', "", name="figures.py")
    assert call("figures") == 0
    assert call("accept") == 0
    assert files(committed) == ["figures.json", "numbers.png", "numbers.svg"]

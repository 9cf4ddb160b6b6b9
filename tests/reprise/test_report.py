"""The report: everything escaped, self-contained, the same bytes for the same results, and never half-written."""

from __future__ import annotations

from html.parser import HTMLParser
from pathlib import Path
from urllib.parse import unquote, urlsplit

import msgspec
import numpy as np
import pytest

from reprise import Paper, Result, UserError, claims, drawing, store, workspace
from reprise.claims import ClaimResult
from reprise.drawing import FigureFile
from reprise.report import build, site
from reprise.store import Provenance

HOSTILE = "<script>alert('x')</script> & \"quoted\""
PAPER_TOML = f"""
title = '''{HOSTILE} title'''
authors = ["A <i>First</i>"]
year = 2022
link = "https://example.org/paper?a=1&b=2"
owner = "@reprise/circuits"
about = '''{HOSTILE} about'''
[tiers.tiny]
about = "Our own models."
models = ["attn-only-1l"]
[tiers.paper]
about = "The paper's own."
[[claims]]
id = "first"
statement = '''{HOSTILE} statement'''
where = "Section 1"
provenance = "second-hand"
quantity = "a score"
unit = "share"
paper_value = 0.72
note = '''{HOSTILE} note'''
accept = {{ tiny = {{ at_least = 0.5 }}, paper = {{ at_least = 0.7, at_most = 0.8 }} }}
[[claims]]
id = "second"
statement = "The second one."
where = "Section 2"
provenance = "memory"
quantity = "another score"
unit = "nats"
accept = {{ tiny = {{ at_most = 0.2 }} }}
"""


class Page(HTMLParser):
    """The addresses, ids, tags and text of a page."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.tags: list[str] = []
        self.ids: list[str] = []
        self.loaded: list[str] = []
        self.links: list[str] = []
        self.text = ""
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        for name, value in attrs:
            assert not name.startswith("on"), f"{tag} has a handler {name}"
            if name == "id":
                self.ids.append(value or "")
            if name in ("src", "srcset", "href", "data", "action", "poster", "xlink:href"):
                (self.links if (tag, name) == ("a", "href") else self.loaded).append(value or "")

    def handle_data(self, data: str) -> None:
        self.text += data


def row(paper: Paper, claim_id: str, tier: str, low: float, high: float) -> ClaimResult:
    (one,) = (row for row in claims.not_run(paper, tier) if row.claim == claim_id)
    return msgspec.structs.replace(one, estimate=(low + high) / 2, low=low, high=high, n=100, over="windows")


def add_run(folder: Path, model: str, rows: list[ClaimResult]) -> None:
    claims.save(rows, folder)
    for kind in ("svg", "png"):
        store.write_text(folder / "figures" / f"loss.{kind}", f"<svg>{model}</svg>")
    figures = [FigureFile("loss", f"{HOSTILE} figure", f"{HOSTILE} caption")]
    store.write_text(folder / "figures" / drawing.CAPTIONS, msgspec.json.encode(figures).decode())
    provenance = Provenance(
        commit="abc123",
        packages={"torch": "2.13.0"},
        models={model: "feed" * 16},
        seed=3,
        device="cuda",
        dtype="bfloat16",
        seconds=12.34,
    )
    store.write(folder / "losses" / "one.safetensors", Result({"a": np.ones(2)}, {"model": model}), "key", provenance)


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """A workspace with a paper, results of its tiny tier, and a run of its paper tier on another model."""
    path = tmp_path / "replications" / "some_paper" / "paper.toml"
    path.parent.mkdir(parents=True)
    path.write_text(PAPER_TOML)
    (paper,) = workspace.load_papers(tmp_path)
    results = tmp_path / "out" / "results" / "some_paper"
    add_run(results / "tiny", "attn-only-1l", [row(paper, "first", "tiny", 0.6, 0.7)])
    add_run(results / "paper-gpt2+x y", "gpt2", [row(paper, "first", "paper", 0.1, 0.2)])
    return tmp_path


def report_of(root: Path, out: str = "out") -> Path:
    return build(root, workspace.load_papers(root), root / out).parent


def pages(report: Path) -> dict[Path, Page]:
    return {path: Page(path.read_text()) for path in sorted(report.rglob("*.html"))}


def content(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def test_markup_in_data_is_shown_and_not_obeyed(root: Path) -> None:
    found = pages(report_of(root))
    assert [path.name for path in found] == ["index.html", "some_paper.html"]
    for page in found.values():
        assert not {"i", "iframe", "object"} & set(page.tags)
        assert page.tags.count("script") == 1  # ours
        assert f"{HOSTILE} title" in page.text
        assert f"{HOSTILE} statement" in page.text
    paper_page = found[next(path for path in found if path.name == "some_paper.html")]
    for place in ("about", "note", "figure", "caption"):
        assert f"{HOSTILE} {place}" in paper_page.text


def test_every_link_resolves_and_nothing_is_loaded_from_elsewhere(root: Path) -> None:
    report = report_of(root)
    found = pages(report)
    external = []
    for path, page in found.items():
        assert len(page.ids) == len(set(page.ids))
        assert not any(word in path.read_text() for word in ("url(", "@import"))
        for address in page.loaded + page.links:
            parts = urlsplit(address)
            if address == "data:,":
                continue
            if parts.scheme:
                assert address in page.links
                external.append(address)
                continue
            target = (path.parent / unquote(parts.path)).resolve() if parts.path else path
            assert target.is_file(), f"{path.name}: {address}"
            assert target.is_relative_to(report)
            if parts.fragment:
                assert parts.fragment in found[target].ids, f"{path.name}: {address}"
    assert external == ["https://example.org/paper?a=1&b=2"]
    images = [address for page in found.values() for address in page.loaded if address.endswith(".svg")]
    assert images == ["some_paper/tiny/loss.svg", "some_paper/paper-gpt2%2Bx%20y/loss.svg"]


def test_identical_bytes_for_identical_results(root: Path) -> None:
    once = content(report_of(root))
    assert content(report_of(root)) == once
    (root / "out" / "report").rename(root / "elsewhere")
    assert content(report_of(root)) == once


def test_a_tiny_verdict_is_never_shown_as_the_papers_number(root: Path) -> None:
    index, paper_page = pages(report_of(root)).values()
    assert index.text.count("mechanism only, not the paper's number") == 4  # the column, the legend, two claims
    assert "does not reproduce the paper's number" in index.text
    assert "second-hand; not judged in this row" in index.text
    assert paper_page.text.count("mechanism only, not the paper's number") == 3
    assert "It changes no verdict of the paper." in paper_page.text
    (root / "out/results/some_paper/paper-gpt2+x y").rename(root / "out/results/some_paper/tiny-gpt2")
    _, other = pages(report_of(root)).values()
    assert other.text.count("mechanism only, not the paper's number") == 3 + 2


def test_verdicts_numbers_provenance_and_commands(root: Path) -> None:
    index, paper_page = pages(report_of(root)).values()
    assert "1 supported, 1 not run" in index.text
    assert "0.65 [0.6, 0.7]" in index.text
    for shown in ("abc123", "feed" * 16, "2.13.0", "12.3", "at least 0.5"):
        assert shown in paper_page.text
    assert "run some_paper --tier paper --model gpt2 --seed 3 --device cuda --dtype bfloat16\n" in paper_page.text
    assert ".venv/bin/reprise figures some_paper --tier tiny --seed 3\n" in paper_page.text
    assert "run some_paper --tier paper --model NAME_OR_PATH_OR_ID\n" in paper_page.text


def test_committed_results_are_shown_where_nothing_was_run(root: Path) -> None:
    (paper,) = workspace.load_papers(root)
    committed = claims.results_folder(root, paper, "tiny")
    add_run(committed, "committed", [row(paper, "first", "tiny", 0.1, 0.2)])
    report = report_of(root, "elsewhere")
    assert (report / "papers/some_paper/tiny/loss.svg").read_text() == "<svg>committed</svg>"
    assert "the committed results." in (report / "papers/some_paper.html").read_text()


@pytest.mark.parametrize("failing", ["_copy_figures", "_swap"])
def test_a_failed_build_leaves_the_old_report(root: Path, monkeypatch: pytest.MonkeyPatch, failing: str) -> None:
    report = report_of(root)
    before = content(report)

    def killed(*_: object) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(site, failing, killed)
        with pytest.raises(KeyboardInterrupt):
            report_of(root)
    assert content(report) == before
    report_of(root)
    left = {path.name for path in (root / "out").iterdir()} - {".report.lock"}
    assert left == {"results", "report"}


def test_a_build_killed_between_the_two_renames_is_repaired(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    before = content(report_of(root))
    (root / "out/report").rename(root / "out/.report.old")
    monkeypatch.setattr(site, "_write", lambda *_: (_ for _ in ()).throw(OSError(28, "No space left on device")))
    with pytest.raises(UserError, match=r"report: cannot be written \(No space left on device\); choose another"):
        report_of(root)
    assert content(root / "out/report") == before


def test_refuses_to_replace_a_folder_that_is_no_report(root: Path) -> None:
    (root / "out/report").mkdir()
    (root / "out/report/thesis.tex").write_text("years of work")
    with pytest.raises(UserError, match="exists and is no report; move it away or choose another folder with --out"):
        report_of(root)
    assert (root / "out/report/thesis.tex").exists()


def test_missing_files_and_damaged_stages_are_said(root: Path) -> None:
    tiny = root / "out/results/some_paper/tiny"
    (tiny / "figures/loss.svg").unlink()
    (tiny / "losses/one.safetensors").write_bytes(b"damaged")
    page = pages(report_of(root))[root / "out/report/papers/some_paper.html"]
    assert "some_paper/tiny/loss.png" in page.loaded
    assert "damaged file; run again" in page.text
    (tiny / "figures/loss.png").unlink()
    page = pages(report_of(root))[root / "out/report/papers/some_paper.html"]
    assert "The file of this figure is missing" in page.text


def test_a_project_without_papers(tmp_path: Path) -> None:
    assert "There are no papers yet." in build(tmp_path, (), tmp_path / "out").read_text()

"""Every page of the report: no errors, nothing missing or from elsewhere; readable in light, in dark, on a phone."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from tests.browser.looks import contrasts, load_frames, too_faint, too_wide

from reprise import workspace

if TYPE_CHECKING:
    from playwright.sync_api import Browser
    from tests.browser.chromium import Visit

ROOT = Path(__file__).resolve().parents[2]
PAGES = ["index.html", *(f"papers/{paper.slug}.html" for paper in workspace.load_papers(ROOT))]
SCREENS = [pytest.param(1280, False, id="light"), pytest.param(390, True, id="dark-phone")]
PHONE = 390


@pytest.mark.parametrize(("width", "dark"), SCREENS)
@pytest.mark.parametrize("name", PAGES)
def test_a_page_of_this_project(project: Path, visit: Visit, name: str, width: int, dark: bool) -> None:
    page = visit(project / name, width=width, dark=dark)
    shown = [page.main_frame, *load_frames(page)]
    assert [too_wide(one) for one in shown] == [0] * len(shown)
    assert [too_faint(one) for one in shown] == [[]] * len(shown)
    images = (
        "() => [...document.images].filter((one) => one.loading !== 'lazy' && !one.naturalWidth).map((one) => one.src)"
    )
    assert page.evaluate(images) == []


@pytest.mark.parametrize("width", [1280, PHONE])
@pytest.mark.parametrize("dark", [False, True])
@pytest.mark.parametrize("name", ["index.html", "papers/toys.html"])
def test_a_page_of_the_toy_paper(toy: Path, visit: Visit, name: str, width: int, dark: bool) -> None:
    page = visit(toy / name, width=width, dark=dark)
    frames = load_frames(page)
    assert len(frames) == (4 if "toys" in name else 0)
    for shown in (page.main_frame, *frames):
        assert too_wide(shown) == 0
        assert too_faint(shown) == []
        assert len(contrasts(shown)) > 5


@pytest.mark.parametrize("kind", ["attention", "head map"])
@pytest.mark.parametrize("width", [1280, PHONE])
def test_an_interactive_page_by_itself(toy: Path, visit: Visit, kind: str, width: int) -> None:
    page = visit(toy / "papers" / "toys" / "tiny" / f"{kind}.html", width=width, dark=True)
    if kind == "head map":
        page.click("[data-pattern='0']")
    assert too_wide(page) == 0
    assert too_faint(page) == []
    assert page.evaluate("() => document.querySelectorAll('script').length") == 2


def test_markup_in_data_is_text(toy: Path, visit: Visit) -> None:
    page = visit(toy / "papers" / "toys.html")
    assert page.evaluate("() => document.querySelectorAll('script').length") == 1
    assert page.evaluate("() => document.querySelectorAll('img[src=x]').length") == 0
    assert "<script>alert('x')</script>" in page.inner_text("#claim-alpha h3")


def test_no_script_but_ours_runs(toy: Path, visit: Visit, tmp_path: Path, browser: Browser) -> None:
    """Were a template to forget to escape: the policy of the page still forbids what comes from data."""
    text = (toy / "index.html").read_text()
    changed = tmp_path / "index.html"
    changed.write_text(text.replace("<main", "<script>document.title = 'taken over'</script><main"))
    page = browser.new_context().new_page()  # not watched: the browser reports the refusal
    page.goto(changed.as_uri())
    assert page.title() == "Reprise: papers and their claims"
    assert page.is_visible("form.filter")
    page.context.close()


def test_wide_tables_scroll_inside_themselves_on_a_phone(toy: Path, visit: Visit) -> None:
    page = visit(toy / "papers" / "toys.html", width=PHONE)
    widths = "(one) => [one.scrollWidth, one.clientWidth]"
    whole, seen = page.eval_on_selector("#provenance ~ .wide", widths)
    assert whole > seen
    assert too_wide(page) == 0


def test_without_scripts_the_page_is_whole_and_has_no_dead_controls(toy: Path, visit: Visit) -> None:
    page = visit(toy / "index.html", script=False)
    assert page.locator("thead button").count() == 0
    assert not page.is_visible("form.filter")
    assert page.locator("table.claims tbody tr:not(.group)").count() == 10


@pytest.mark.parametrize(("colour", "ratio"), [("#000", 21.0), ("#767676", 4.54), ("#777", 4.48), ("#fff", 1.0)])
def test_contrast_is_measured_as_the_guideline_defines_it(toy: Path, visit: Visit, colour: str, ratio: float) -> None:
    page = visit(toy / "index.html")
    page.evaluate(
        """(colour) => {
          document.body.innerHTML = "words";
          document.body.style = `background: #fff; color: ${colour}`;
        }""",
        colour,
    )
    ((measured, text),) = contrasts(page)
    assert (round(measured, 2), text) == (ratio, "words")

"""The map of heads: layer, head and value under the pointer; a click opens the attention pattern of that head."""

from __future__ import annotations

import re
import shutil
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pytest
from tests.browser.looks import FITS, click_until, load_frames, wait_until
from tests.browser.toy_paper import HEADS, TOKENS, VALUES, WITHOUT_PATTERN, pattern_of

if TYPE_CHECKING:
    from playwright.sync_api import Frame, Locator, Page
    from tests.browser.chromium import Visit

MAP = Path("papers/toys/tiny/head map.html")
OPEN = "#pattern:not([hidden])"


def cell(page: Page | Frame, layer: int, head: int) -> Locator:
    return page.locator("#grid tbody tr").nth(layer).locator("button").nth(head)


def weights_shown(page: Page | Frame) -> np.ndarray:
    """The weight that the open pattern says for every query and key, each read by pointing at it."""
    n = len(TOKENS)
    shown = np.zeros((n, n))
    box = page.locator("#map").bounding_box()
    assert box is not None
    for query, key in np.ndindex(n, n):
        place = {"x": (key + 0.5) * box["width"] / n, "y": (query + 0.5) * box["height"] / n}
        page.locator("#map").hover(position=place)  # type: ignore[arg-type]
        shown[query, key] = float(page.inner_text("#weight"))
    return shown


def test_pointing_at_a_head_says_layer_head_and_value(toy: Path, visit: Visit) -> None:
    page = visit(toy / MAP)
    assert not page.is_visible("#tip")
    for layer, head in HEADS:
        cell(page, layer, head).hover()
        assert page.inner_text("#tip") == f"layer {layer}, head {head}: {VALUES[layer, head]:.3g}"
    page.hover("h2")
    assert not page.is_visible("#tip")


def test_colours_grow_with_the_value_and_tell_its_sign(toy: Path, visit: Visit) -> None:
    page = visit(toy / MAP)
    reading = """(one) => {
      const context = document.createElement("canvas").getContext("2d");
      context.fillStyle = getComputedStyle(one).backgroundColor;
      context.fillRect(0, 0, 1, 1);
      return [...context.getImageData(0, 0, 1, 1).data];
    }"""
    colours = {head: np.array(cell(page, *head).evaluate(reading)[:3]) for head in HEADS}
    white = np.full(3, 255)
    distance = {head: float(np.abs(colour - white).sum()) for head, colour in colours.items()}
    blue = [head for head in HEADS if VALUES[head] >= 0]
    assert sorted(blue, key=distance.__getitem__) == sorted(blue, key=lambda head: VALUES[head])
    assert all(colours[head][2] >= colours[head][0] for head in blue)
    assert all(colours[head][0] > colours[head][2] for head in HEADS if VALUES[head] < 0)


@pytest.mark.parametrize("head", [(0, 2), (1, 1)])
def test_a_click_opens_the_pattern_of_that_head(toy: Path, visit: Visit, head: tuple[int, int]) -> None:
    page = visit(toy / MAP)
    assert not page.is_visible("#pattern")
    cell(page, *head).click()
    assert page.inner_text("#opened") == f"Attention pattern of head {head[0]}.{head[1]}"
    assert cell(page, *head).get_attribute("aria-current") == "true"
    np.testing.assert_allclose(weights_shown(page), pattern_of(*head), rtol=0, atol=0.5 / 255 + 0.0006)


def test_another_head_replaces_it_and_the_map_follows_the_small_patterns(toy: Path, visit: Visit) -> None:
    page = visit(toy / MAP)
    cell(page, 0, 0).click()
    cell(page, 0, 1).click()
    assert page.inner_text("#opened-head") == "0.1"
    page.locator(".heads button", has_text="1.2").click()
    assert page.inner_text("#opened-head") == "1.2"
    current = page.locator("[aria-current=true]")
    assert current.count() == 1
    assert current.get_attribute("data-says") == "layer 1, head 2: -0.75"


def test_a_head_without_a_stored_pattern_says_its_value_and_opens_nothing(toy: Path, visit: Visit) -> None:
    page = visit(toy / MAP)
    without = cell(page, *WITHOUT_PATTERN)
    assert without.get_attribute("aria-disabled") == "true"
    without.click(force=True)
    assert not page.is_visible("#pattern")
    assert page.inner_text("#tip") == "layer 1, head 0: 0.125"


def test_keys_walk_the_map_open_a_pattern_and_escape_closes_it(toy: Path, visit: Visit) -> None:
    page = visit(toy / MAP)
    page.keyboard.press("Tab")
    page.keyboard.press("ArrowRight")
    page.keyboard.press("ArrowDown")
    assert page.inner_text("#tip") == "layer 1, head 1: 1"
    page.keyboard.press("ArrowDown")  # there is no third layer
    page.keyboard.press("End")
    page.keyboard.press("Enter")
    assert page.inner_text("#opened-head") == "1.2"
    assert page.evaluate("document.activeElement.id") == "opened"
    page.keyboard.press("Tab")
    assert page.evaluate("document.activeElement.id") == "close"
    page.keyboard.press("Escape")
    assert not page.is_visible("#pattern")
    assert page.evaluate("document.activeElement.dataset.says") == "layer 1, head 2: -0.75"
    page.keyboard.press("Escape")
    assert not page.is_visible("#tip")
    page.keyboard.press("Home")
    page.keyboard.press("ArrowUp")
    page.keyboard.press("Space")
    assert page.inner_text("#opened-head") == "0.0"


def test_escape_releases_a_locked_token_before_it_closes(toy: Path, visit: Visit) -> None:
    page = visit(toy / MAP)
    cell(page, 0, 0).click()
    page.locator("#tokens button").nth(2).click()
    assert "Locked" in page.inner_text("#said")
    page.keyboard.press("Escape")
    assert "Locked" not in page.inner_text("#said")
    assert page.is_visible("#pattern")
    page.keyboard.press("Escape")
    assert not page.is_visible("#pattern")


@pytest.mark.parametrize("width", [1280, 390])
def test_in_the_report_the_frame_grows_with_what_is_open(toy: Path, visit: Visit, width: int) -> None:
    page = visit(toy / "papers" / "toys.html", width=width)
    frame = load_frames(page)[1]
    before = frame.evaluate("() => innerHeight")
    click_until(cell(frame, 1, 2), frame, f"document.querySelector('{OPEN}')")
    wait_until(frame, f"{FITS} && innerHeight > {before} + 300")
    click_until(frame.locator("#close"), frame, f"!document.querySelector('{OPEN}')")
    wait_until(frame, f"innerHeight < {before} + 20")


def test_a_frame_cannot_make_itself_endless(toy: Path, visit: Visit) -> None:
    page = visit(toy / "papers" / "toys.html")
    frame = load_frames(page)[1]
    for height in ("1e9", "'x'", "-5", "NaN"):
        frame.evaluate(f"() => parent.postMessage({{ height: {height} }}, '*')")
    frame.evaluate("() => parent.postMessage(null, '*')")
    wait_until(page, "document.querySelectorAll('iframe')[1].offsetHeight === 6002")


def test_frames_fit_where_they_speak_before_the_report_listens(toy: Path, visit: Visit, tmp_path: Path) -> None:
    """A busy machine may load a frame before it runs the script of the page around it."""
    shutil.copytree(toy, tmp_path, dirs_exist_ok=True)
    path = tmp_path / "papers" / "toys.html"
    text, allowed = re.subn('<meta http-equiv="Content-Security-Policy"[^>]*>', "", path.read_text())
    head, script = text.rsplit("<script>", 1)
    path.write_text(f'{head}<script>addEventListener("now", () => {{{script.replace("</script>", "});</script>")}')
    page = visit(path, width=390)
    frame = page.query_selector("iframe")
    assert allowed == 1
    assert frame is not None
    frame.scroll_into_view_if_needed()
    inside = frame.content_frame()
    assert inside is not None
    inside.wait_for_selector("#tokens button")
    wait_until(inside, "new Promise((done) => requestAnimationFrame(() => setTimeout(() => done(true))))")
    assert not inside.evaluate(f"() => {FITS}")
    page.evaluate("() => dispatchEvent(new Event('now'))")
    wait_until(inside, FITS)

"""What can be measured of how a page looks: contrast of its text, and whether it is wider than its window."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from playwright.sync_api import Frame, Locator, Page

LEAST = 4.5  # WCAG 2.2, success criterion 1.4.3, asked of large text too

# Backgrounds are blended from the root to the element, with those of ::before where it covers the element. Colours of
# every notation are read by painting them.
CONTRAST = """
() => {
  const canvas = Object.assign(document.createElement("canvas"), { width: 1, height: 1 });
  const context = canvas.getContext("2d", { willReadFrequently: true });
  const cache = new Map();
  function rgba(colour) {
    if (!cache.has(colour)) {
      context.clearRect(0, 0, 1, 1);
      context.fillStyle = colour;
      context.fillRect(0, 0, 1, 1);
      const [r, g, b, a] = context.getImageData(0, 0, 1, 1).data;
      cache.set(colour, [r, g, b, a / 255]);
    }
    return cache.get(colour);
  }
  const over = ([r, g, b, a], below) => [r, g, b].map((value, at) => value * a + below[at] * (1 - a));
  const linear = (value) => (value / 255 <= 0.04045 ? value / 255 / 12.92 : ((value / 255 + 0.055) / 1.055) ** 2.4);
  const luminance = ([r, g, b]) => 0.2126 * linear(r) + 0.7152 * linear(g) + 0.0722 * linear(b);
  function background(element) {
    const below = element.parentElement ? background(element.parentElement) : [255, 255, 255];
    let shown = over(rgba(getComputedStyle(element).backgroundColor), below);
    const before = getComputedStyle(element, "::before");
    if (before.content !== "none" && before.position === "absolute") {
      const [r, g, b, a] = rgba(before.backgroundColor);
      shown = over([r, g, b, a * Number(before.opacity)], shown);
    }
    return shown;
  }
  const found = [];
  const walker = document.createTreeWalker(document.body, NodeFilter.SHOW_TEXT);
  while (walker.nextNode()) {
    const text = walker.currentNode.textContent.trim();
    const element = walker.currentNode.parentElement;
    if (!text || !element.checkVisibility({ opacityProperty: true, visibilityProperty: true })) continue;
    if (element.closest(".hidden, script, style, noscript, option")) continue;
    const below = background(element);
    const style = getComputedStyle(element);
    const [r, g, b, a] = rgba(style.color);
    const [dark, light] = [luminance(over([r, g, b, a], below)), luminance(below)].sort((x, y) => x - y);
    found.push([(light + 0.05) / (dark + 0.05), text.slice(0, 60)]);
  }
  return found.sort((x, y) => x[0] - y[0]);
}
"""
FITS = "document.documentElement.scrollHeight <= document.documentElement.clientHeight"
ASKED = "() => `${document.documentElement.offsetHeight + 2}px`"  # the report leaves two pixels for the border
TOO_WIDE = "() => document.documentElement.scrollWidth - document.documentElement.clientWidth"


def contrasts(page: Page | Frame) -> list[tuple[float, str]]:
    """The contrast of every piece of text that is shown, the lowest first."""
    found: list[Any] = page.evaluate(CONTRAST)
    return [(float(ratio), str(text)) for ratio, text in found]


def too_faint(page: Page | Frame) -> list[tuple[float, str]]:
    return [(round(ratio, 2), text) for ratio, text in contrasts(page) if ratio < LEAST]


def too_wide(page: Page | Frame) -> int:
    """By how many pixels the page is wider than its window."""
    return int(page.evaluate(TOO_WIDE))


def wait_until(page: Page | Frame, condition: str, seconds: float = 30) -> None:
    """Wait for a JavaScript expression to be true; playwright's own way is forbidden by the policy of our pages.

    Raises:
        AssertionError: if it is still false after `seconds`.
    """
    assert _comes_true(page, condition, seconds), f"never: {condition}"


def click_until(target: Locator, frame: Frame, condition: str, tries: int = 5) -> None:
    """Click in a frame of a report until a JavaScript expression is true there.

    A browser sends a click to where a frame was when it last drew: on a busy machine, past one that has just moved.

    Raises:
        AssertionError: if it is still false after the last click.
    """
    for _ in range(tries):
        target.click()
        if _comes_true(frame, condition, 6):
            return
    raise AssertionError(f"never after {tries} clicks: {condition}")


def load_frames(page: Page) -> list[Frame]:
    """Scroll to every frame until it is as high as its page asked for, so that nothing moves any more; returns them.

    A frame out of sight is not laid out, and the growth of the one above may move it out of sight again. Scrolling by a
    pixel makes the browser look again at what is in sight.

    Raises:
        AssertionError: if a frame never gets its height, or stays smaller than its page.
    """
    frames = []
    for frame in page.query_selector_all("iframe"):
        frame.scroll_into_view_if_needed()
        inside = frame.content_frame()
        assert inside is not None
        inside.wait_for_selector("body")
        end = time.monotonic() + 30
        while frame.evaluate("(one) => one.style.height") != inside.evaluate(ASKED):
            assert time.monotonic() < end, f"never has its height: {inside.url}"
            frame.scroll_into_view_if_needed()
            page.evaluate("() => { scrollBy(0, 1); scrollBy(0, -1); }")
            page.wait_for_timeout(20)
        assert inside.evaluate(f"() => {FITS}"), inside.url
        frames.append(inside)
    return frames


def _comes_true(page: Page | Frame, condition: str, seconds: float) -> bool:
    end = time.monotonic() + seconds
    while not page.evaluate(f"() => {condition}"):
        if time.monotonic() > end:
            return False
        page.wait_for_timeout(20)
    return True

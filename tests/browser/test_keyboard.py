"""Without a pointer: every control is reached in the order of the page, is seen when it is, and does its work."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from playwright.sync_api import Page
    from tests.browser.chromium import Visit

STOP = """() => {
  const one = document.activeElement;
  const [style, box] = [getComputedStyle(one), one.getBoundingClientRect()];
  const all = [...document.querySelectorAll("*")];
  return {
    tag: one.tagName, place: all.indexOf(one), text: (one.textContent || one.name || "").trim().slice(0, 40),
    outlined: style.outlineStyle !== "none" && parseFloat(style.outlineWidth) > 0,
    seen: box.width > 1 && box.height > 1 && box.bottom > 0 && box.top < innerHeight
      && box.right > 0 && box.left < innerWidth,
  };
}"""


def stops(page: Page, most: int = 150) -> list[dict[str, object]]:
    """Where the Tab key stops, from the start of the page until it leaves the page or enters a frame."""
    found: list[dict[str, object]] = []
    for _ in range(most):
        page.keyboard.press("Tab")
        stop = page.evaluate(STOP)
        if stop["tag"] in ("BODY", "IFRAME"):
            break
        found.append(stop)
    return found


@pytest.mark.parametrize("width", [1280, 390])
@pytest.mark.parametrize("name", ["index.html", "papers/toys.html"])
def test_the_tab_key_goes_through_the_page_in_order_and_every_stop_is_seen(
    toy: Path, visit: Visit, name: str, width: int
) -> None:
    found = stops(visit(toy / name, width=width))
    assert len(found) > 8
    assert [one for one in found if not (one["outlined"] and one["seen"])] == []
    places = [one["place"] for one in found]
    assert places == sorted(places)  # type: ignore[type-var]
    texts = [one["text"] for one in found]
    assert texts[0] == "Skip to the content"
    assert "words" in texts
    assert not any(one["text"] == "Clear" for one in found)


@pytest.mark.parametrize("key", ["Enter", "Space"])
@pytest.mark.parametrize("width", [1280, 390])
def test_a_header_sorts_by_key(toy: Path, visit: Visit, key: str, width: int) -> None:
    page = visit(toy / "index.html", width=width)
    page.locator("table.claims thead button").nth(3).focus()
    for expected in ("ascending", "descending", "none"):
        page.keyboard.press(key)
        assert page.locator("table.claims thead th").nth(3).get_attribute("aria-sort") == expected
    assert page.evaluate("document.activeElement.closest('th').cellIndex") == 3


def test_escape_empties_the_filter(toy: Path, visit: Visit) -> None:
    page = visit(toy / "index.html")
    page.locator("[name=words]").focus()
    page.keyboard.type("beta")
    page.keyboard.press("Tab")
    page.keyboard.press("r")  # chooses "refuted"
    assert page.inner_text("form.filter output") == "1 of 10 verdicts"
    page.keyboard.press("Escape")
    assert page.inner_text("form.filter output") == "10 verdicts"
    assert page.evaluate("[...document.forms[0].querySelectorAll('input, select')].map((one) => one.value)") == ["", ""]


def test_enter_in_the_filter_stays_on_the_page(toy: Path, visit: Visit) -> None:
    page = visit(toy / "index.html")
    page.locator("[name=words]").fill("beta")
    page.keyboard.press("Enter")
    assert page.inner_text("form.filter output") == "2 of 10 verdicts"


def test_the_skip_link_leads_past_the_navigation(toy: Path, visit: Visit) -> None:
    page = visit(toy / "papers" / "toys.html")
    page.keyboard.press("Tab")
    page.keyboard.press("Enter")
    page.keyboard.press("Tab")
    assert page.evaluate("document.activeElement.closest('main') !== null")

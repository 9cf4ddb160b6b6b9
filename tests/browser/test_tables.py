"""Tables sort by every column, three ways; claims are filtered by words and by verdict; the first order returns."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from tests.browser.looks import load_frames, wait_until
from tests.browser.toy_paper import ESTIMATES, STATEMENTS, VERDICTS

if TYPE_CHECKING:
    from playwright.sync_api import Page
    from tests.browser.chromium import Visit

ORDER = list(STATEMENTS)
MEASURED = sorted((name for name in ORDER if ESTIMATES[name] is not None), key=lambda name: ESTIMATES[name] or 0)
RANKS = ["supported", "refuted", "inconclusive", "not run"]


def claims_of(page: Page, tier: str = "tiny") -> list[str]:
    """The ids of the claims that are shown in the index, in their order, of one tier."""
    rows = page.locator("table.claims tbody tr:not(.group)").filter(visible=True).all()
    found = [(row.locator("td").nth(1).inner_text(), row.locator("a").get_attribute("href")) for row in rows]
    return [str(link).partition("#claim-")[2] for of, link in found if of.strip() == tier]


def header(page: Page, column: int) -> str | None:
    return page.locator("table.claims thead th").nth(column).get_attribute("aria-sort")


@pytest.mark.parametrize(
    ("name", "column", "ascending", "descending"),
    [
        ("Claim", 0, ORDER, ORDER[::-1]),
        ("Verdict within the tier", 2, sorted(ORDER, key=lambda name: RANKS.index(VERDICTS[name])), None),
        ("Measured, 95\u00a0% interval", 3, [*MEASURED, "delta"], [*MEASURED[::-1], "delta"]),
        ("Accepted", 4, ["gamma", "delta", "alpha", "epsilon", "beta"], None),
        ("n", 5, ["alpha", "beta", "gamma", "epsilon", "delta"], ["alpha", "beta", "gamma", "epsilon", "delta"]),
        ("The paper's number", 7, ORDER[::-1], ORDER),
    ],
)
def test_a_column_sorts(
    toy: Path, visit: Visit, name: str, column: int, ascending: list[str], descending: list[str] | None
) -> None:
    """Numbers as numbers, verdicts in the order of the legend, equal ones as they were, what is missing last."""
    page = visit(toy / "index.html")
    button = page.locator("table.claims").get_by_role("button", name=name, exact=True)
    assert (claims_of(page), header(page, column)) == (ORDER, "none")
    button.click()
    assert (claims_of(page), header(page, column)) == (ascending, "ascending")
    button.click()
    assert header(page, column) == "descending"
    if descending is not None:
        assert claims_of(page) == descending
    button.click()
    assert (claims_of(page), header(page, column)) == (ORDER, "none")


def test_one_column_at_a_time_is_marked_and_groups_keep_their_headings(toy: Path, visit: Visit) -> None:
    page = visit(toy / "index.html")
    for column in (3, 0):
        page.locator("table.claims thead button").nth(column).click()
    marks = [header(page, column) for column in range(8)]
    assert marks == ["ascending", *["none"] * 7]
    first = page.locator("table.claims tbody tr").first
    assert "group" in str(first.get_attribute("class"))


def test_every_sortable_table_of_a_paper_sorts(toy: Path, visit: Visit) -> None:
    page = visit(toy / "papers" / "toys.html")
    load_frames(page)  # they grow, and a click would miss the button that they move
    stages = page.locator("table.records").first
    names = stages.locator("tbody th")
    assert names.all_inner_texts() == ["first_stage_with_a_long_name", "second"]
    stages.get_by_role("button", name="Seconds").click()
    assert names.all_inner_texts() == ["second", "first_stage_with_a_long_name"]
    assert page.locator("table.small thead button").count() == 0


def test_words_filter_claims_and_all_of_them_must_be_there(toy: Path, visit: Visit) -> None:
    page = visit(toy / "index.html")
    field = page.get_by_label("Filter claims").last
    field.fill("COPIES tiny")
    assert claims_of(page) == ["beta", "gamma", "epsilon"]
    assert claims_of(page, "paper") == []
    assert page.inner_text("form.filter output") == "3 of 10 verdicts"
    field.fill("copies tiny nothing")
    assert claims_of(page) == ["gamma"]
    field.fill("no such words")
    assert claims_of(page) == []
    assert not page.is_visible("tr.group")
    assert page.inner_text("form.filter output") == "0 of 10 verdicts"
    page.get_by_role("button", name="Clear").click()
    assert claims_of(page) == ORDER
    assert page.evaluate("document.activeElement.name") == "words"


@pytest.mark.parametrize("verdict", RANKS)
def test_verdicts_filter_claims_and_go_with_words_and_order(toy: Path, visit: Visit, verdict: str) -> None:
    page = visit(toy / "index.html")
    page.get_by_label("Verdict").select_option(verdict)
    expected = [name for name in ORDER if VERDICTS[name] == verdict]
    assert claims_of(page) == expected
    page.locator("table.claims thead button").first.click(click_count=1)
    page.locator("table.claims thead button").first.click(click_count=1)
    assert claims_of(page) == expected[::-1]
    page.get_by_label("Filter claims").last.fill("no such words")
    assert claims_of(page) == []


def test_a_paper_page_filters_its_claims_and_a_link_to_a_hidden_one_shows_it(toy: Path, visit: Visit) -> None:
    page = visit(toy / "papers" / "toys.html")
    shown = page.locator("article.claim").filter(visible=True)
    page.get_by_label("Filter claims").last.fill("copies section 2")
    assert [one.get_attribute("id") for one in shown.all()] == ["claim-beta"]
    page.evaluate("location.hash = '#claim-alpha'")
    wait_until(page, "!document.getElementById('claim-alpha').hidden")
    assert shown.count() == 5
    assert page.evaluate("document.forms[0].elements.words.value") == ""


def test_papers_of_this_project_sort_by_title_and_by_what_is_supported(project: Path, visit: Visit) -> None:
    page = visit(project / "index.html")
    table = page.locator("table.overview")
    titles = table.locator("tbody a[href$='.html']")
    table.get_by_role("button", name="Paper", exact=True).click()
    shown = titles.all_inner_texts()
    assert shown == sorted(shown, key=str.lower)
    assert len(shown) > 5
    tiny = table.get_by_role("button", name="tiny tier")
    tiny.click()
    tiny.click()
    counts = table.locator("tbody tr td:nth-child(2) .strip + .sub").all_inner_texts()
    supported = [int(text.split(" supported")[0]) if " supported" in text else 0 for text in counts]
    assert supported == sorted(supported, reverse=True)
    assert len(set(supported)) > 3

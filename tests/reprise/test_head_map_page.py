"""The page of values by head: every value under its layer and head, each pattern behind its own head, clear errors."""

from __future__ import annotations

import base64
import re
from html.parser import HTMLParser

import numpy as np
import pytest
from numpy.typing import NDArray

from reprise.pages import Page, head_map_page

VALUES = np.array([[0.5, -0.25, 0.0], [0.125, 1.0, -0.75]])
TOKENS = ["<b>", " a", "b\n"]


def pattern(seed: int) -> NDArray[np.float64]:
    scores = np.exp(np.random.default_rng(seed).normal(size=(3, 3)))
    weights: NDArray[np.float64] = np.tril(scores) / np.tril(scores).sum(axis=-1, keepdims=True)
    return weights


PATTERNS = {(1, 1): pattern(0), (0, 2): pattern(1)}


class Cells(HTMLParser):
    """The buttons of the map, and everything that the page would load."""

    def __init__(self, page: Page) -> None:
        super().__init__()
        self.cells: list[dict[str, str | None]] = []
        self.loaded: list[str | None] = []
        self.tags: list[str] = []
        self.feed(page.html)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        of = dict(attrs)
        if "data-says" in of:
            self.cells.append(of)
        self.loaded += [value for name, value in attrs if name in ("src", "href", "srcset", "data", "action")]


def page_of(**options: object) -> Page:
    return head_map_page(VALUES, "Score <i>", patterns=PATTERNS, tokens=TOKENS, **options)  # type: ignore[arg-type]


def test_every_head_says_its_value_and_has_its_colour() -> None:
    cells = Cells(page_of()).cells
    assert [cell["data-says"] for cell in cells] == [
        f"layer {layer}, head {head}: {value:.3g}" for (layer, head), value in np.ndenumerate(VALUES)
    ]
    assert [cell["style"] for cell in cells] == [f"--share: {abs(value):.3f}" for value in VALUES.flat]
    assert [cell["class"] == "value minus" for cell in cells] == (VALUES < 0).flatten().tolist()


def test_each_stored_pattern_stands_behind_its_own_head() -> None:
    page = page_of()
    behind = {place: cell.get("data-pattern") for place, cell in enumerate(Cells(page).cells)}
    assert behind == {0: None, 1: None, 2: "0", 3: None, 4: "1", 5: None}
    found = re.search(r'id="weights">([^<]*)<', page.html)
    assert found is not None
    weights = np.frombuffer(base64.b64decode(found[1]), dtype=np.uint8).reshape(2, 3, 3) / 255
    np.testing.assert_allclose(weights, [PATTERNS[0, 2], PATTERNS[1, 1]], rtol=0, atol=0.5 / 255 + 1e-9)


def test_words_are_text_and_nothing_is_loaded() -> None:
    page = page_of()
    parsed = Cells(page)
    assert not {"i", "b"} & set(parsed.tags)
    assert parsed.loaded == ["data:,"]
    assert "default-src 'none'" in page.html
    assert page == page_of()


def test_a_pattern_is_open_at_first_where_one_is_named() -> None:
    assert '<section id="pattern" aria-labelledby="opened" hidden>' in page_of().html
    opened = page_of(initial=(1, 1))
    assert '<section id="pattern" aria-labelledby="opened">' in opened.html
    assert '<span id="opened-head">1.1</span>' in opened.html
    assert opened.height > page_of().height + 300


def test_a_map_without_patterns_opens_nothing() -> None:
    page = head_map_page(VALUES, "Score")
    assert 'id="weights"' not in page.html
    assert all(cell.get("aria-disabled") == "true" for cell in Cells(page).cells)
    assert "opens its attention pattern" not in page.html


def test_a_map_of_zeros_has_no_colour() -> None:
    assert {cell["style"] for cell in Cells(head_map_page(np.zeros((2, 2)), "Score")).cells} == {"--share: 0.000"}


@pytest.mark.parametrize(
    ("values", "patterns", "initial", "message"),
    [
        (VALUES[0], PATTERNS, None, r"values: expected finite numbers of shape \[layer, head\].* \(3,\) with 0 that"),
        (VALUES * np.nan, PATTERNS, None, r"values: .* received shape \(2, 3\) with 6 that are not finite; give"),
        (VALUES, {(2, 0): pattern(0)}, None, r"patterns: expected heads of 2 layers and 3 heads, received \(2, 0\);"),
        (VALUES, {(0, -1): pattern(0)}, None, r"patterns: .* received \(0, -1\); name them \(layer, head\)"),
        (VALUES, PATTERNS, (0, 0), r"initial: expected one of the 2 heads in `patterns`, received \(0, 0\); add it"),
        (
            VALUES,
            {(0, 0): pattern(0)[:2, :2]},
            None,
            r"patterns: expected shape \[3, 3\] for 3 tokens, received \(2, 2\) for head 0\.0",
        ),
        (VALUES, {(0, 1): 2 * pattern(0)}, None, r"patterns: expected weights in \[0, 1\], .* for head 0\.1, query 0"),
        (VALUES, {(0, 0): pattern(0), (0, 1): pattern(0)[:2]}, None, r"patterns: .*\(2, 3\) for head 0\.1; give"),
    ],
)
def test_what_does_not_fit_is_one_line(
    values: NDArray[np.float64],
    patterns: dict[tuple[int, int], NDArray[np.float64]],
    initial: tuple[int, int] | None,
    message: str,
) -> None:
    with pytest.raises(ValueError, match=message) as raised:
        head_map_page(values, "Score", patterns=patterns, tokens=TOKENS, initial=initial)
    assert "\n" not in str(raised.value)

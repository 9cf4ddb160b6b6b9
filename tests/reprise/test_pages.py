"""Interactive pages: hostile tokens stay text, weights survive to 8 bits, nothing is loaded, equal bytes."""

from __future__ import annotations

import base64
import re
import shutil
import subprocess
from html.parser import HTMLParser
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from reprise import Page, attention_page
from reprise.pages import TEMPLATES

TOKENS = ["</script><script>alert(1)</script>", " &amp; ", "\"'>", "line\n", "\t\x00\x9f\ud800", "", "{{ labels }}"]
SHOWN = ["</script><script>alert(1)</script>", "␣&amp;␣", "\"'>", "line⏎", "⇥␀\ufffd\ufffd", "∅", "{{␣labels␣}}"]


def patterns(heads: int = 3, n: int = len(TOKENS), seed: int = 0) -> NDArray[np.float64]:
    """Causal attention of random scores, different at every head, query and key."""
    scores = np.random.default_rng(seed).normal(size=(heads, n, n))
    weights: NDArray[np.float64] = np.where(np.tri(n, dtype=bool), np.exp(scores), 0)
    weights /= weights.sum(axis=-1, keepdims=True)
    return weights


class Parsed(HTMLParser):
    """What a browser makes of a page: its tags, the text of its elements by kind, and everything it would load."""

    def __init__(self, page: Page) -> None:
        super().__init__()
        self.tags: list[str] = []
        self.loaded: list[str] = []
        self.pressed: list[bool] = []
        self.text: dict[str, list[str]] = {"": [""]}
        self.open = [""]
        self.feed(page.html)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        self.open.append(tag)
        self.text.setdefault(tag, []).append("")
        for name, value in attrs:
            assert not name.startswith("on"), f"{tag} has a handler {name}"
            if name in ("src", "srcset", "href", "data", "action", "poster"):
                self.loaded.append(value or "")
            if name == "aria-pressed":
                self.pressed.append(value == "true")

    def handle_data(self, data: str) -> None:
        self.text[self.open[-1]][-1] += data

    def handle_endtag(self, tag: str) -> None:
        while self.open.pop() != tag:
            pass

    def weights(self) -> NDArray[np.uint8]:
        return np.frombuffer(base64.b64decode(self.text["script"][0]), dtype=np.uint8)


def page_of(labels: tuple[str, ...] = ("0.0", "0.6", "1.<b>"), initial: str | None = None) -> Page:
    return attention_page(patterns(len(labels)), TOKENS, labels, initial=initial)


def test_tokens_and_labels_are_text_with_marks_for_what_is_not_seen() -> None:
    page = Parsed(page_of())
    assert page.text["bdi"] == SHOWN
    assert page.text["span"][:3] == ["0.0", "0.6", "1.<b>"]
    assert page.tags.count("script") == 2
    assert "b" not in page.tags
    assert page.tags.count("br") == 1


@pytest.mark.parametrize(("initial", "pressed"), [(None, 0), ("0.6", 1)])
def test_the_initial_head_is_selected(initial: str | None, pressed: int) -> None:
    page = Parsed(page_of(initial=initial))
    assert [index for index, is_pressed in enumerate(page.pressed[:3]) if is_pressed] == [pressed]
    assert page.text["output"] == [["0.0", "0.6"][pressed]]


@pytest.mark.parametrize("dtype", [np.float16, np.float32, np.float64])
def test_weights_are_kept_to_one_part_in_255(dtype: type[np.floating[Any]]) -> None:
    given: NDArray[np.floating[Any]] = patterns().astype(dtype)
    read = Parsed(attention_page(given, TOKENS, ("a", "b", "c"))).weights().reshape(given.shape) / 255
    assert np.abs(read - given).max() <= 0.5 / 255 + 1e-9
    assert np.abs(read - np.swapaxes(given, 1, 2)).max() > 0.1


def test_nothing_is_loaded_and_the_policy_forbids_it() -> None:
    page = page_of()
    assert Parsed(page).loaded == ["data:,"]
    assert "default-src 'none'" in page.html
    assert not re.search(r"https?:|url\(|@import|\bfetch\(|XMLHttpRequest|import\(", page.html)
    assert "8 bits" in page.html


def test_equal_arguments_give_equal_bytes() -> None:
    assert page_of() == page_of()
    assert page_of() != page_of(initial="0.6")


def test_twenty_four_heads_of_64_tokens_are_small() -> None:
    labels = [f"{layer}.{head}" for layer in range(2) for head in range(12)]
    page = attention_page(patterns(24, 64), [f" word{i}" for i in range(64)], labels)
    assert len(page.html.encode()) < 250_000
    assert 600 < page.height < 1200


def nan() -> NDArray[np.float64]:
    values = patterns()
    values[1, 2, 0] = np.nan
    return values


@pytest.mark.parametrize(
    ("values", "tokens", "labels", "initial", "message"),
    [
        (
            patterns()[0],
            TOKENS,
            "abc",
            None,
            r"patterns: expected shape \[head, query, key\], .*received \(7, 7\); give",
        ),
        (patterns()[:0], TOKENS, "", None, r"patterns: expected shape .* received \(0, 7, 7\); give"),
        (
            patterns(),
            TOKENS[1:],
            "abc",
            None,
            r"patterns: expected shape \[head, 6, 6\] for 6 tokens.*\(3, 7, 7\); give",
        ),
        (
            patterns()[:, 1:],
            TOKENS,
            "abc",
            None,
            r"patterns: expected shape \[head, 7, 7\].*received \(3, 6, 7\); give",
        ),
        (patterns(), TOKENS, "ab", None, r"labels: expected 3, one for every head, received 2; name"),
        (patterns(), TOKENS, "aba", None, r"labels: expected different ones, received 'a' twice; name"),
        (patterns(), TOKENS, "abc", "d", r"initial: expected one of 3 labels, received 'd'; take"),
        (patterns() * 2, TOKENS, "abc", None, r"patterns: .*received 2 for head a, query 0, key 0; give"),
        (-patterns(), TOKENS, "abc", None, r"patterns: expected weights in \[0, 1\], received -1 for head a"),
        (nan(), TOKENS, "abc", None, r"patterns: .*received nan for head b, query 2, key 0; give"),
    ],
)
def test_what_does_not_fit_is_one_line(
    values: NDArray[np.float64], tokens: list[str], labels: str, initial: str | None, message: str
) -> None:
    with pytest.raises(ValueError, match=message) as raised:
        attention_page(values, tokens, list(labels), initial=initial)
    assert "\n" not in str(raised.value)


def test_a_page_has_a_height() -> None:
    assert Page("").height == 520
    with pytest.raises(ValueError, match="page: expected a height of at least 1 pixel, received 0; 520 is usual"):
        Page("", 0)


def test_every_element_that_the_script_asks_for_is_there() -> None:
    script = (TEMPLATES / "attention.js").read_text()
    page = page_of().html
    asked = set(re.findall(r'\bid\("(\w+)"\)', script))
    assert len(asked) > 5
    assert all(page.count(f'id="{name}"') == 1 for name in asked)
    assert all(f"--{name}:" in page for name in re.findall(r'"--(zero|one)"', script))


@pytest.mark.skipif(shutil.which("node") is None, reason="node reads the script")
def test_the_script_is_valid() -> None:
    finished = subprocess.run(
        ["node", "--check", str(TEMPLATES / "attention.js")], capture_output=True, text=True, check=False
    )
    assert (finished.returncode, finished.stderr) == (0, "")

"""Whatever text comes from data is shown as text: markup in it adds no element and no attribute to a page.

A page with hostile texts is compared, tag by tag, with the page that harmless texts of the same places give.
"""

from __future__ import annotations

import json
import shutil
from html.parser import HTMLParser
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pytest
from tests.reprise.test_units import invoke

from reprise import attention_page

if TYPE_CHECKING:
    from tests.reprise.conftest import Toys

HOSTILE = (
    '"><img src=x onerror=alert(1)><script>alert(1)</script>[/red]',
    "' autofocus onfocus='alert(1) </title></style></script><svg onload=alert(1)>",
    "]]></td></table><base href=//evil> {{ 7 * 7 }}{% raw %} &lt;b&gt; <!-- <iframe src=javascript:alert(1)>",
    "javascript:alert(1)",
)
PAPER = """
title = {0}
authors = [{0}, "B"]
year = 2020
link = {1}
owner = "@reprise/toys"
about = {0}

[tiers.tiny]
about = {0}
models = [{2}]

[tiers.paper]
about = {0}
models = [{0}]

[[claims]]
id = "mean-is-positive"
statement = {0}
where = {0}
provenance = "read"
quantity = {0}
unit = {0}
note = {0}
paper_value = 0.5
accept = {{ tiny = {{ at_least = 0.0 }}, paper = {{ at_least = 0.4, at_most = 0.6 }} }}
"""
EXPERIMENT = """
import numpy as np
from reprise import Measurement, Result, Stage

TEXT = {0}


def words(job):
    return Result({{"patterns": np.full((1, 1, 1), 0.5)}}, {{"tokens": [TEXT], "heads": [TEXT]}})


def each(job):
    return Result({{"a": np.zeros(1)}}, {{"text": TEXT}})


STAGES = (Stage("words", words, units=("only-one",)), Stage("each", each, each_model=True))
CLAIMS = {{
    "mean-is-positive": lambda results: Measurement(estimate=1.0, low=0.5, high=1.5, n=50, over=TEXT)
}}
"""
FIGURES = """
from reprise import attention_page

TEXT = {0}


def page(results):
    result = results.of("words")["only-one"]
    return attention_page(result["patterns"], result.facts["tokens"], result.facts["heads"])


def plot(results):
    import matplotlib.pyplot as plt

    figure, axes = plt.subplots()
    axes.set_title("A title")
    return figure


page.__doc__ = plot.__doc__ = TEXT + "\\n\\n" + TEXT
FIGURES = {{"page": page, "plot": plot}}
"""


class Skeleton(HTMLParser):
    """The tags of a page with the names of their attributes, the addresses, and all text."""

    def __init__(self, html: str) -> None:
        super().__init__()
        self.tags: list[tuple[str, tuple[str, ...]]] = []
        self.addresses: list[str] = []
        self.said: list[str] = []
        self.feed(html)
        self.close()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, tuple(name for name, _ in attrs)))
        self.addresses += [value or "" for name, value in attrs if name in ("href", "src")]
        self.said += [value or "" for name, value in attrs if name in ("title", "aria-label", "alt")]

    def handle_endtag(self, tag: str) -> None:
        self.tags.append((f"/{tag}", ()))

    def handle_comment(self, data: str) -> None:
        self.tags.append(("comment", ()))

    def handle_data(self, data: str) -> None:
        self.said.append(data)


def site(toys: Toys, text: str) -> dict[str, Skeleton]:
    """The pages of a report in which every text that comes from data is `text`."""
    shutil.rmtree(toys.out, ignore_errors=True)
    quoted, model = json.dumps(text), toys.models[0]
    named = model.with_name(text.replace("/", "|"))
    model.rename(named)
    try:
        link = json.dumps(f"https://example.org/{text}")
        paper = PAPER.format(quoted, link, json.dumps(str(named)))
        (toys.folder / "paper.toml").write_text(paper)
        (toys.folder / "experiment.py").write_text(EXPERIMENT.format(quoted))
        (toys.folder / "figures.py").write_text(FIGURES.format(quoted))
        commands = (
            ("run", "toys"),
            ("figures", "toys"),
            ("run", "toys", "--model", str(named)),
            ("report",),
            ("list",),
        )
        for command in (*commands, ("show", "toys")):
            code, said = invoke(*command)
            assert code == 0, said
    finally:
        named.rename(model)
    report = toys.out / "report"
    return {str(path.relative_to(report).name): Skeleton(path.read_text()) for path in report.rglob("*.html")}


def test_no_text_adds_an_element_or_an_attribute_to_the_report(toys: Toys) -> None:
    harmless = site(toys, "harmless words")
    assert set(harmless) == {"index.html", "toys.html", "page.html"}
    for text in HOSTILE:
        for name, page in site(toys, text).items():
            assert page.tags == harmless[name].tags, (name, text)
            wanted = [address for address in page.addresses if address.startswith(f"https://example.org/{text}")]
            assert len(wanted) == (name == "toys.html")
            rest = [address for address in page.addresses if address not in wanted]
            assert all(":" not in address.split("/")[0] for address in rest if address != "data:,"), rest
            assert not any(address.startswith("//") for address in rest), rest
            shown = "".join(page.said)
            assert (text if name != "page.html" else text.replace(" ", "\u2423")) in shown, (name, text)


@pytest.mark.parametrize("text", HOSTILE)
def test_a_models_output_is_text_in_an_interactive_page(text: str) -> None:
    patterns = np.full((2, 3, 3), 0.25)
    pages = [
        Skeleton(attention_page(patterns, ["a", of, "b\n"], ["0.0", of], initial=of).html) for of in ("harmless", text)
    ]
    assert pages[1].tags == pages[0].tags
    assert text.replace(" ", "\u2423") in pages[1].said
    assert text in pages[1].said


def test_links_are_addresses_of_the_web(toys: Toys) -> None:
    path = toys.folder / "paper.toml"
    for link in (
        "javascript:alert(1)",
        " javascript:alert(1)",
        "data:text/html,x",
        "//evil.example",
        "file:///etc/passwd",
    ):
        path.write_text(path.read_text().replace("https://example.org/toys", link))
        code, said = invoke("report")
        assert code == 2
        assert "expected an http or https address" in said
        path.write_text(path.read_text().replace(link, "https://example.org/toys"))


def test_the_scripts_of_pages_write_text_and_no_markup() -> None:
    """Text that a script puts into a page goes through textContent, which makes no elements of it."""
    root = Path(__file__).parents[2]
    scripts = list(root.glob("packages/*/src/**/*.js"))
    templates = list(root.glob("packages/*/src/**/*.html"))
    assert scripts
    for path in (*scripts, *templates):
        text = path.read_text()
        for word in ("innerHTML", "outerHTML", "insertAdjacentHTML", "document.write", "eval(", "new Function"):
            assert word not in text, path
    for path in templates:
        marked = [line for line in path.read_text().splitlines() if "| safe" in line or "|safe" in line]
        assert all("<br>" in line for line in marked), path

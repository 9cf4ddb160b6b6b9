"""The channel of a paper: read, shown on the command line and, escaped, in the report."""

from __future__ import annotations

import re
from html.parser import HTMLParser
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from tests.reprise.team import Cli, one_line

from reprise import report, workspace

if TYPE_CHECKING:
    from tests.reprise.conftest import Toys

PROJECT = Path(__file__).parents[2]


@pytest.fixture
def cli(toys: Toys, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]) -> Cli:
    return Cli(monkeypatch, capfd)


def give(toys: Toys, *lines: str) -> None:
    toys.write_paper()
    toys.edit("[tiers.tiny]", "\n".join(["[channel]", *lines, "[tiers.tiny]"]), "paper.toml")


class Facts(HTMLParser):
    """Links, and the text of the line of facts below the title."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.links: list[str | None] = []
        self.tags: list[str] = []
        self.text = ""
        found = re.search(r'<p class="facts">.*?</p>', page, flags=re.DOTALL)
        assert found
        self.feed(found[0])

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        self.links += [value for name, value in attrs if name == "href"]

    def handle_data(self, data: str) -> None:
        self.text += data


def page(toys: Toys) -> Facts:
    index = report.build(toys.root, workspace.load_papers(toys.root), toys.out)
    return Facts((index.parent / "papers" / "toys.html").read_text())


def test_show_and_report_without_a_channel(cli: Cli, toys: Toys) -> None:
    assert "Channel" not in cli("show", "toys").out
    assert cli("show", "toys", "--json").json["paper"]["channel"] is None
    assert "Channel" not in page(toys).text


def test_show_and_report_with_label_and_discussion(cli: Cli, toys: Toys) -> None:
    give(toys, 'label = "paper: toys"', 'discussion = "https://example.org/d?a=1&b=2"')
    assert "Channel: label 'paper: toys', https://example.org/d?a=1&b=2\n" in cli("show", "toys").out
    facts = page(toys)
    assert "Channel: paper: toys" in " ".join(facts.text.split())
    assert facts.links == ["https://example.org/toys", "https://example.org/d?a=1&b=2"]


def test_the_report_escapes_both(toys: Toys) -> None:
    give(toys, 'label = "<script>x</script>"', """discussion = 'https://example.org/"onclick="x'""")
    facts = page(toys)
    assert set(facts.tags) == {"p", "a", "span"}
    assert "<script>x</script>" in facts.text
    assert facts.links[1] == 'https://example.org/"onclick="x'


@pytest.mark.parametrize(
    ("lines", "message"),
    [
        ([], "expected a label, a discussion or both"),
        ([f'label = "{"x" * 51}"'], "at most 50"),
        (['label = "a\\u001b[2Jb"'], "printable"),
        (['discussion = "javascript:alert(1)"'], "http or https"),
        (['discussion = "https://a b"'], "http or https"),
        (['discussion = "https://"'], "http or https"),
        (['lable = "x"'], "lable"),
    ],
)
def test_a_channel_that_is_none_gets_one_line(cli: Cli, toys: Toys, lines: list[str], message: str) -> None:
    give(toys, *lines)
    assert one_line(cli("show", "toys"), message, "channel")


def test_labels_of_this_repository_differ() -> None:
    labels = [paper.channel.label for paper in workspace.load_papers(PROJECT) if paper.channel]
    assert len(labels) >= 7
    assert len(set(labels)) == len(labels)

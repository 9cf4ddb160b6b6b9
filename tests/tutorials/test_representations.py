"""What results show of themselves in a notebook: all that comes from data escaped, readable on light and dark pages."""

from __future__ import annotations

import re
from collections.abc import Callable
from html.parser import HTMLParser
from pathlib import Path

import msgspec
import pytest
import torch

import circuits
import function_vectors as fv
import interventions as iv
import steering as st
import training
import zoo
from circuits import notebook as circuits_notebook
from function_vectors.gate import Gate
from interventions import notebook
from reprise import claim_table, paper
from reprise.claims import ClaimResult
from steering.controls import Control
from zoo.cards import Card

EVIL = "<script>alert('&')</script>"
IDENTITY = st.ModelIdentity(EVIL, "gpt2", 2, 3)


def sweep(shape: tuple[int, ...] = (4, 2, 3), axes: tuple[str, ...] = ("layer", "head")) -> iv.SweepResult:
    values = torch.arange(float(torch.tensor(shape).prod())).view(shape)
    coordinates = {axis: tuple(range(size)) for axis, size in zip(axes, shape[1:], strict=True)}
    return iv.SweepResult(values, torch.zeros(shape[0]), axes, coordinates, component="z", metric=EVIL)


def scores(right: list[bool] | list[list[bool]], *axes: str) -> fv.Scores:
    tensor = torch.tensor(right)
    return fv.Scores(tensor, axes, tuple(tuple(range(size)) for size in tensor.shape[1:]))


def gate() -> Gate:
    some, by_layer = scores([True, False]), scores([[True, False], [True, True]], "layer")
    one = fv.Thresholds()
    return Gate(EVIL, 0, some, some, some, some, by_layer, (by_layer,), by_layer, one)


def steering_vector() -> st.SteeringVector:
    directions = {0: torch.tensor([3.0, 4.0, 0.0]), 1: torch.tensor([0.0, 0.0, 2.0])}
    return st.SteeringVector(directions, EVIL, IDENTITY, facts={"texts": EVIL})


def outcome() -> st.Outcome:
    ones = torch.ones(3, 1, 1)
    return st.Outcome(("a", "b", "c"), ones, ones, ones)


def training_run() -> training.Run:
    part = training.Part(torch.nn.Linear(2, 1))

    def loss(model: torch.nn.Module, x: torch.Tensor) -> torch.Tensor:
        found: torch.Tensor = model(x).sum()
        return found

    return training.Run.of(training.FunctionTask(lambda step: torch.ones(1, 2), loss), {EVIL: part})


def card() -> Card:
    known = zoo.verify(zoo.folder("attn-only-2l"))
    return msgspec.structs.replace(known, hardware=EVIL)


def a_paper() -> paper.Paper:
    accept = paper.Accept(at_least=0.5)
    claim = paper.Claim(
        id="a", statement=EVIL, where=EVIL, provenance="read", quantity=EVIL, unit=EVIL, accept={"tiny": accept}
    )
    return paper.Paper(
        title=EVIL,
        authors=(EVIL,),
        year=2000,
        link="https://example.org",
        owner="@a",
        about="",
        tiers={"tiny": paper.Tier(about="")},
        claims=(claim,),
        slug="a_paper",
    )


def result() -> ClaimResult:
    return ClaimResult(
        paper="a_paper",
        claim="a",
        tier="tiny",
        verdict="refuted",
        estimate=0.25,
        low=0.125,
        high=0.375,
        n=8,
        unit=EVIL,
        paper_value=None,
        provenance="read",
        over=EVIL,
    )


def attribution() -> circuits.LogitAttribution:
    return circuits.LogitAttribution((EVIL, "L0H0"), torch.tensor([[[1.0, -3.0]]]), torch.zeros(1, 1))


def composition() -> circuits.CompositionScores:
    found = torch.full((2, 2, 2, 2), torch.nan)
    found[0, 1, 1, 0] = 0.5
    found[0, 0, 1, 0] = 0.25
    return circuits.CompositionScores(found, found, found)


MAKERS: dict[str, Callable[[], object]] = {
    "sweep": sweep,
    "sweep over one axis": lambda: sweep((4, 2), ("layer",)),
    "sweep over three axes": lambda: sweep((2, 2, 2, 2), ("layer", "head", "position")),
    "scores": lambda: scores([True, False]),
    "scores by layer": lambda: scores([[True, False]], "layer"),
    "function vector": lambda: fv.FunctionVector(torch.ones(4), EVIL, ((0, 1),)),
    "gate": gate,
    "steering vector": steering_vector,
    "steering sweep": lambda: st.SteeringSweep(EVIL, (0,), (1.0,), outcome(), ((outcome(),),)),
    "controls": lambda: st.Controls(EVIL, 0, 1.0, (Control("vector", outcome()), Control(EVIL, outcome()))),
    "training run": training_run,
    "card": card,
    "paper": a_paper,
    "claim": lambda: a_paper().claims[0],
    "verdict": result,
    "claims": lambda: claim_table(a_paper(), [result()]),
    "attribution": attribution,
    "composition": composition,
}


class Checked(HTMLParser):
    """What stands in a piece of HTML, and whether its tags are well nested."""

    def __init__(self, html: str) -> None:
        super().__init__()
        self.open: list[str] = []
        self.text, self.tags, self.scopes = "", list[str](), list[str]()
        self.feed(html)
        assert not self.open, f"not closed: {self.open}"

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.open.append(tag)
        self.tags.append(tag)
        given = dict(attrs)
        assert not [name for name in given if name.startswith("on") or name in ("src", "href")]
        if tag == "th":
            self.scopes.append(str(given.get("scope")))

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        self.text += data


@pytest.mark.parametrize("name", MAKERS)
def test_what_is_shown_is_an_accessible_table_in_which_data_is_only_text(name: str) -> None:
    value = MAKERS[name]()
    html = value._repr_html_()  # type: ignore[attr-defined]
    seen = Checked(html)
    allowed = {"div", "table", "caption", "thead", "tbody", "tr", "th", "td", "p"}
    assert set(seen.tags) <= allowed
    assert seen.tags.count("caption") == seen.tags.count("table") > 0
    assert set(seen.scopes) == {"col", "row"}
    if name not in ("scores", "scores by layer", "composition"):
        assert EVIL in seen.text
    assert "object at 0x" not in repr(value)
    assert len(repr(value)) < 700


def test_numbers_stand_where_their_headers_say() -> None:
    rows = re.findall(r"<tr>(.*?)</tr>", sweep()._repr_html_())
    cells = [re.findall(r">([^<]*)</t[hd]>", row) for row in rows]
    assert cells[0] == ["layer / head", "0", "1", "2"]
    means = sweep().values.mean(dim=0)  # the clean run is 0 everywhere
    assert [row[0] for row in cells[1:]] == ["0", "1"]
    assert [[float(cell) for cell in row[1:]] for row in cells[1:]] == means.tolist()


def test_a_number_that_is_rounded_to_zero_has_no_sign() -> None:
    html = notebook.heat_map("c", torch.tensor([[-20.0, -1e-4]]), rows=["a"], columns=["x", "y"], corner="r / c")
    assert re.findall(r">([^<]*)</td>", html) == ["-20.0", "0.0"]


def test_the_strongest_cell_has_the_strongest_shade_and_signs_have_colours_of_their_own() -> None:
    html = notebook.heat_map("c", torch.tensor([[-2.0, 0.0, 1.0]]), rows=["a"], columns=["x", "y", "z"], corner="r / c")
    shades = re.findall(r"<td style=\"[^\"]*?(?:rgba\((\d+),(\d+),(\d+),([\d.]+)\))?\">", html)
    assert [float(shade[3] or 0) for shade in shades] == [notebook.OPACITY, 0.0, notebook.OPACITY / 2]
    assert ",".join(shades[0][:3]) == notebook.BELOW
    assert ",".join(shades[2][:3]) == notebook.ABOVE


@pytest.mark.parametrize("colour", [notebook.BELOW, notebook.ABOVE, circuits_notebook.BELOW, circuits_notebook.ABOVE])
@pytest.mark.parametrize(("page", "text"), [((255, 255, 255), (33, 33, 33)), ((17, 17, 17), (224, 224, 224))])
def test_text_on_the_strongest_shade_keeps_its_contrast(
    colour: str, page: tuple[int, int, int], text: tuple[int, int, int]
) -> None:
    shade = [float(part) for part in colour.split(",")]
    below = [notebook.OPACITY * over + (1 - notebook.OPACITY) * under for over, under in zip(shade, page, strict=True)]
    light, dark = sorted((luminance(below), luminance(list(map(float, text)))), reverse=True)
    assert (light + 0.05) / (dark + 0.05) >= 4.5
    assert circuits_notebook.OPACITY == notebook.OPACITY


def luminance(colour: list[float]) -> float:
    """WCAG 2.2, relative luminance."""
    linear = [x / 12.92 if x <= 0.04045 else ((x + 0.055) / 1.055) ** 2.4 for x in (part / 255 for part in colour)]
    return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]


def test_texts_name_what_was_found() -> None:
    assert "largest: layer 1, head 2: +14; layer 1, head 1: +13" in repr(sweep())
    assert repr(result()).endswith(f"refuted, 0.25 [0.125, 0.375] {EVIL}, n 8 {EVIL}>")
    assert "norm by layer 0: 5, 1: 2" in repr(steering_vector())
    assert "0.1 > 1.0: 0.500" in repr(composition())
    assert "most: L0H0 -3; " in repr(attribution())
    assert "at layer 1" in repr(scores([[False, True]], "layer"))


def test_a_log_without_the_column_says_which_there_are(tmp_path: Path) -> None:
    log = tmp_path / "log.csv"
    log.write_text("step,loss\n0,\n1,2.0\n")
    with pytest.raises(training.TrainingError, match=r"no column 'error'; expected one of step, loss"):
        training.plot_log(log, ["error"])
    with pytest.raises(training.TrainingError, match=r"no such log; write one with log_csv"):
        training.plot_log(tmp_path / "none.csv")
    log.write_text("step,loss\n0,\n")
    with pytest.raises(training.TrainingError, match=r"column 'loss' has no numbers yet"):
        training.plot_log(log)

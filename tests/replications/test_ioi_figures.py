"""The figures draw any model's results, show the numbers that these hold, and have nothing cut off."""

from __future__ import annotations

import dataclasses
import itertools
from collections.abc import Callable, Iterator
from typing import Any

import matplotlib.pyplot as plt
import numpy as np
import pytest
from matplotlib.axis import Tick
from matplotlib.figure import Figure
from matplotlib.patches import FancyBboxPatch, Rectangle
from matplotlib.text import Text
from replications.indirect_object_identification import (
    circuit,
    circuit_figures,
    discovery_figures,
    drawing,
    experiment,
    head_figures,
    measured_circuits,
    search_figures,
    setting,
    task_figures,
    validation_figures,
)
from replications.indirect_object_identification.figures import FIGURES

from reprise import Result, Results
from reprise.plotting import house_style

from . import ioi_circuit_runs, ioi_figure_runs, ioi_search_runs
from .ioi_figure_runs import Made, published, spread, unfound

OF_PAPER = {"paths_from_published"}
NEEDS_ROLES = {"attention", "movers", "signals", "backup"}
MADE: dict[str, Callable[[], Results]] = {
    "published": published,
    "two": lambda: Made((2, 2), spread((2, 2))).results(),
    "deep": lambda: Made((48, 25), spread((48, 25), 30), prompts=5).results(),
}


@pytest.fixture(autouse=True)
def _style() -> Iterator[None]:
    with house_style():
        yield
    plt.close("all")


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Results:
    """Every stage on a random model, few prompts each."""
    reference = ioi_search_runs.write(tmp_path_factory.mktemp("model"), "gpt2")
    done: dict[str, Result] = {}
    with pytest.MonkeyPatch.context() as patch:
        few = dataclasses.replace(ioi_search_runs.FEW, search=8, validated=8, means=24)
        patch.setitem(setting.TRIALS, "tiny", few)
        patch.setitem(measured_circuits.EFFORT, "tiny", ioi_circuit_runs.EFFORT)
        for stage in experiment.STAGES:
            needs = {name: done[name] for name in stage.needs}
            done[stage.name] = stage.function(ioi_search_runs.job(reference, "tiny", **needs))
    return Results("tiny", 0, {name: {reference.name: result} for name, result in done.items()})


def drawn(results: Results) -> Iterator[tuple[str, Any]]:
    """Every figure, or None, one after another."""
    for name, draw in FIGURES.items():
        yield name, draw(results)
        plt.close("all")


def missing(results: Results) -> set[str]:
    return {name for name, figure in drawn(results) if figure is None}


def changed(results: Results, stage: str, arrays: dict[str, Any] | None = None, **facts: Any) -> Results:
    """The results with parts of a stage's replaced."""
    before = results.of(stage)["m"]
    after = Result({**before.arrays, **(arrays or {})}, {**before.facts, **facts})
    return Results(results.tier, results.seed, {**results.by_stage, stage: {"m": after}})


def image(axes: Any) -> Any:
    (found,) = axes.get_images()
    return found


def panel(figure: Figure, at: int = 0) -> Any:
    return figure.axes[at]


def titled(figure: Figure, title: str) -> Any:
    (axes,) = [each for each in figure.axes if each.get_title(loc="left").startswith(title)]
    return axes


def frames(axes: Any) -> set[tuple[int, int]]:
    """The heads in whose cells a frame is."""
    boxes = [each for each in axes.patches if isinstance(each, Rectangle)]
    return {(round(each.get_y() + each.get_height() / 2), round(each.get_x() + each.get_width() / 2)) for each in boxes}


def test_every_figure_is_drawn_from_a_run_of_all_stages(run: Results) -> None:
    assert missing(run) <= OF_PAPER | NEEDS_ROLES


def test_figures_that_need_heads_of_a_role_are_left_out_without_them_and_steps_say_why_they_were_not_run() -> None:
    results = unfound((2, 2))
    assert missing(results) == OF_PAPER | NEEDS_ROLES
    said = [text.get_text() for axes in search_figures.paths(results).axes for text in axes.texts]
    assert sum("not run: 0 movers heads" in text.replace("\n", " ") for text in said) == 1
    assert sum("not run: 0 inhibition heads" in text.replace("\n", " ") for text in said) == 2


@pytest.mark.parametrize("shape", MADE)
def test_every_figure_is_drawn_for_a_model_of_any_shape_with_no_words_cut_off_and_no_labels_that_overlap(
    shape: str,
) -> None:
    found = set()
    for name, figure in drawn(MADE[shape]()):
        if figure is not None:
            found.add(name)
            figure.canvas.draw()
            assert not cut_off(figure), name
            assert not overlapping(figure), name
    assert found == set(FIGURES) - (set() if shape == "published" else OF_PAPER)


def cut_off(figure: Any) -> list[str]:
    """Words that are drawn beyond the ends of a figure."""
    of_ticks = {id(label) for tick in figure.findobj(Tick) for label in (tick.label1, tick.label2)}
    found = []
    for text in figure.findobj(Text):
        shown = text.get_visible() and text.get_text().strip() and (text.axes is None or text.axes.get_visible())
        if shown and id(text) not in of_ticks:  # ticks beyond the ends of an axis are there, but not drawn
            box = text.get_window_extent()
            beyond = [figure.bbox.x0 - box.x0, figure.bbox.y0 - box.y0, box.x1 - figure.bbox.x1]
            found += [text.get_text()] if max(*beyond, box.y1 - figure.bbox.y1) > 2 else []
    return found


def overlapping(figure: Any) -> list[str]:
    """Labels of ticks that overlap the next one."""
    found = []
    for axis in (axis for axes in figure.axes if axes.get_visible() for axis in (axes.xaxis, axes.yaxis)):
        labels = [each for each in axis.get_ticklabels() if each.get_text() and each.get_visible()]
        pairs = itertools.pairwise([(each.get_text(), each.get_window_extent()) for each in labels])
        found += [text for (text, box), (_, next_box) in pairs if box.overlaps(next_box)]
    return found


def test_intervals_are_those_of_resampled_means_also_where_resamples_are_drawn_in_parts(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    values = np.random.default_rng(0).normal(size=(400, 3)) * [1, 2, 0] + [0, 1, 2]
    centre, low, high = drawing.band(values, 0)
    np.testing.assert_allclose(centre, values.mean(axis=0))
    np.testing.assert_allclose((high - low) / 2, 1.96 * values.std(axis=0) / 20, rtol=0.12)
    assert (low <= centre).all()
    assert (centre <= high).all()
    whole = drawing.resampled(values, 0)
    monkeypatch.setattr(drawing, "AT_ONCE", 400 * 7)
    np.testing.assert_allclose(drawing.resampled(values, 0), whole, rtol=1e-12)  # sums in another order


def test_maps_show_the_mean_effects_and_frame_the_heads_of_their_step() -> None:
    results = published()
    figure = search_figures.paths(results)
    for title, stage, name, roles in (
        ("To the logits", "paths_to_logits", "effects", (circuit.MOVERS, circuit.NEGATIVE)),
        ("To the movers' queries", "paths_to_queries", "effects", (circuit.INHIBITION,)),
        ("To S-inhibition's keys", "paths_to_inhibition", "keys.effects", (circuit.INDUCTION, circuit.DUPLICATE)),
        ("To S-inhibition's values", "paths_to_inhibition", "values.effects", (circuit.INDUCTION, circuit.DUPLICATE)),
        ("To induction's keys", "paths_to_induction", "effects", (circuit.PREVIOUS,)),
    ):
        axes = titled(figure, title)
        np.testing.assert_allclose(image(axes).get_array(), results.of(stage)["m"][name].mean(axis=0))
        assert frames(axes) == {head for role in roles for head in circuit.GPT2_SMALL.roles[role]}
    again = search_figures.paths_from_published(results)
    assert again is not None
    axes = titled(again, "To S-inhibition's keys")
    effects = results.of("paths_to_inhibition")["m"]["published.keys.effects"]
    np.testing.assert_allclose(image(axes).get_array(), effects.mean(axis=0))
    dots = {(int(line.get_ydata()[0]), int(line.get_xdata()[0])) for line in axes.lines}
    assert dots == {*circuit.GPT2_SMALL.roles[circuit.INDUCTION], *circuit.GPT2_SMALL.roles[circuit.DUPLICATE]}


def test_numbers_in_a_map_are_its_values_and_frames_of_a_head_lie_within_each_other() -> None:
    _, axes = plt.subplots()
    values = np.array([[0.5, -0.25], [0.0, 1.0]])
    drawing.head_map(axes, values, label="", roles={circuit.MOVERS: [(0, 1)], circuit.BACKUP: [(0, 1), (1, 0)]})
    assert [text.get_text() for text in axes.texts] == ["0.50", "-0.25", "0.00", "1.00"]
    assert image(axes).get_clim() == (-1, 1)
    first, second, _ = drawing.framed(axes)
    assert frames(axes) == {(0, 1), (1, 0)}
    assert first.get_x() < second.get_x()
    assert second.get_width() < first.get_width()


def test_performance_is_by_template_and_order() -> None:
    results = published()
    result = results.of("performance")["m"]
    left = titled(task_figures.performance(results), "Logit difference")
    rows = [label.get_text() for label in left.get_yticklabels()]
    place = rows.index("held out: template 3")
    centres = {
        round(float(line.get_ydata()[0]), 2): float(line.get_xdata()[0]) for line in left.lines if _is_point(line)
    }
    mine = result["held_out.template"] == 3
    for order, shift in ((0, -0.13), (1, 0.13)):
        values = result["held_out.logit_difference"][mine & (result["held_out.order"] == order)]
        assert centres[round(place + shift, 2)] == pytest.approx(values.mean())
    assert centres[0.0] == pytest.approx(result["abc.logit_difference"].mean())


def _is_point(line: Any) -> bool:
    return len(line.get_xdata()) == 1 and line.get_marker() in ("o", "D", "x")


def test_faithfulness_of_the_discovery_is_that_of_the_means_and_is_cut_off_below() -> None:
    results = Made((4, 4), spread((4, 4), 2)).results()
    n = results.of("discovery")["m"]["curve.paths"].shape[1]
    model, curve = np.full(12, 2.0), np.tile(np.linspace(-4, 3, n), (12, 1))
    figure = discovery_figures.discovery(changed(results, "discovery", {"model": model, "curve.paths": curve}))
    (line,) = [each for each in panel(figure).lines if each.get_label() == "by path patching"]
    expected = [max(-0.5, 1 - abs(2 - value) / 2) for value in np.linspace(-4, 3, n)]
    np.testing.assert_allclose(np.asarray(line.get_ydata(), dtype=float), expected, atol=1e-6)
    assert list(line.get_xdata()) == results.of("discovery")["m"].facts["sizes"][:n]


def test_heads_that_are_ranked_behind_the_start_of_the_search_go_first() -> None:
    search = Result({}, {"backward": {"order": [[0, 1], [1, 1]]}})
    ranking = Result({}, {"orders": {"better": [[1, 1], [0, 1], [0, 0], [1, 0]]}})
    stays = discovery_figures.staying(search, ranking, (2, 2))
    np.testing.assert_allclose(stays, [[0.5, 0.75], [0.25, 1.0]])


def test_completeness_has_a_dot_for_every_subset_and_minimality_a_bar_for_every_head() -> None:
    results = published()
    result = results.of("completeness")["m"]
    figure = validation_figures.completeness(results)
    for at, name in enumerate(("circuit", "naive")):
        lines = [line for line in panel(figure, at).lines if _dot(line)]
        dots = sorted((float(line.get_xdata()[0]), float(line.get_ydata()[0])) for line in lines)
        means = zip(result[f"{name}.model"].mean(axis=0), result[name].mean(axis=0), strict=True)
        np.testing.assert_allclose(dots, sorted((float(x), float(y)) for x, y in means), rtol=1e-5)
    minimal = results.of("minimality")["m"]
    axes = panel(validation_figures.minimality(results))
    heights = [bar.get_height() for bar in axes.patches]
    fall = minimal["without_k"].mean(axis=0) - minimal["without_both"].mean(axis=0)
    lost = {f"{layer}.{head}": by for (layer, head), by in zip(minimal.facts["heads"], fall, strict=True)}
    names = [label.get_text() for label in axes.get_xticklabels()]
    np.testing.assert_allclose(heights, [lost[name] for name in names], rtol=1e-4)
    assert [name in {drawing.named(head) for head in circuit.GPT2_SMALL.roles[circuit.MOVERS]} for name in names] == (
        [True] * 3 + [False] * 23
    )


def _dot(line: Any) -> bool:
    return len(line.get_xdata()) == 1 and line.get_marker() in ("o", "D", "s", "^")


def test_the_diagram_names_every_head_in_boxes_that_do_not_overlap() -> None:
    (axes,) = circuit_figures.diagram(published()).axes
    texts = "\n".join(text.get_text() for text in axes.texts)
    for role, heads in circuit.GPT2_SMALL.roles.items():
        words = circuit.GPT2_SMALL.words[role]
        assert f"{drawing.ROLE_NAMES[role]} at {words[0]}\n" in texts
        assert all(drawing.named(head) in texts for head in heads)
    boxes = [each for each in axes.patches if isinstance(each, FancyBboxPatch)]
    assert len(boxes) == len(circuit.GPT2_SMALL.roles)
    for one, other in itertools.combinations(boxes, 2):
        assert not one.get_bbox().overlaps(other.get_bbox())
    many = Made((48, 25), spread((48, 25), 30)).results()
    lines = [text.get_text().split("\n") for text in panel(circuit_figures.diagram(many)).texts]
    assert [of[-1] for of in lines if len(of) > 1] == ["and 14 more"] * len(circuit.ROLES)
    assert max(len(of) for of in lines) == 1 + circuit_figures.MOST_LINES + 1


def test_the_scatter_is_of_attention_to_a_name_against_the_output_along_it() -> None:
    results = published()
    result = results.of("attention")["m"]
    figure = head_figures.movers(results)
    assert figure is not None
    axes = titled(figure, "9.9, r = ")
    of_io, of_s = axes.lines[:2]
    np.testing.assert_allclose(of_io.get_xdata(), result["attention"][:, 9, 9, 4, 0])
    np.testing.assert_allclose(of_s.get_xdata(), result["attention"][:, 9, 9, 4, [1, 3]].sum(axis=1))
    np.testing.assert_allclose(of_s.get_ydata(), result["projection"][:, 9, 9, 1])
    x, y = (np.concatenate([getattr(line, get)() for line in (of_io, of_s)]) for get in ("get_xdata", "get_ydata"))
    slope = np.polyfit((x - x.mean()) / x.std(), (y - y.mean()) / y.std(), 1)[0]
    assert axes.get_title(loc="left") == f"9.9, r = {slope:.2f}"
    assert head_figures.correlation([1, 1], [0, 1]) == ""
    shown = [axes.get_title(loc="left").split(",")[0] for axes in figure.axes if axes.get_title(loc="left")]
    assert shown == ["9.6", "9.9", "10.0", "10.7", "11.10"]


def test_every_role_has_a_name_and_a_colour_of_its_own() -> None:
    assert set(drawing.ROLE_NAMES) == set(drawing.ROLE_COLOURS) == set(circuit.ROLES)
    assert len(set(drawing.ROLE_COLOURS.values())) == len(circuit.ROLES)
    assert list(circuit.WORDS) == ioi_figure_runs.WORDS

"""Figures of results: what is drawn are the numbers, nothing is shown, and pyplot is left alone."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from textwrap import dedent

import pytest
import torch
from tests.tutorials.test_representations import attribution, composition, outcome, scores, sweep

import circuits
import steering as st
import training


def test_a_heat_map_holds_the_mean_effects_about_zero() -> None:
    figure = sweep().plot("title")
    plot, bar = figure.axes
    image = plot.images[0]
    assert image.get_array().tolist() == sweep().mean().tolist()  # type: ignore[union-attr]
    low, high = image.get_clim()
    assert high == -low == float(sweep().mean().abs().max())
    assert (plot.get_ylabel(), plot.get_xlabel()) == ("Layer", "Head")
    assert bar.get_ylabel().startswith("mean change of")


def test_one_axis_is_a_line_with_its_interval_and_three_are_refused() -> None:
    (plot,) = sweep((4, 2), ("layer",)).plot().axes
    assert plot.lines[0].get_ydata().tolist() == sweep((4, 2), ("layer",)).mean().tolist()  # type: ignore[union-attr]
    with pytest.raises(ValueError, match=r"layer, head, position: expected one or two axes to draw; sweep over fewer"):
        sweep((2, 2, 2, 2), ("layer", "head", "position")).plot()
    with pytest.raises(ValueError, match=r"expected one or two to draw"):
        scores([True]).plot()


def test_accuracy_is_drawn_with_the_baseline() -> None:
    (plot,) = scores([[True, False], [True, True]], "layer").plot("t", baseline=0.25).axes
    curve, level = plot.lines
    assert curve.get_ydata().tolist() == [1.0, 0.5]  # type: ignore[union-attr]
    assert list(level.get_ydata()) == [0.25, 0.25]  # type: ignore[arg-type]


def test_a_steering_sweep_has_a_line_a_layer() -> None:
    found = st.SteeringSweep("v", (0, 3), (1.0, 2.0), outcome(), ((outcome(),) * 2,) * 2)
    (plot,) = found.plot().axes
    assert [line.get_label() for line in plot.lines[:2]] == ["layer 0", "layer 3"]


def test_figures_of_circuits() -> None:
    numbers = torch.tensor([[0.0, 0.5], [1.0, 0.25]])
    image = circuits.plot_heads(numbers, label="share").axes[0].images[0]
    assert image.get_array().tolist() == numbers.tolist()  # type: ignore[union-attr]
    bars = attribution().plot().axes[0].patches
    assert [bar.get_width() for bar in bars] == [-3.0, 1.0]  # type: ignore[attr-defined]
    pairs = composition().plot("k").axes[0].images[0].get_array()
    assert pairs[1, 0] == 0.5  # type: ignore[index]
    with pytest.raises(ValueError, match=r"shape \(2, 2\), 1 tokens: expected \[pos, pos\], a token for each"):
        circuits.plot_pattern(numbers, ["a"])
    one = circuits.CompositionScores(*[torch.full((1, 2, 1, 2), torch.nan)] * 3)
    with pytest.raises(ValueError, match=r"one layer: expected two or more"):
        one.plot("q")


@pytest.mark.parametrize("text", ['{"step": 0, "loss": null}\n{"step": 2, "loss": 3.5}\n', "step,loss\n0,\n2,3.5\n"])
def test_the_curves_of_a_log_leave_out_what_was_not_measured(tmp_path: Path, text: str) -> None:
    (tmp_path / "log").write_text(text)
    (plot,) = training.plot_log(tmp_path / "log", log_steps=True).axes
    assert plot.lines[0].get_xydata().tolist() == [[2.0, 3.5]]  # type: ignore[union-attr]
    assert plot.get_xscale() == "log"


def test_figures_show_themselves_and_leave_pyplot_alone_and_are_not_needed_to_import() -> None:
    program = """
        import sys
        import circuits, function_vectors, interventions, steering, training, zoo
        assert "matplotlib" not in sys.modules, "imported with the packages"
        import torch
        png = circuits.plot_heads(torch.zeros(2, 2))._repr_png_()
        assert png.startswith(b"\\x89PNG")
        assert "matplotlib.pyplot" not in sys.modules
        for name in [name for name in sys.modules if name.split(".")[0] == "matplotlib"] + ["circuits.figures"]:
            del sys.modules[name]
        sys.modules["matplotlib"] = None
        try:
            circuits.plot_heads(torch.zeros(2, 2))
        except ImportError as error:
            print(error)
    """
    found = subprocess.run([sys.executable, "-c", dedent(program)], capture_output=True, text=True, check=False)
    assert found.returncode == 0, found.stderr
    assert "expected the package matplotlib" in found.stdout
    assert "pip install 'reprise-circuits[plot]'" in found.stdout

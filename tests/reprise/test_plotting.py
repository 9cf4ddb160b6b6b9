"""One style, and one sequence of bytes for one result."""

from __future__ import annotations

import xml.etree.ElementTree as ElementTree
from pathlib import Path

import matplotlib as mpl
import numpy as np
import pytest
from matplotlib.figure import Figure

from reprise.plotting import COLOURS, STYLE, house_style, save_figure


def figure() -> Figure:
    import matplotlib.pyplot as plt

    drawn: Figure = plt.figure()
    axes = drawn.subplots()
    axes.plot(np.arange(10.0), label="a line")
    axes.imshow(np.random.default_rng(0).random((4, 4)), extent=(0, 2, 0, 2))
    axes.legend()
    return drawn


def test_two_draws_have_the_same_bytes(tmp_path: Path) -> None:
    for folder in ("one", "two"):
        with house_style():
            paths = save_figure(figure(), tmp_path / folder, "figure")
        assert paths == (tmp_path / folder / "figure.svg", tmp_path / folder / "figure.png")
    for kind in ("svg", "png"):
        content = (tmp_path / "one" / f"figure.{kind}").read_bytes()
        assert content == (tmp_path / "two" / f"figure.{kind}").read_bytes()
        assert mpl.__version__.encode() not in content


def test_files_are_what_their_names_say(tmp_path: Path) -> None:
    with house_style():
        svg, png = save_figure(figure(), tmp_path, "figure")
    width, height = (inches * STYLE["savefig.dpi"] for inches in STYLE["figure.figsize"])
    header = png.read_bytes()[:24]
    assert header[:8] == b"\x89PNG\r\n\x1a\n"
    assert (int.from_bytes(header[16:20]), int.from_bytes(header[20:24])) == (round(width), round(height))
    root = ElementTree.fromstring(svg.read_text())
    assert root.tag == "{http://www.w3.org/2000/svg}svg"
    assert not root.findall(".//{http://purl.org/dc/elements/1.1/}date")
    assert COLOURS[0].lower() in svg.read_text()


def test_the_callers_settings_count_for_nothing_and_come_back(tmp_path: Path) -> None:
    with house_style():
        save_figure(figure(), tmp_path, "plain")
    with mpl.rc_context({"lines.linewidth": 9.0, "font.size": 30.0, "image.cmap": "gray"}):
        before = dict(mpl.rcParams)
        with house_style():
            save_figure(figure(), tmp_path, "set")
        assert {**mpl.rcParams, "backend": ""} == {**before, "backend": ""}
    assert (tmp_path / "plain.png").read_bytes() == (tmp_path / "set.png").read_bytes()


def test_the_style_ends_after_an_error() -> None:
    before = dict(mpl.rcParams)
    with pytest.raises(RuntimeError, match="while drawing"), house_style():
        raise RuntimeError("while drawing")
    assert {**mpl.rcParams, "backend": ""} == {**before, "backend": ""}


def test_saved_figures_are_closed(tmp_path: Path) -> None:
    import matplotlib.pyplot as plt

    plt.close("all")
    with house_style():
        save_figure(figure(), tmp_path, "figure")
    assert plt.get_fignums() == []

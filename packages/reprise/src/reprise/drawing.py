"""Drawing a paper's figures from stored results alone: no model is loaded."""

from __future__ import annotations

import inspect
from collections.abc import Mapping
from pathlib import Path

import msgspec

from reprise import store
from reprise.experiment import Draw, Results
from reprise.plotting import house_style, save_figure

CAPTIONS = "figures.json"


class FigureFile(msgspec.Struct, frozen=True):
    """A drawn figure: its name (the stem of its files), its title and its caption."""

    name: str
    title: str
    caption: str


def draw(figures: Mapping[str, Draw], results: Results, folder: Path) -> tuple[FigureFile, ...]:
    """Draw every figure that these results allow; title and caption are the drawing function's docstring."""
    drawn = []
    with house_style():
        for name, function in figures.items():
            figure = function(results)
            if figure is not None:
                save_figure(figure, folder, name)
                title, _, caption = inspect.cleandoc(function.__doc__ or name).partition("\n")
                drawn.append(FigureFile(name, title.strip(), " ".join(caption.split())))
    encoded = msgspec.json.format(msgspec.json.encode(drawn), indent=2)
    store.write_text(folder / CAPTIONS, encoded.decode() + "\n")
    return tuple(drawn)


def drawn(folder: Path) -> tuple[FigureFile, ...]:
    """The figures that lie in a folder; none where nothing was drawn."""
    path = folder / CAPTIONS
    return msgspec.json.decode(path.read_bytes(), type=tuple[FigureFile, ...]) if path.exists() else ()

"""Drawing a paper's figures from stored results alone: no model is loaded.

A plot is written as `<name>.svg` and `<name>.png`, an interactive page (`reprise.pages`) as `<name>.html`; figures.json
lists what was drawn, with title and caption. Files that the list before named and this one does not are removed.
"""

from __future__ import annotations

import inspect
import shutil
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import msgspec

from reprise import store, workspace
from reprise.errors import UserError
from reprise.experiment import Draw, Results, load_experiment, load_figures
from reprise.pages import Page
from reprise.plotting import FORMATS, house_style, save_figure

if TYPE_CHECKING:
    from reprise.run import Request

CAPTIONS = "figures.json"


class FigureFile(msgspec.Struct, frozen=True, omit_defaults=True):
    """A drawn figure: its name (the stem of its files), its title and its caption.

    `height` is that of an interactive page, in CSS pixels; a plot has none.
    """

    name: str
    title: str
    caption: str
    height: Annotated[int, msgspec.Meta(ge=1)] | None = None

    @property
    def kinds(self) -> tuple[str, ...]:
        """The endings of its files, the one to show first."""
        return FORMATS if self.height is None else ("html",)


def draw(figures: Mapping[str, Draw], results: Results, folder: Path) -> tuple[FigureFile, ...]:
    """Draw every figure that these results allow; title and caption are the drawing function's docstring."""
    drawn_now = []
    with house_style():
        for name, function in figures.items():
            figure = function(results)
            if figure is None:
                continue
            height = None
            if isinstance(figure, Page):
                height = figure.height
                store.write_text(folder / f"{name}.html", figure.html)
            else:
                save_figure(figure, folder, name)
            title, _, caption = inspect.cleandoc(function.__doc__ or name).partition("\n")
            drawn_now.append(FigureFile(name, title.strip(), " ".join(caption.split()), height))
    _tidy(folder, drawn_now)
    encoded = msgspec.json.format(msgspec.json.encode(drawn_now), indent=2)
    store.write_text(folder / CAPTIONS, encoded.decode() + "\n")
    return tuple(drawn_now)


def draw_stored(request: Request) -> int:
    """Draw a paper's figures from the results that a run has stored; returns how many.

    Raises:
        UserError: if a stage has no readable result.
    """
    from reprise.run import stored_results

    folder = workspace.folder_of(request.root, request.paper)
    results = stored_results(request, load_experiment(folder))
    return len(draw(load_figures(folder), results, request.folder() / "figures"))


def drawn(folder: Path) -> tuple[FigureFile, ...]:
    """The figures that lie in a folder; none where nothing was drawn."""
    path = folder / CAPTIONS
    return msgspec.json.decode(path.read_bytes(), type=tuple[FigureFile, ...]) if path.exists() else ()


def accept(source: Path, target: Path) -> None:
    """Make the figures in one folder those of another, all of them or, after an error, none.

    Raises:
        UserError: the other folder cannot be written.
    """
    new, old = target.with_name(".figures.new"), target.with_name(".figures.old")
    if old.exists() and not target.exists():  # what an accept that was killed has put away
        old.rename(target)
    for left in (new, old):
        shutil.rmtree(left, ignore_errors=True)
    try:
        new.mkdir(parents=True)
        if source.is_dir():
            shutil.copytree(source, new, dirs_exist_ok=True, ignore=shutil.ignore_patterns(".*.partial"))
        if target.exists():
            target.rename(old)
        if any(new.iterdir()):
            new.rename(target)
    except OSError as error:
        if old.exists() and not target.exists():
            old.rename(target)
        reason = error.args[0][0][-1] if isinstance(error, shutil.Error) else error.strerror
        raise UserError(f"{target}: cannot be written ({reason}); free some space or check permissions") from error
    finally:
        shutil.rmtree(new, ignore_errors=True)
    shutil.rmtree(old, ignore_errors=True)


def _tidy(folder: Path, now: Iterable[FigureFile]) -> None:
    """Remove the files of figures that were drawn before and are not now, or are now of another kind."""
    try:
        before = drawn(folder)
    except msgspec.MsgspecError:
        return  # a malformed list, about to be replaced, names no file for certain
    for stale in _files(before) - _files(now):
        if Path(stale).name == stale:
            (folder / stale).unlink(missing_ok=True)


def _files(figures: Iterable[FigureFile]) -> set[str]:
    return {f"{figure.name}.{kind}" for figure in figures for kind in figure.kinds}

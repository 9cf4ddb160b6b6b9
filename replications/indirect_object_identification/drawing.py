"""What the figures share: intervals, names and colours of roles, and maps of heads.

Points are means, bars and bands around them the central 95 % of bootstrap means over prompts. A map has a cell for
every head of the model; the heads of a role are outlined in the role's colour.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import matplotlib.pyplot as plt
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import Patch, Rectangle
from replications.indirect_object_identification import circuit, path_stages
from replications.indirect_object_identification.circuit import Head
from replications.indirect_object_identification.measured_circuits import PATHS
from replications.indirect_object_identification.setting import Array

from reprise import Result, Results
from reprise.plotting import COLOURS

GREY = "#777777"
RESAMPLES = 1000
AT_ONCE = 2_000_000  # weights of resamples that are held at a time
MOST_NUMBERS = 64  # cells of a map that are written out
INSET = 0.04  # of a frame, in cells
Roles = Mapping[str, Sequence[Head]]
ROLE_NAMES = {
    circuit.MOVERS: "name movers",
    circuit.NEGATIVE: "negative movers",
    circuit.BACKUP: "backup movers",
    circuit.INHIBITION: "S-inhibition",
    circuit.INDUCTION: "induction",
    circuit.DUPLICATE: "duplicate token",
    circuit.PREVIOUS: "previous token",
    circuit.OTHER: "other",
}
ROLE_COLOURS = {
    circuit.MOVERS: COLOURS[0],
    circuit.NEGATIVE: COLOURS[1],
    circuit.BACKUP: COLOURS[5],
    circuit.INHIBITION: COLOURS[2],
    circuit.INDUCTION: COLOURS[4],
    circuit.DUPLICATE: COLOURS[3],
    circuit.PREVIOUS: COLOURS[6],
    circuit.OTHER: GREY,
}


def main(results: Results, stage: str) -> Result:
    """The result of the run's (first) model."""
    return results.of(stage)[min(results.of(stage))]


def heads_of(listed: Iterable[Sequence[int]]) -> list[Head]:
    """Heads as facts hold them."""
    return [(int(layer), int(head)) for layer, head in listed]


def named(head: Head) -> str:
    return "{}.{}".format(*head)


def counted(heads: Sequence[Any]) -> str:
    return f"{len(heads)} head{'' if len(heads) == 1 else 's'}"


def roles_of(facts: Mapping[str, Sequence[Sequence[int]]]) -> Roles:
    """Heads by role, of roles that have any."""
    return {role: heads_of(heads) for role, heads in facts.items() if heads}


def found_roles(results: Results, *wanted: str) -> Roles:
    """The roles that path patching found, or those of them that are wanted."""
    found = roles_of(path_stages.roles_found({stage: main(results, stage) for stage in PATHS}))
    return {role: found[role] for role in wanted or found if role in found}


def resampled(values: Array, seed: int) -> Array:
    """Means [resample, *columns] of [unit, *columns], units resampled with replacement and all columns together."""
    flat = np.asarray(values, dtype=float).reshape(len(values), -1)
    random, n = np.random.default_rng(seed), len(values)
    means = np.empty((RESAMPLES, flat.shape[1]))
    at_once = max(1, AT_ONCE // n)
    for first in range(0, RESAMPLES, at_once):
        some = means[first : first + at_once]
        drawn = random.integers(0, n, (len(some), n)) + n * np.arange(len(some))[:, None]
        some[:] = np.bincount(drawn.ravel(), minlength=drawn.size).reshape(-1, n).astype(float) @ flat / n
    return means.reshape(RESAMPLES, *np.shape(values)[1:])


def band(values: Array, seed: int) -> tuple[Array, Array, Array]:
    """Mean, low and high end of the interval, of [unit, *columns]."""
    low, high = np.quantile(resampled(values, seed), [0.025, 0.975], axis=0)
    return np.asarray(values, dtype=float).mean(axis=0), low, high


def bars(values: Array, seed: int) -> tuple[Array, Array]:
    """Means, and the lengths of error bars below and above them, [2, *columns]."""
    centre, low, high = band(values, seed)
    return centre, np.stack([centre - low, high - centre]).clip(min=0)


def points(axes: Axes, values: Array, places: Any, results: Results, *, fmt: str = "o", **how: Any) -> None:
    """Mean and interval of every column of [unit, column], side by side at vertical places."""
    centre, error = bars(values, results.seed)
    axes.errorbar(centre, places, xerr=error, fmt=fmt, **{"markersize": 5, "linewidth": 1.1, **how})


def zero(axes: Axes, *, vertical: bool = True) -> None:
    (axes.axvline if vertical else axes.axhline)(0, color="#555555", linewidth=0.8)


def diagonal(*every: Axes) -> None:
    """A line where both axes have the same value, over all that is shown."""
    limits = [limit for axes in every for limit in (*axes.get_xlim(), *axes.get_ylim())]
    for axes in every:
        axes.plot([min(limits), max(limits)], [min(limits), max(limits)], color="#555555", linewidth=0.9, zorder=0)


def integers(axis: Any, n: int) -> None:
    """Ticks of layers or heads, as many as there is room for."""
    axis.set_ticks(range(0, n, 1 + n // 13))


def map_size(n_rows: int, n_columns: int) -> tuple[float, float]:
    """Inches that a map of so many cells takes, without what is around it."""
    cell = 0.46 if n_rows * n_columns <= MOST_NUMBERS else 0.21 if n_columns <= 16 else 0.15
    tall = 0.34 if n_rows <= 8 else 0.21 if n_rows <= 16 else 0.13
    return max(1.9, cell * n_columns), max(1.3, tall * n_rows)


def map_panels(n: int, shape: tuple[int, int], columns: int = 3) -> tuple[Figure, list[Axes]]:
    """`n` panels for maps of heads, in rows, with room for their scales."""
    columns = min(n, columns)
    rows = -(-n // columns)
    width, height = map_size(*shape)
    figure, grid = plt.subplots(
        rows, columns, figsize=((width + 1.25) * columns, (height + 0.85) * rows + 0.35), squeeze=False
    )
    every = list(grid.flat)
    for axes in every[n:]:
        axes.set_visible(False)
    return figure, every[:n]


def head_map(
    axes: Axes,
    values: Array,
    *,
    label: str,
    roles: Roles | None = None,
    top: float | None = None,
    least: float = 0.0,
) -> None:
    """A value [layer, head] of every head; numbers where there is room, heads of roles framed.

    Args:
        label: of the scale: what is measured, or its unit.
        top: values go from 0 to this; without it they have a sign, and the scale is symmetric.
        least: what such a scale goes to at least, so that noise is pale.
    """
    heat(axes, values, label=label, top=top, least=least)
    place = axes.get_subplotspec()
    axes.set(xlabel="head", ylabel="layer" if place is None or place.is_first_col() else "")
    integers(axes.yaxis, values.shape[0])
    integers(axes.xaxis, values.shape[1])
    for role, heads in (roles or {}).items():
        frame(axes, heads, ROLE_COLOURS[role])


def heat(axes: Axes, values: Array, *, label: str, top: float | None = None, least: float = 0.0) -> None:
    """An image with its scale, and its numbers where there is room for them; rows are the first axis."""
    bound = top or max(float(np.abs(values).max()), least) or 1.0
    image = axes.imshow(values, cmap="Blues" if top else "RdBu_r", vmin=0 if top else -bound, vmax=bound, aspect="auto")
    digits = 1 if bound >= 10 else 2
    for (row, column), value in np.ndenumerate(values) if values.size <= MOST_NUMBERS else ():
        colour = "white" if abs(value) > 0.62 * bound else "black"
        text = f"{round(float(value), digits) + 0.0:.{digits}f}"
        axes.text(column, row, text, ha="center", va="center", fontsize=7.5, color=colour)
    axes.grid(visible=False)
    axes.figure.colorbar(image, ax=axes, label=label)


def frame(axes: Axes, heads: Iterable[Head], colour: str) -> None:
    """A frame around heads of a map; within the frames that are there already."""
    corners = [(round(each.get_x() + 0.5 - INSET), round(each.get_y() + 0.5 - INSET)) for each in framed(axes)]
    for layer, head in heads:
        inset = INSET + 0.13 * corners.count((head, layer))
        corner, side = (head - 0.5 + inset, layer - 0.5 + inset), 1 - 2 * inset
        axes.add_patch(Rectangle(corner, side, side, fill=False, edgecolor=colour, linewidth=1.8, zorder=3))


def framed(axes: Axes) -> list[Rectangle]:
    """The frames of a map."""
    return [each for each in axes.patches if isinstance(each, Rectangle)]


def mark(axes: Axes, heads: Iterable[Head]) -> None:
    """A dot on heads of a map."""
    for layer, head in heads:
        axes.plot(head, layer, "o", color="black", markersize=3.2, markeredgecolor="white", markeredgewidth=0.6)


def role_legend(figure: Figure, roles: Iterable[str], columns: int = 4) -> None:
    """Which frame is which role, below the panels."""
    handles = [Patch(facecolor="none", edgecolor=ROLE_COLOURS[role], linewidth=1.8) for role in roles]
    if handles:
        names = [ROLE_NAMES[role] for role in roles]
        figure.legend(handles, names, loc="outside lower center", ncols=min(columns, len(names)), fontsize=8)


def not_run(axes: Axes, why: str) -> None:
    """Words in place of a panel that there is nothing for."""
    axes.set(xticks=[], yticks=[], xlabel="", ylabel="")
    axes.grid(visible=False)
    axes.text(0.5, 0.5, why, ha="center", va="center", fontsize=8, color="#555555", wrap=True, transform=axes.transAxes)

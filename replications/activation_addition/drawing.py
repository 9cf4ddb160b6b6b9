"""What the figures share: the first model's result, names of ways and conditions, maps over layer and coefficient."""

from __future__ import annotations

import numpy as np
from matplotlib.axes import Axes
from matplotlib.patches import Rectangle
from numpy.typing import NDArray
from replications.activation_addition.choice import mean_over, perplexity

from reprise import Measurement, Result, Results
from reprise.plotting import COLOURS

Array = NDArray[np.floating]
WAYS = {"front": "at the front of the prompt", "everywhere": "at every position"}
LABELS = {
    "unsteered": "unsteered",
    "vector": "vector",
    "random vectors": "random vectors, same norm",
    "another vector": "another topic's vector",
    "prompt only": "vector, prompt only",
    "logit bias, mean effect": "logit bias, mean effect",
    "last layer": "vector behind the last layer",
    "logit bias, unembedded": "logit bias, unembedded",
    "prefix": "named in words, no vector",
    "later layer": "vector, best layer from 1 on",
    "last block": "vector in the last block",
}
STEERED, PLAIN, CONTROL = COLOURS[0], "#555555", COLOURS[1]


def first(results: Results, stage: str) -> Result:
    """The stage's result for the first model."""
    of = results.of(stage)
    return of[min(of)]


def maps(result: Result, way: str, kind: str) -> dict[str, Array]:
    """Means over latents, [layer, coefficient]: share, grammatical sentences (where there are), perplexity ratio."""
    found = {"share": mean_over(mean_over(result[f"{way}.{kind}.success"], (3, 4)), (0,))}
    if f"{way}.{kind}.wellformed" in result.arrays:
        found["grammatical sentences"] = mean_over(mean_over(result[f"{way}.{kind}.wellformed"], (3, 4)), (0,))
    steered = perplexity(result[f"{way}.{kind}.losses"], result[f"{way}.{kind}.tokens"], (0, 3, 4))
    plain = perplexity(result[f"plain.{kind}.losses"], result[f"plain.{kind}.tokens"], (0, 1, 2))
    return {**found, "perplexity ratio": steered / plain}


def heat_map(axes: Axes, values: Array, layers: list[int], coefficients: list[float], *, ratio: bool) -> None:
    """Numbers in cells; shares from 0 to 1 in blue, ratios of perplexity on a logarithmic scale, 1 white, in orange."""
    shown = np.log2(values) if ratio else values
    axes.imshow(shown, aspect="auto", cmap="Oranges" if ratio else "Blues", vmin=0, vmax=3 if ratio else 1)
    dense = values.size > 60
    for row, column in np.ndindex(values.shape):
        dark = shown[row, column] > (1.9 if ratio else 0.6)
        value = values[row, column]
        text = ">100" if value > 100 else f"{value:.0f}" if value >= 10 else f"{value:.2f}"
        if not np.isnan(values[row, column]):
            colour = "white" if dark else "black"
            axes.text(column, row, text, ha="center", va="center", fontsize=6 if dense else 8, color=colour)
    axes.set_xticks(range(len(coefficients)), [f"{coefficient:g}" for coefficient in coefficients])
    axes.set_yticks(range(len(layers)), [str(layer) for layer in layers])
    axes.grid(visible=False)


def frame(axes: Axes, row: int, column: int) -> None:
    """Frame a cell."""
    axes.add_patch(Rectangle((column - 0.5, row - 0.5), 1, 1, fill=False, edgecolor=COLOURS[1], linewidth=2.2))


def whiskers(axes: Axes, place: float, measured: Measurement, *, colour: str, marker: str = "o") -> None:
    """An estimate with its interval, lying."""
    axes.plot([measured.low, measured.high], [place, place], color=colour, linewidth=1.4)
    axes.plot([measured.estimate], [place], marker=marker, color=colour, markersize=5)


def bars_of(measured: list[Measurement]) -> Array:
    """Distances from the estimates to the ends of their intervals, [2, n], for matplotlib."""
    ends = [(each.estimate - each.low, each.high - each.estimate) for each in measured]
    return np.array(ends).T.clip(min=0)

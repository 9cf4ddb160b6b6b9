"""Figures of the vectors themselves: the classes that they part, their cosines, and their transfer between layers."""

from __future__ import annotations

import matplotlib.pyplot as plt
import numpy as np
from matplotlib.figure import Figure
from replications.contrastive_activation_addition.drawing import heatmap, shown_layers
from replications.contrastive_activation_addition.measures import main

from reprise import Results
from reprise.plotting import COLOURS


def separability(results: Results) -> Figure:
    """The two classes of texts, layer by layer

    The stream at the letter of the answer, on the first two axes of PCA of both classes: texts whose letter matches the
    behaviour, and the same with the other letter, in forms in which either letter matches as often. In each title, how
    many of the held-out texts lie on their own side of the plane between the means of the others (chance is .5).
    """
    result, layer = main(results, "picture"), main(results, "sweep").facts["layer"]
    names, shown = result.facts["behaviours"], shown_layers(result.facts["n_layers"], layer)
    figure, grid = plt.subplots(
        len(shown), len(names), figsize=(1.75 * len(names) + 0.8, 1.75 * len(shown) + 0.8), squeeze=False
    )
    for row, at in zip(grid, shown, strict=True):
        for axes, name in zip(row, names, strict=True):
            points, positive = result[f"coordinates/{name}"][at], result[f"positive/{name}"].astype(bool)
            for side, colour, label in ((positive, COLOURS[0], "matches"), (~positive, COLOURS[1], "does not match")):
                axes.scatter(*points[side].T, s=5, color=colour, alpha=0.5, linewidths=0, label=label)
            axes.set_title(f"{result[f'right/{name}'][:, at].mean():.2f}", fontsize=9, fontweight="normal", pad=2)
            axes.set(xticks=[], yticks=[])
        row[0].set_ylabel(f"layer {at}" + (" (chosen)" if at == layer else ""))
    for axes, name in zip(grid[0], names, strict=True):
        axes.set_title(f"{name}\n{axes.get_title(loc='left')}", fontsize=9, pad=2)
    handles, labels = grid[0, 0].get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside upper center", ncols=2, markerscale=2.5, fontsize=8.5)
    return figure


def similarity(results: Results) -> Figure:
    """How alike vectors are, between layers and between behaviours

    Left: cosines between a behaviour's vectors from different layers, mean over behaviours. Right: cosines between
    behaviours' vectors at the chosen layer.
    """
    result, layer = main(results, "extraction"), main(results, "sweep").facts["layer"]
    names, n_layers = result.facts["behaviours"], result.facts["n_layers"]
    figure, (left, right) = plt.subplots(1, 2, figsize=(8.6, 3.7))
    numbers = [str(at) for at in range(n_layers)]
    how = {"cmap": "RdBu_r", "vmin": -1, "vmax": 1}
    heatmap(left, result["between_layers"].mean(axis=0), (numbers, numbers), **how)
    left.set(title="Between layers", xlabel="layer", ylabel="layer")
    image = heatmap(right, result["between_behaviours"][layer], (names, names), **how)
    right.set(title=f"Between behaviours, layer {layer}")
    right.tick_params(axis="x", rotation=35)
    figure.colorbar(image, ax=[left, right], label="cosine", shrink=0.85)
    return figure


def transfer(results: Results) -> Figure:
    """A layer's vector at other layers

    The effect, p(match) at +1 minus that at -1, of the vector read behind the layer of the row and added behind that of
    the column; mean over behaviours, on the items on which the layer was chosen.
    """
    result = main(results, "transfer")
    names, sources = result.facts["behaviours"], result.facts["sources"]
    values = np.mean([result[f"effect/{name}"].mean(axis=-1) for name in names], axis=0)
    n_layers = values.shape[1]
    bound = max(0.1, float(np.abs(values).max()))
    figure, axes = plt.subplots(figsize=(max(4.4, 0.22 * n_layers + 1.8), max(1.8, 0.6 * len(sources) + 1.4)))
    labels = ([str(at) for at in sources], [str(at) for at in range(n_layers)])
    image = heatmap(axes, values, labels, cmap="RdBu_r", vmin=-bound, vmax=bound)
    axes.set(title="Effect of +1 against -1", xlabel="layer where it is added", ylabel="layer that it is of")
    figure.colorbar(image, ax=axes, label="difference of p(match)")
    return figure

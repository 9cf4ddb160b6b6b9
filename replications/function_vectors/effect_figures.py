"""Figures of the choice: which heads carry the effect, and how many of them it takes."""

from __future__ import annotations

import matplotlib.pyplot as plt
import numpy as np
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle
from replications.function_vectors.intervals import band
from replications.function_vectors.measures import main

from reprise import Results
from reprise.plotting import COLOURS


def indirect_effects(results: Results) -> Figure:
    """A few heads carry the task

    Average indirect effect of every head: how much the probability of the right answer rises in prompts with shuffled
    labels when the head's output at the last token is its mean over clean prompts of the task. Mean over primary tasks.
    Outlined: the heads that the function vector is made of.
    """
    result, chosen = main(results, "effects"), main(results, "selection").facts
    average = result["average"]
    n_layers, n_heads = average.shape
    width, height = max(4.2, 0.42 * n_heads + 1.8), max(2.6, 0.3 * n_layers + 1.3)
    figure, axes = plt.subplots(figsize=(width, height))
    bound = float(np.abs(average).max()) or 1.0
    image = axes.imshow(average, cmap="RdBu_r", vmin=-bound, vmax=bound, aspect="auto")
    if average.size <= 64:
        for (layer, head), value in np.ndenumerate(average):
            colour = "white" if abs(value) > 0.6 * bound else "black"
            axes.text(head, layer, f"{value:.2f}", ha="center", va="center", fontsize=8, color=colour)
    for layer, head in chosen["order"][: chosen["k"]]:
        axes.add_patch(Rectangle((head - 0.5, layer - 0.5), 1, 1, fill=False, edgecolor="black", linewidth=1.6))
    axes.set(
        title="Average indirect effect", xlabel="head", ylabel="layer", xticks=range(0, n_heads, 1 + n_heads // 24)
    )
    axes.set_yticks(range(0, n_layers, 1 + n_layers // 24))
    axes.grid(visible=False)
    figure.colorbar(image, ax=axes, label="probability")
    return figure


def by_number_of_heads(results: Results) -> Figure:
    """How many heads it takes

    Accuracy with the vector of the k heads of largest average indirect effect at the chosen layer, and of the k of
    smallest, on queries that were not used to choose. Dashed: without a vector. Dotted: the k that was chosen. Bands:
    95 % over queries of all primary tasks.
    """
    result = main(results, "heads")
    ks = result.facts["ks"]
    figure, panels = plt.subplots(1, 2, figsize=(7.6, 3.4), sharey=True)
    for axes, (condition, title) in zip(
        panels, (("zero_shot", "Without examples"), ("shuffled", "Shuffled labels")), strict=True
    ):
        for label, colour in (("largest", COLOURS[0]), ("smallest", COLOURS[1])):
            centre, low, high = band(result[f"{condition}.{label}"], results.seed)
            axes.plot(ks, centre, marker="o", markersize=3.5, color=colour, label=f"{label} effects")
            axes.fill_between(ks, low, high, color=colour, alpha=0.18, linewidth=0)
        axes.axhline(result[f"{condition}.plain"].mean(), color="#555555", linestyle="--", linewidth=0.9)
        axes.axvline(result.facts["k"], color="#555555", linestyle=":", linewidth=0.9)
        axes.set(title=title, xlabel="heads in the vector", ylim=(-0.03, 1.03))
        if ks[-1] > 32:
            axes.set_xscale("log")
        else:
            axes.set_xticks(range(1, ks[-1] + 1, 1 + ks[-1] // 12))
    panels[0].set_ylabel("accuracy")
    panels[1].legend(loc="best")
    return figure

"""The figures of the stages that write nothing: perplexity of given texts, and knowledge off target."""

from __future__ import annotations

import matplotlib.pyplot as plt
import numpy as np
from matplotlib.figure import Figure
from numpy.typing import NDArray
from replications.activation_addition.claims import OFF, ON, halves, text_strength, text_units
from replications.activation_addition.drawing import PLAIN, WAYS, bars_of, first

from reprise import Measurement, Results, bootstrap
from reprise.plotting import COLOURS

Array = NDArray[np.floating]


def perplexity(results: Results) -> Figure:
    """Perplexity of given texts with a topic's vector, against its strength

    Perplexity with the vector over that without, of texts about the topic and of others, geometric mean; 1 is no
    change. Tokens at the positions that the front way touches are not counted. Dotted: behind a text that names the
    topic, without a vector. Grey: a random vector of the same norm at the front, on all texts. The dashed vertical line
    is the coefficient that is judged, chosen on the other half of the texts. What is above 1.5 is cut off.
    """
    result = first(results, "perplexity")
    coefficients = result.facts["text_coefficients"]
    figure, grid = plt.subplots(1, 2, figsize=(9.6, 3.9), sharey=True)
    sides = ((ON, "on topic", COLOURS[0], "o"), (OFF, "other texts", COLOURS[1], "s"))
    highest = 1.1
    for axes, (way, title) in zip(grid, WAYS.items(), strict=True):
        _, scored = halves(result[way])
        for side, label, colour, marker in sides:
            found = [ratio(scored[:, side, place], results.seed) for place in range(len(coefficients))]
            axes.errorbar(
                coefficients,
                [each.estimate for each in found],
                yerr=bars_of(found),
                color=colour,
                marker=marker,
                markersize=4,
                capsize=2,
                label=label,
            )
            highest = max(highest, *(each.estimate for each in found))
            named = ratio(halves(result["named"])[1][:, side], results.seed)
            axes.axhline(named.estimate, color=colour, linestyle=":", label=f"{label}, topic named in words")
        if way == "front":
            _, random = halves(result["random"])
            grey = [
                ratio(np.concatenate([random[:, side, place] for side in (ON, OFF)], axis=1), results.seed)
                for place in range(len(coefficients))
            ]
            axes.plot(coefficients, [each.estimate for each in grey], color="#999999", label="random vector, all texts")
            axes.axvline(coefficients[text_strength(result, way)], color="#444444", linestyle="--", linewidth=1)
        axes.axhline(1, color="black", linewidth=0.8)
        layer = result.facts["chosen"][way]["topic"]["layer"]
        axes.set(title=f"{title}, layer {layer}", xlabel="coefficient", xscale="log")
        axes.set_xticks(coefficients, [f"{each:g}" for each in coefficients])
        axes.minorticks_off()
    grid[0].set(ylabel="perplexity, with / without", ylim=(None, min(1.5, 1.05 * highest)))
    figure.legend(*grid[0].get_legend_handles_labels(), loc="outside upper center", ncols=3, fontsize=8.5)
    return figure


def ratio(changes: Array, seed: int) -> Measurement:
    """exp of the mean change of the loss, [topic, text]."""
    units, over = text_units(np.asarray(changes, dtype=np.float64))
    return bootstrap(lambda x: float(np.exp(x.mean())), units, over=over, seed=seed)


def knowledge(results: Results) -> Figure:
    """Questions that topic vectors are not about

    Share of questions answered right, by form, without a vector, with a topic's vector at the layer and the coefficient
    chosen for completions (mean over topics), and with random vectors of the same norm at the front. Bars: 95 %
    intervals over questions.
    """
    result = first(results, "knowledge")
    forms = list(dict.fromkeys(result.facts["forms"]))
    of = np.array(result.facts["forms"])
    shown = (
        ("unsteered", result["plain.right"], PLAIN),
        ("random vectors, front", result["random.right"].mean(axis=0), COLOURS[4]),
        ("topic's vector, front", result["front.right"].mean(axis=0), COLOURS[0]),
        ("topic's vector, everywhere", result["everywhere.right"].mean(axis=0), COLOURS[2]),
    )
    figure, axes = plt.subplots(figsize=(8.6, 3.9))
    width = 0.8 / len(shown)
    for offset, (label, right, colour) in enumerate(shown):
        groups = [right[of == form] for form in forms] + [right]
        found = [
            bootstrap(np.mean, group.astype(np.float64), over="questions", seed=results.seed)
            if len(group) > 1
            else Measurement(estimate=float(group[0]), low=0, high=1, n=1, over="questions")
            for group in groups
        ]
        axes.bar(
            np.arange(len(groups)) + width * (offset - (len(shown) - 1) / 2),
            [each.estimate for each in found],
            0.92 * width,
            yerr=bars_of(found),
            color=colour,
            error_kw={"elinewidth": 0.8, "ecolor": "#222222"},
            label=label,
        )
    axes.set_xticks(range(len(forms) + 1), [*(form.replace("_", " ") for form in forms), "all"], fontsize=8.5)
    axes.set(ylabel="share answered right", ylim=(0, 1.05))
    axes.grid(visible=False, axis="x")
    figure.legend(*axes.get_legend_handles_labels(), loc="outside upper center", ncols=4, fontsize=8.5)
    return figure

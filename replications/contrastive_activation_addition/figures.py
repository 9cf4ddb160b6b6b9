"""The figures of Rimsky et al. 2024, from stored results alone.

Each shows the first model of the run. Bands and bars are 95 % bootstrap intervals: over items within a behaviour, over
behaviours where these are averaged.
"""

from __future__ import annotations

import matplotlib.pyplot as plt
import numpy as np
from matplotlib.figure import Figure
from replications.contrastive_activation_addition.drawing import GREY, at_least, curve, ends, panels
from replications.contrastive_activation_addition.extraction_stages import EVIDENCE
from replications.contrastive_activation_addition.measures import (
    GATE,
    Array,
    by_item,
    control_effects,
    effects,
    gate_of,
    main,
    p_at,
)
from replications.contrastive_activation_addition.open_ended_figures import (
    open_ended,
    open_ended_controls,
    readings_open_ended,
    readings_open_ended_controls,
    texts,
)
from replications.contrastive_activation_addition.reading_figures import readings
from replications.contrastive_activation_addition.vector_figures import separability, similarity, transfer

from reprise import Results
from reprise.experiment import Draw
from reprise.plotting import COLOURS

FORMS = ("in order", "options exchanged", "reversed", "reversed, exchanged")
LABELS = {
    "none": "all questions",
    "advance": "nothing decides",
    "shown": "text shows it",
    "contrary": "text shows the contrary",
}
CONDITIONS = {
    "vector": "the vector",
    "random": "random vectors",
    "another": "another behaviour's",
    "letters": "a vector for A",
    "last_layer": "behind the last layer",
    "logit_bias": "logit bias",
}


def gate(results: Results) -> Figure | None:
    """Does the model answer the questions? Right answers of the unsteered model

    Share of right answers about each behaviour, in every form of the questions, on items of their own. Dashed: the gate
    of 0.9, without which nothing that is measured on letters means anything. Dotted: chance. Bars: 95 % over items.
    """
    found = gate_of(main(results, "gate"))
    if not found:
        return None
    figure, axes = plt.subplots(figsize=(7.6, 3.4))
    for at, label in enumerate(FORMS):
        for place, right in enumerate(found.values()):
            centre, low, high = ends(right[:, at], results.seed)
            x = place + 0.16 * (at - 1.5)
            axes.plot([x, x], [low, high], color=COLOURS[at], linewidth=1.2)
            axes.plot(x, centre, "o", color=COLOURS[at], markersize=5, label=label if place == 0 else None)
    axes.axhline(GATE, color=GREY, linestyle="--", linewidth=0.9)
    axes.axhline(0.5, color=GREY, linestyle=":", linewidth=0.9)
    axes.set_xticks(range(len(found)), list(found))
    axes.set(ylabel="share of right answers", ylim=(0, 1.03))
    axes.grid(visible=False, axis="x")
    figure.legend(loc="outside upper center", ncols=4, fontsize=8.5)
    return figure


def multipliers(results: Results) -> Figure:
    """The answer that matches the behaviour, against the multiplier

    Mean of p(match) at the chosen layer over all forms of the questions (black), and by what the text before a question
    says, where there is one. Bands: 95 % over items.
    """
    result = main(results, "sweep")
    names = result.facts["behaviours"]
    x = sorted([0.0, *result.facts["multipliers"]])
    figure, every = panels(len(names), sharex=True, sharey=True)
    for axes, name, contrary in zip(every, names, result.facts["contraries"], strict=True):
        p = np.stack([p_at(result, name, multiplier) for multiplier in x])
        items, evidence = result[f"item/{name}"], result[f"evidence/{name}"]
        by_text = len(np.unique(evidence)) > 1
        if by_text:  # items of all kinds differ by what their texts say, and a band over them would show no more
            axes.plot(
                x, by_item(p, items).mean(axis=-1), color="black", marker="o", markersize=3.5, label=LABELS["none"]
            )
        else:
            curve(axes, x, by_item(p, items).T, results, color="black", label=LABELS["none"])
        for at in np.unique(evidence) if by_text else ():
            some, colour = evidence == at, COLOURS[int(at) - 1]
            curve(
                axes,
                x,
                by_item(p[:, some], items[some]).T,
                results,
                color=colour,
                linewidth=1,
                label=LABELS[EVIDENCE[at]],
            )
        axes.axvline(0, color=GREY, linewidth=0.7)
        axes.set(title=f"{name} (against {contrary})" if len(contrary) < 12 else name, ylim=(-0.03, 1.03))
    for axes in every:
        axes.set_xlabel("multiplier" if axes.get_subplotspec().is_last_row() else "")  # type: ignore[union-attr]
        axes.set_ylabel("p(match)" if axes.get_subplotspec().is_first_col() else "")  # type: ignore[union-attr]
    figure.legend(*every[0].get_legend_handles_labels(), loc="outside upper center", ncols=4, fontsize=8.5)
    return figure


def layers(results: Results) -> Figure:
    """Which layer the vector is added to

    Left: p(match) by layer, mean over behaviours, for each multiplier. Right: the effect, p(match) at +1 minus that at
    -1, of each behaviour and on average. The line marks the layer that was chosen on other items. Bands: 95 % over
    behaviours.
    """
    result = main(results, "sweep")
    names, n_layers = result.facts["behaviours"], result.facts["n_layers"]
    x = list(range(n_layers))
    figure, (left, right) = plt.subplots(1, 2, figsize=(8.6, 3.6))
    shades = plt.get_cmap("coolwarm")(np.linspace(0, 1, len(result.facts["multipliers"])))
    for multiplier, colour in zip(sorted(result.facts["multipliers"]), shades, strict=True):
        means = [np.mean([p_at(result, name, multiplier, layer).mean() for name in names]) for layer in x]
        left.plot(x, means, color=colour, marker="o", markersize=3.5, label=f"{multiplier:+g}")
    plain = np.mean([result[f"plain/{name}"].mean() for name in names])
    left.axhline(plain, color=GREY, linestyle="--", linewidth=0.9, label="none")
    left.set(title="Answer that matches", xlabel="layer", ylabel="p(match)", ylim=(-0.03, 1.03))
    left.legend(title="multiplier", fontsize=7.5, title_fontsize=8, ncols=2)
    by_layer = [effects(result, layer) for layer in x]
    values = np.array([[of[name].mean() for of in by_layer] for name in names])
    for name, row, colour in zip(names, values, COLOURS[:6] * len(names), strict=False):
        right.plot(x, row, color=colour, linewidth=0.9, alpha=0.8, label=name)
    if len(names) > 1:
        curve(right, x, values, results, color="black", label="mean")
    right.axhline(0, color=GREY, linewidth=0.7)
    right.set(title="Effect of +1 against -1", xlabel="layer", ylabel="difference of p(match)")
    right.legend(fontsize=7.5)
    at_least(right, 0.1)
    for axes in (left, right):
        axes.axvline(result.facts["layer"], color=GREY, linestyle=":", linewidth=1)
        axes.xaxis.get_major_locator().set_params(integer=True)
    return figure


def controls(results: Results) -> Figure:
    """What should do nothing: the effect of the controls, in every form of the questions

    p(match) at +1 minus that at -1 at the chosen layer, mean over behaviours, by form: the options in order or
    exchanged, the question as it is or about the contrary. A vector for a letter moves the two orders in opposite
    directions, and so does a constant on the logits. Bars: 95 % over behaviours.
    """
    return _by_form(results, "controls")


def readings_controls(results: Results) -> Figure:
    """What should do nothing, beside the best of the other readings

    As the figure of the controls, for the vector that is read and added where it moves answers most.
    """
    return _by_form(results, "readings")


def _by_form(results: Results, stage: str) -> Figure:
    result = main(results, stage)
    conditions = [name for name in CONDITIONS if any(key.startswith(f"{name}/") for key in result.arrays)]
    figure, axes = plt.subplots(figsize=(8.2, 3.6))
    for at, label in enumerate(FORMS):
        where = (("swapped", at % 2), ("reversed", at // 2))
        for place, condition in enumerate(conditions):
            by_behaviour = control_effects(result, condition, where)
            if not by_behaviour:
                continue
            several = len(by_behaviour) > 1
            values: Array = (
                np.array([of.mean() for of in by_behaviour.values()]) if several else next(iter(by_behaviour.values()))
            )
            centre, low, high = ends(values, results.seed)
            x = place + 0.17 * (at - 1.5)
            axes.plot([x, x], [low, high], color=COLOURS[at], linewidth=1.2)
            axes.plot(x, centre, "o", color=COLOURS[at], markersize=5, label=label if place == 0 else None)
    axes.axhline(0, color=GREY, linewidth=0.8)
    axes.set_xticks(
        range(len(conditions)), [CONDITIONS[name].replace(" ", "\n", 1) for name in conditions], fontsize=8.5
    )
    axes.set(ylabel="effect on p(match)")
    at_least(axes, 0.1)
    axes.grid(visible=False, axis="x")
    figure.legend(loc="outside upper center", ncols=4, fontsize=8.5)
    return figure


def off_target(results: Results) -> Figure | None:
    """The price: questions about something else

    Share of right answers to questions about another thing (at the tiny tier what a person has), with each
    behaviour's vector at -1 and +1; the dashed line is the unsteered model. Bars: 95 % over questions.
    """
    result = main(results, "off_target")
    if not result.facts["questions"]:
        return None
    names = result.facts["behaviours"]
    figure, axes = plt.subplots(figsize=(7.2, 3.2))
    for at, (label, colour) in enumerate((("multiplier -1", COLOURS[1]), ("multiplier +1", COLOURS[0]))):
        for place, name in enumerate(names):
            right = by_item((result[f"p/{name}"][at] > 0.5).astype(float), result["item"])
            centre, low, high = ends(right, results.seed)
            x = place + 0.2 * (at - 0.5)
            axes.plot([x, x], [low, high], color=colour, linewidth=1.2)
            axes.plot(x, centre, "o", color=colour, markersize=5, label=label if place == 0 else None)
    axes.axhline((result["plain"] > 0.5).mean(), color=GREY, linestyle="--", linewidth=1, label="no vector")
    axes.axhline(0.5, color=GREY, linestyle=":", linewidth=0.9, label="chance")
    axes.set_xticks(range(len(names)), names)
    axes.set(ylabel="share of right answers", ylim=(0, 1.03))
    axes.grid(visible=False, axis="x")
    figure.legend(loc="outside upper center", ncols=4, fontsize=8.5)
    return figure


FIGURES: dict[str, Draw] = {
    "gate": gate,
    "multipliers": multipliers,
    "layers": layers,
    "controls": controls,
    "open_ended": open_ended,
    "open_ended_controls": open_ended_controls,
    "separability": separability,
    "transfer": transfer,
    "similarity": similarity,
    "off_target": off_target,
    "readings": readings,
    "readings_controls": readings_controls,
    "readings_open_ended": readings_open_ended,
    "readings_open_ended_controls": readings_open_ended_controls,
    "texts": texts,
}

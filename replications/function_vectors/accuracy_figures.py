"""Figures of what the vector does: the gate, by layer beside every baseline, and task by task."""

from __future__ import annotations

import matplotlib.pyplot as plt
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from replications.function_vectors.claims import at_chosen, best_layer
from replications.function_vectors.gate_claims import gate_of
from replications.function_vectors.intervals import band, bars
from replications.function_vectors.measures import main
from replications.function_vectors.setting import PRIMARY
from replications.function_vectors.vectors import (
    ANOTHER,
    AVERAGE,
    DIFFERENCES,
    RANDOM_HEADS,
    RANDOM_VECTOR,
    VECTOR,
)

from reprise import Result, Results
from reprise.plotting import COLOURS

STYLES = {
    VECTOR: (COLOURS[0], "-"),
    AVERAGE: (COLOURS[1], "-"),
    DIFFERENCES[0]: (COLOURS[2], "-"),
    DIFFERENCES[1]: (COLOURS[2], "--"),
    DIFFERENCES[2]: (COLOURS[2], ":"),
    RANDOM_HEADS: (COLOURS[3], "-"),
    RANDOM_VECTOR: (COLOURS[3], "--"),
    ANOTHER: (COLOURS[4], "-"),
}
CONDITIONS = {"zero_shot": "Without examples", "shuffled": "Shuffled labels", "sentences": "Natural text"}
SHOWN = (
    "10-shot over\nshuffled labels",
    "10-shot over\nanswer set",
    "random\nheads",
    "another\ntask",
    "last\nlayer",
)


def gate(results: Results) -> Figure:
    """The gate: does the model infer the task, and does the vector carry it?

    Left two panels: how far ten right demonstrations are above ten with shuffled labels, and above no examples with the
    choice narrowed to the task's answers; at least the dashed line. Right three: how far random heads, another task's
    vector, and the vector in the last layer move the accuracy without examples; at most the dashed line. Orange fails.
    Diamonds: the primary tasks together, left the lowest, right the change of their mean. Below them one row a task,
    primary tasks (on all pairs, each half with vectors from the other) above natural ones (on one half).
    """
    facts = main(results, "gate").facts
    tasks, groups = facts["tasks"], facts["groups"]
    labels, criteria = ["together", *tasks], [facts["together"], *(facts["criteria"][task] for task in tasks)]
    places = -np.array([0, *(1.5 + at + (group != PRIMARY) for at, group in enumerate(groups))])
    figure, panels = plt.subplots(1, 5, figsize=(8.6, 1.5 + 0.19 * len(tasks)), sharey=True)
    for column, (axes, title) in enumerate(zip(panels, SHOWN, strict=True)):
        for place, row in zip(places, (of[column] for of in criteria), strict=True):
            colour, mark = COLOURS[0 if row[4] else 1], "o" if place else "D"
            axes.plot(row[1], place, mark, color=colour, markersize=4)
        axes.axvline(facts["together"][column][3], color="#555555", linestyle="--", linewidth=0.9)
        low, high = (-1.05, 1.05) if column < 2 else (-0.05, 1.05)
        axes.set(xlim=(low, high))
        axes.set_title(title, fontsize=8.5)
    panels[0].set_yticks(places, labels, fontsize=7)
    panels[0].set_ylim(places.min() - 0.8, 0.8)
    marks = [Line2D([], [], marker="o", linestyle="", color=colour) for colour in COLOURS[:2]]
    figure.legend(marks, ["passes", "fails"], loc="outside lower right", ncols=2, fontsize=8)
    return figure


def by_layer(results: Results) -> Figure:
    """Accuracy by the layer at which a vector is added, beside every baseline

    Primary tasks, on queries that were not used to choose. Dashed black: without a vector; dash-dotted: with ten
    examples. Random heads and random vectors are means over draws. Bands: 95 % over queries of all primary tasks.
    """
    result = main(results, "layers")
    found = {name: title for name, title in CONDITIONS.items() if f"{name}.plain" in result.arrays}
    figure, panels = plt.subplots(1, len(found), figsize=(3.1 * len(found) + 0.4, 4.3), sharey=True)
    gate_result, primary = gate_of(results)
    in_context = gate_result["in_context"][primary & (gate_result["fold"] == 0)].mean()
    for axes, (condition, title) in zip(panels, found.items(), strict=True):
        for label, (colour, style) in STYLES.items():
            centre, low, high = band(result[f"{condition}.{label}"], results.seed)
            x = np.arange(len(centre))
            axes.plot(x, centre, style, color=colour, marker="o", markersize=3, label=label)
            axes.fill_between(x, low, high, color=colour, alpha=0.12, linewidth=0)
        axes.axhline(result[f"{condition}.plain"].mean(), color="black", linestyle="--", linewidth=1, label="no vector")
        if condition != "sentences":
            axes.axhline(in_context, color="black", linestyle="-.", linewidth=0.8, label="ten examples")
        axes.set(title=title, xlabel="layer", ylim=(-0.03, 1.03), xticks=x[:: 1 + len(x) // 12])
    panels[0].set_ylabel("accuracy")
    handles, labels = panels[0].get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside lower center", ncols=4, fontsize=8, handlelength=2.8)
    return figure


def baselines(results: Results) -> Figure:
    """The function vector and what it has to beat

    Accuracy without examples, primary tasks. The vector, the layer average and the mean differences each in the layer
    that is best for them on other queries; random heads, random vectors and another task's vector in the vector's
    layer. Error bars: 95 % over queries of all primary tasks.
    """
    result = main(results, "layers")
    rows = {"no vector": result["zero_shot.plain"]}
    for label in STYLES:
        rows[label] = _in_its_layer(result, label)
    figure, axes = plt.subplots(figsize=(7.2, 3.6))
    for place, (label, values) in enumerate(rows.items()):
        centre, error = bars(values[:, None], results.seed)
        colour = STYLES[label][0] if label in STYLES else "#999999"
        axes.barh(-place, centre[0], xerr=error, color=colour, height=0.7, error_kw={"linewidth": 1})
        axes.text(float(centre[0] + error[1, 0]) + 0.015, -place, f"{centre[0]:.2f}", va="center", fontsize=8.5)
    axes.set_yticks([-place for place in range(len(rows))], list(rows))
    axes.set(title="Without examples", xlabel="accuracy", xlim=(0, 1.1))
    return figure


def _in_its_layer(result: Result, label: str) -> np.ndarray:
    if f"chosen.{label}" not in result.arrays:
        return at_chosen(result, "zero_shot", label)
    return result[f"zero_shot.{label}"][:, best_layer(result, label)[1]]


def by_task(results: Results) -> Figure:
    """Every task, without and with its vector

    Accuracy of the whole answer, primary tasks above, natural word tasks below (apart: there the class of the answers
    may be enough, see the gate). Open: without a vector; filled: with it, at the chosen layer; bar: ten right examples.
    Lines: 95 % over the task's queries.
    """
    result = main(results, "table")
    tasks, groups = result.facts["tasks"], result.facts["groups"]
    places = -np.arange(len(tasks)) - np.array([group != PRIMARY for group in groups])
    figure, panels = plt.subplots(1, 2, figsize=(7.8, 1.1 + 0.2 * len(tasks)), sharey=True)
    for axes, condition in zip(panels, ("zero_shot", "shuffled"), strict=True):
        for at, place in enumerate(places):
            _task_row(axes, result, condition, at, int(place), results.seed)
        axes.set(title=CONDITIONS[condition], xlabel="accuracy of the whole answer", xlim=(-0.04, 1.04))
    panels[0].set_yticks(places, tasks, fontsize=7)
    panels[0].set_ylim(places.min() - 0.8, 0.8)
    handles, labels = panels[0].get_legend_handles_labels()
    once = dict(zip(labels, handles, strict=True))
    figure.legend(once.values(), once.keys(), loc="outside lower right", ncols=3, fontsize=8)
    return figure


def _task_row(axes: Axes, result: Result, condition: str, at: int, place: int, seed: int) -> None:
    own = result["task"] == at
    shown = {"no vector": "", "function vector": ".vector"}
    for (label, ending), colour, face in zip(
        shown.items(), ("#777777", COLOURS[0]), ("white", COLOURS[0]), strict=True
    ):
        centre, error = bars(result[f"{condition}.whole{ending}"][own][:, None], seed)
        axes.errorbar(
            centre, [place], xerr=error, fmt="o", color=colour, mfc=face, markersize=4, linewidth=0.9, label=label
        )
    axes.plot(result["in_context.whole"][own].mean(), place, "|", color="black", markersize=9, label="ten examples")

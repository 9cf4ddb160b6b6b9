"""The figures of Hendel et al. 2023, from stored results alone.

Each shows the first model of the run. Bands and bars are 95 % intervals: over tasks in curves, over prompts (Wilson)
for single tasks.
"""

from __future__ import annotations

import matplotlib.pyplot as plt
import numpy as np
from matplotlib.figure import Figure
from replications.task_vectors.claims import at_chosen, judged_pairs, pair_share
from replications.task_vectors.drawing import curve, first, groups, names, wilson
from replications.task_vectors.vector_figures import decoded_tokens, picture, robustness

from reprise import Results
from reprise.experiment import Draw
from reprise.plotting import COLOURS

GREY = "#777777"


def by_layer(results: Results) -> Figure:
    """Where the task vector is put in: accuracy by layer, between the zero-shot baseline and in-context learning

    Accuracy of prompts without demonstrations, with the task vector in place of the stream behind one layer at the
    query's last token; thin lines are single tasks. Dashed: the same prompts without a vector. Dotted: the same
    queries with demonstrations. Two looks at what the vector holds: put in from one dummy query, how often the answer
    is that of the dummy query; and accuracy when the task's mean vector, less that of all tasks, is added instead of
    put in. Scored on other queries than layers are chosen on; natural tasks judge no claim.
    """
    result = first(results, "accuracy")
    shown = groups(result)
    figure, grid = plt.subplots(1, len(shown), figsize=(3.8 * len(shown) + 0.6, 4.2), sharey=True, squeeze=False)
    layers = np.arange(result.facts["n_layers"])
    for axes, (title, mask) in zip(grid[0], shown, strict=True):
        curve(axes, layers, result["by_layer"][mask].mean(axis=1), colour=COLOURS[0], label="with the task vector")
        for name, label, colour in (
            ("dummy", "answers the dummy query", COLOURS[3]),
            ("added", "difference added", COLOURS[4]),
        ):
            curve(axes, layers, result[name][mask].mean(axis=1), colour=colour, label=label, each=False)
        for name, label, style, colour in (
            ("in_context", "in context", ":", COLOURS[2]),
            ("zero_shot", "zero-shot", "--", COLOURS[1]),
        ):
            axes.axhline(result[name][mask].mean(), color=colour, linestyle=style, label=label)
        axes.set(title=title, xlabel="layer", ylim=(-0.03, 1.05))
        axes.xaxis.get_major_locator().set_params(integer=True)
    grid[0, 0].set_ylabel("share of prompts")
    figure.legend(*grid[0, 0].get_legend_handles_labels(), loc="outside upper center", ncols=3, fontsize=8.5)
    return figure


def per_task(results: Results) -> Figure:
    """Task by task: zero-shot, with the task vector, and in context

    Bars: accuracy without demonstrations, with the task vector at the task's layer (under the name), and with
    demonstrations. Controls, which a vector that carries the task leaves low: zero-shot with the choice narrowed to the
    task's answers (diamond), demonstrations with shuffled labels (triangle), and the vector of another task (cross). A
    natural task whose diamond is as high as its bars shows the class of the answers and not the task.
    """
    result = first(results, "accuracy")
    shown = groups(result)
    figure, grid = plt.subplots(len(shown), 1, figsize=(9.6, 3.5 * len(shown)), sharey=True, squeeze=False)
    bars = (
        ("zero-shot", np.asarray(result["zero_shot"])),
        ("with the task vector", at_chosen(result)),
        ("in context", np.asarray(result["in_context"])),
    )
    controls = (
        ("among the answers", "among_answers", "D"),
        ("shuffled labels", "shuffled", "v"),
        ("another task's vector", "another", "x"),
    )
    for axes, (title, mask) in zip(grid[:, 0], shown, strict=True):
        places = np.arange(mask.sum())
        for offset, (label, right) in enumerate(bars):
            of = right[mask].astype(float)
            axes.bar(
                places + 0.27 * (offset - 1),
                of.mean(axis=1),
                0.25,
                yerr=wilson(of),
                color=(COLOURS[1], COLOURS[0], COLOURS[2])[offset],
                error_kw={"elinewidth": 0.8, "ecolor": "#444444"},
                label=label,
            )
        for offset, (label, name, marker) in enumerate(controls):
            axes.scatter(
                places + 0.17 * (offset - 1),
                result[name][mask].mean(axis=1),
                s=24,
                marker=marker,
                color="black",
                linewidths=1.0,
                zorder=3,
                label=label,
            )
        layers = [layer for layer, kept in zip(result.facts["layers"], mask, strict=True) if kept]
        labels = [f"{name} ({layer})" for name, layer in zip(names(result, mask), layers, strict=True)]
        axes.set_xticks(places, labels, rotation=35, ha="right", rotation_mode="anchor", fontsize=8.5)
        axes.set(title=title, ylabel="accuracy", ylim=(0, 1.05))
        axes.grid(visible=False, axis="x")
    figure.legend(*grid[0, 0].get_legend_handles_labels(), loc="outside upper center", ncols=6, fontsize=8)
    return figure


def conflicting(results: Results) -> Figure | None:
    """Conflicting demonstrations: whose answer comes out

    Left: the share of prompts that demonstrate the task of the column and are answered as the task of the row, whose
    vector is put in at its own layer. Right: mean over the pairs that are judged, by the layer where the vector is put
    in: answered as the vector's task, as the demonstrations', or neither; dashed, as the demonstrations' without a
    vector. White cells: too few queries in common.
    """
    result = first(results, "conflict")
    is_primary = dict(zip(result.facts["tasks"], result.facts["primary"], strict=True))
    pairs = [(at, a, b) for at, (a, b) in enumerate(result.facts["pairs"]) if is_primary[a]]
    if not pairs:
        return None
    tasks = [name for name in result.facts["tasks"] if any(name in pair[1:] for pair in pairs)]
    shares = np.full((len(tasks), len(tasks)), np.nan)
    for at, patched, prompt in pairs:
        shares[tasks.index(patched), tasks.index(prompt)] = pair_share(result, "patched", at)
    figure, (left, right) = plt.subplots(1, 2, figsize=(9.8, 4.5), width_ratios=(1.15, 1))
    image = left.imshow(shares, cmap="Blues", vmin=0, vmax=1)
    for row, column in zip(*np.nonzero(~np.isnan(shares)), strict=True):
        value = shares[row, column]
        colour = "white" if value > 0.6 else "black"
        left.text(column, row, f"{value:.2f}", ha="center", va="center", fontsize=6.5, color=colour)
    labels = [name.replace("_", " ") for name in tasks]
    left.set_xticks(range(len(tasks)), labels, rotation=45, ha="right", rotation_mode="anchor", fontsize=8)
    left.set_yticks(range(len(tasks)), labels, fontsize=8)
    left.set(title="Answered as the vector's task", xlabel="shown in the prompt", ylabel="vector put in")
    left.grid(visible=False)
    figure.colorbar(image, ax=left, shrink=0.8)
    kept = judged_pairs(result)
    if not kept:
        right.set_visible(False)
        return figure
    layers = np.arange(result.facts["n_layers"])
    patched, prompt = (result[name][kept].astype(float).mean(axis=1) for name in ("patched", "prompt"))
    curve(right, layers, patched, colour=COLOURS[0], label="the vector's task")
    curve(right, layers, prompt, colour=COLOURS[1], label="the demonstrations' task")
    right.plot(layers, (1 - patched - prompt).mean(axis=0), color=GREY, marker="o", markersize=3, label="neither")
    without = result["clean_prompt"][kept].mean()
    right.axhline(without, color=COLOURS[1], linestyle="--", label="demonstrations' task, no vector")
    right.set(
        title="By layer", xlabel="layer where the vector is put in", ylabel="share of prompts", ylim=(-0.03, 1.05)
    )
    right.xaxis.get_major_locator().set_params(integer=True)
    right.legend(fontsize=8)
    return figure


FIGURES: dict[str, Draw] = {
    "by_layer": by_layer,
    "per_task": per_task,
    "conflicting": conflicting,
    "picture": picture,
    "robustness": robustness,
    "decoded_tokens": decoded_tokens,
}

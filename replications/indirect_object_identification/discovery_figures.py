"""Figures of the discovery: how heads are ranked, which stay, how faithful so many of them are, and the published."""

from __future__ import annotations

import matplotlib.pyplot as plt
import numpy as np
from matplotlib.figure import Figure
from replications.indirect_object_identification import discovery_stages
from replications.indirect_object_identification.circuit import Head
from replications.indirect_object_identification.drawing import (
    GREY,
    frame,
    head_map,
    heads_of,
    main,
    map_panels,
    mark,
    resampled,
)
from replications.indirect_object_identification.setting import Array

from reprise import Result, Results
from reprise.plotting import COLOURS

LOWEST = -0.5
ORDERS = {
    "elimination": ("backward elimination", COLOURS[0], "-"),
    "grown": ("forward greedy", COLOURS[2], "--"),
    "attribution": ("by attribution", COLOURS[4], "-."),
    "paths": ("by path patching", COLOURS[3], ":"),
    "random": ("random order", GREY, "-"),
}


def ranking(results: Results) -> Figure:
    """Two ways to rank heads without knowing any of them

    Left: what replacing a head's output by its mean does to the logit difference, by integrated gradients, mean over
    prompts. Right: the largest mean effect, in size, of the head in any step of path patching. Framed: the circuit that
    the search then proposes.
    """
    result, found = main(results, "ranking"), _circuit(results)
    figure, (left, right) = map_panels(2, result["paths"].shape[1:])
    head_map(left, result["attribution"].mean(axis=0), label="logits")
    left.set(title="Attribution")
    largest = np.abs(result["paths"]).max(axis=0)
    head_map(right, largest, label="logits", top=float(largest.max()) or 1.0)
    right.set(title="Path patching")
    for axes in (left, right):
        frame(axes, found, "black")
    return figure


def discovery(results: Results) -> Figure:
    """How many heads it takes

    Faithfulness, 1 - |F(M) - F(C)| / |F(M)| for the mean logit difference F, of the first heads of each order, on
    prompts that were not searched on; all other heads are replaced by their means. Dotted: the size of the proposed
    circuit; dashed: the floor that the search stops at, on its own prompts; grey dots: random circuits of that size.
    Values below -0.5 are drawn there. Bands: 95 % over prompts.
    """
    result, search = main(results, "discovery"), main(results, "elimination")
    sizes, size = result.facts["sizes"], len(result.facts["circuit"])
    figure, axes = plt.subplots(figsize=(7.6, 4.0))
    for order, (label, colour, style) in ORDERS.items():
        curve = result[f"curve.{order}"]
        n = curve.shape[1]
        centre, low, high = (each.clip(LOWEST) for each in _faithful(result["model"][: len(curve)], curve, results))
        wide = 2.6 if order == "elimination" else 1.6  # orders often agree, and lie on each other
        axes.plot(sizes[:n], centre, style, marker="o", ms=1.7 * wide, color=colour, lw=wide, label=label)
        axes.fill_between(sizes[:n], low, high, color=colour, alpha=0.14, linewidth=0)
    model, random = float(result["model"].mean()), result["random"].mean(axis=0)
    drawn = np.array([discovery_stages.faithfulness(model, value) for value in random]).clip(LOWEST)
    axes.plot(np.full(len(drawn), size), drawn, "o", color=GREY, markersize=3, alpha=0.5, markeredgewidth=0)
    axes.axvline(size, color="#555555", linestyle=":", linewidth=1)
    axes.axhline(search.facts["floor"], color="#555555", linestyle="--", linewidth=0.9)
    if sizes[-1] > 32:
        axes.set_xscale("symlog", linthresh=1, linscale=0.35)
        axes.set_xticks(sizes, [str(each) for each in sizes])
        axes.minorticks_off()
    else:
        axes.set_xticks(range(0, sizes[-1] + 1, 1 + sizes[-1] // 16))
    axes.set(title="Faithfulness", xlabel="heads kept", xlim=(-0.2, 1.06 * sizes[-1]))
    axes.set_ylim(top=1.04)
    figure.legend(loc="outside lower center", ncols=5, fontsize=8)
    return figure


def discovered_heads(results: Results) -> Figure:
    """Which heads stay

    Left: when a head goes in backward elimination, as the share of all heads that is gone by then; heads that are
    ranked behind the start of a large model's search go first. Framed: the proposed circuit. Dots: the heads of the
    published circuit, where one is known for the model's shape; then right: how many of the proposed heads and of the
    first ones of every order, as many as the published circuit has, are in it. Dashed: heads drawn at random.
    """
    result, found = main(results, "discovery"), _circuit(results)
    n_layers, n_heads = result.facts["n_layers"], result.facts["n_heads"]
    stays = staying(main(results, "elimination"), main(results, "ranking"), (n_layers, n_heads))
    published = result.facts["published"]
    figure, panels = map_panels(2 if published else 1, (n_layers, n_heads))
    head_map(panels[0], stays, label="gone by then", top=1.0)
    frame(panels[0], found, "black")
    panels[0].set(title=f"{len(found)} of {n_layers * n_heads} heads")
    if published:
        mark(panels[0], heads_of(published["heads"]))
        rows = {"proposed circuit": published["circuit"]}
        rows |= {label: published["orders"][order] for order, (label, *_) in ORDERS.items()}
        for at, (measure, colour) in enumerate((("precision", COLOURS[0]), ("recall", COLOURS[4]))):
            places = np.arange(len(rows)) + 0.18 * (2 * at - 1)
            panels[1].barh(places, [row[measure] for row in rows.values()], 0.34, color=colour, label=measure)
        panels[1].axvline(published["by_chance"], color="#555555", linestyle="--", linewidth=0.9)
        panels[1].set_yticks(range(len(rows)), list(rows), fontsize=8)
        panels[1].set(title="In the published circuit", xlabel="share of heads", xlim=(0, 1.03))
        panels[1].set_ylim(len(rows) - 0.5, -0.5)
        panels[1].legend(loc="lower right", fontsize=8)
    return figure


def staying(search: Result, ranking: Result, shape: tuple[int, int]) -> Array:
    """The share of heads [layer, head] that is gone when each goes; 1 for the head that is left at the end."""
    gone = heads_of(search.facts["backward"]["order"])
    rest = [head for head in heads_of(ranking.facts["orders"]["better"]) if head not in set(gone)]
    order = [*rest[::-1], *gone]
    stays = np.zeros(shape)
    for at, head in enumerate(order):
        stays[head] = (at + 1) / len(order)
    return stays


def _circuit(results: Results) -> list[Head]:
    return heads_of(main(results, "elimination").facts["circuit"])


def _faithful(model: Array, curve: Array, results: Results) -> tuple[Array, Array, Array]:
    """Faithfulness of every size, and the ends of its interval; model and circuits on the same resampled prompts."""
    both = np.concatenate([model[:, None], curve], axis=1)

    def of(means: Array) -> Array:
        scale = np.maximum(np.abs(means[..., :1]), np.finfo(np.float32).tiny)
        found: Array = 1 - np.abs(means[..., :1] - means[..., 1:]) / scale
        return found

    low, high = np.quantile(of(resampled(both, results.seed)), [0.025, 0.975], axis=0)
    return of(both.astype(float).mean(axis=0)), low, high

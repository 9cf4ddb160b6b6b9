"""Figures about two layers: which heads compose, through what, and what the compositions are worth."""

from __future__ import annotations

import matplotlib.pyplot as plt
import numpy as np
from matplotlib.figure import Figure
from replications.transformer_circuits.claims import first, results_of

from reprise import Results
from reprise.plotting import COLOURS


def composition(results: Results) -> Figure | None:
    """Which heads of the first layer compose with which of the second

    Composition through keys, queries and values, in multiples of the mean for random matrices of the same shapes.
    Arrows mark the previous-token head (rows) and the induction heads (columns).
    """
    result = first(results, "composition", 2)
    if result is None:
        return None
    figure, panels = plt.subplots(1, 3, figsize=(9.4, 3.5), sharey=True)
    scores = {kind: result[kind][0, :, 1] / result.facts["chance"] for kind in ("k", "q", "v")}
    top = max(2.0, float(scores["k"].max()))
    for axes, (kind, score) in zip(panels, scores.items(), strict=True):
        image = axes.imshow(score, cmap="PuOr_r", vmin=2 - top, vmax=top, interpolation="nearest")
        axes.set(title=f"{kind.upper()}-composition", xlabel="head of layer 1")
        axes.set_xticks(range(score.shape[1]))
        axes.set_yticks(range(score.shape[0]))
        for _, head in result.facts["induction"]:
            axes.plot(head, -0.9, marker="v", color=COLOURS[1], markersize=4, clip_on=False)
        axes.plot(-0.9, result.facts["previous"][1], marker=">", color=COLOURS[0], markersize=5, clip_on=False)
        axes.grid(visible=False)
    panels[0].set_ylabel("head of layer 0")
    figure.colorbar(image, ax=panels, label="times chance", shrink=0.8)
    return figure


def k_composition(results: Results) -> Figure | None:
    """The full K-composition circuit: queries look for keys that the same token was moved into

    Left: the circuit of the previous-token head and all induction heads of the two-layer model, for some common tokens
    (rows: token of the query; columns: token moved into the key). Right: share of common tokens whose row peaks on the
    diagonal, for every head of the first layer in the previous-token head's place, by training seed.
    """
    found = list(results_of(results, "composition", 2))
    if not found:
        return None
    figure, (left, right) = plt.subplots(1, 2, figsize=(8.2, 3.7))
    corner = found[0][1]["corner"]
    bound = float(np.quantile(np.abs(corner), 0.998))
    left.imshow(corner, cmap="RdBu_r", vmin=-bound, vmax=bound, interpolation="nearest")
    left.set(title="Circuit", xlabel="token moved into the key", ylabel="token of the query", xticks=[], yticks=[])
    left.grid(visible=False)
    width = 0.8 / len(found)
    for at, (name, result) in enumerate(found):
        shares = result["diagonal"].mean(axis=1)
        bars = right.bar(np.arange(len(shares)) + at * width - 0.4, shares, width, color=COLOURS[at], label=name)
        bars[result.facts["previous"][1]].set_edgecolor("black")
        bars[result.facts["previous"][1]].set_linewidth(1.2)
    right.set(title="On the diagonal", xlabel="head of layer 0", ylabel="share of tokens", xticks=range(len(shares)))
    right.legend(fontsize=7, title="framed: previous-token head", title_fontsize=7)
    return figure


def score_parts(results: Results) -> Figure | None:
    """What an induction head's attention is made of

    Mean score of induction heads on the token after the earlier copy, less that on another token of the first copy, in
    parts: what the query reads (rows) against what the key reads (columns). The three strongest induction heads.
    """
    result = first(results, "paths", 2)
    if result is None:
        return None
    strongest = np.argsort(-result["induction_intact"].mean(axis=0))[:3]
    figure, panels = plt.subplots(1, len(strongest), figsize=(9.6, 3.7), sharey=True, squeeze=False)
    bound = float(np.abs(result["contrast"][strongest]).max())
    for axes, at in zip(panels[0], strongest, strict=True):
        image = axes.imshow(result["contrast"][at], cmap="RdBu_r", vmin=-bound, vmax=bound, interpolation="nearest")
        axes.set(title="head {}.{}".format(*result.facts["induction"][at]), xlabel="key reads")
        labels = result.facts["labels"]
        axes.set_xticks(range(len(labels)), labels, rotation=90, fontsize=7)
        axes.set_yticks(range(len(labels)), labels, fontsize=7)
        axes.grid(visible=False)
    panels[0, 0].set_ylabel("query reads")
    figure.colorbar(image, ax=panels, label="part of the score", shrink=0.8)
    return figure


def paths(results: Results) -> Figure | None:
    """The previous-token head feeds the induction heads through their keys

    Induction score of every induction head of the two-layer model, with the previous-token head taken out of its
    queries, its keys, its values, or of the whole model. Bars are means over sequences of repeated random tokens.
    """
    result = first(results, "paths", 2)
    if result is None:
        return None
    kinds = (
        ("intact", "intact"),
        ("q", "not in queries"),
        ("k", "not in keys"),
        ("v", "not in values"),
        ("everywhere", "not in the model"),
    )
    labels = ["{}.{}".format(*head) for head in result.facts["induction"]]
    figure, axes = plt.subplots(figsize=(7.4, 3.4))
    for at, (kind, label) in enumerate(kinds):
        scores = result[f"induction_{kind}"]
        error = 1.96 * scores.std(axis=0) / np.sqrt(len(scores))
        place = np.arange(len(labels)) + 0.16 * (at - 2)
        axes.bar(place, scores.mean(axis=0), 0.16, yerr=error, label=label, color=COLOURS[at], error_kw={"lw": 0.8})
    axes.set_xticks(range(len(labels)), labels)
    axes.set(title="Induction", xlabel="head", ylabel="share of attention")
    axes.legend(ncols=5, fontsize=7.5, loc="upper center", bbox_to_anchor=(0.5, -0.18))
    return figure


def positions(results: Results) -> Figure | None:
    """What positions alone say about the previous-token head, and what it does

    Left: softmax of the head's position-only kernel. Middle: its mean attention on text. Right: both as a function
    of the distance back, averaged over queries beyond the eighth.
    """
    result = first(results, "positions", 2)
    if result is None:
        return None
    figure, panels = plt.subplots(1, 3, figsize=(9.2, 3.1))
    shown = {"positions alone": result["kernel"], "on text": result["pattern"]}
    for axes, (name, pattern) in zip(panels, shown.items(), strict=False):
        axes.imshow(pattern[:32, :32], cmap="Blues", vmin=0, vmax=1, interpolation="nearest")
        axes.set(title=name.capitalize(), xlabel="key position", ylabel="query position")
        axes.grid(visible=False)
    back = np.arange(8)
    for colour, (name, pattern) in zip(COLOURS, shown.items(), strict=False):
        attention = [np.mean(np.diagonal(pattern, -distance)[8:]) for distance in back]
        panels[2].plot(back, attention, marker="o", markersize=3, color=colour, label=name)
    panels[2].set(title="By distance", xlabel="positions back", ylabel="share of attention", ylim=(0, 1))
    panels[2].legend()
    return figure


def terms(results: Results) -> Figure | None:
    """What paths of each order are worth

    Loss on text when only paths through at most so many heads are kept, attention patterns frozen. Left: by order;
    order 0 is the direct path. Right: the same in the order of the layers, for the two-layer model.
    """
    found = [item for depth in (1, 2) for item in results_of(results, "terms", depth) if "-seed" not in item[0]]
    two = first(results, "terms", 2)
    if not found or two is None:
        return None
    figure, (left, right) = plt.subplots(1, 2, figsize=(8.6, 3.3), width_ratios=(1, 1.4))
    for colour, (name, result) in zip(COLOURS, found, strict=False):
        losses = result["by_order"].mean(axis=0)
        left.plot(range(len(losses)), losses, marker="o", color=colour, label=name)
    left.set(title="By order", xlabel="heads on a path, at most", ylabel="nats per token", xticks=range(3))
    left.legend()
    losses, names = two["by_terms"].mean(axis=0), two.facts["terms"]
    right.barh(range(len(names)), losses, color=COLOURS[0])
    right.set_yticks(range(len(names)), names, fontsize=8)
    right.invert_yaxis()
    right.set(title="By layer", xlabel="nats per token", xlim=(0, 1.12 * float(losses.max())))
    for at, loss in enumerate(losses):
        right.text(loss, at, f" {loss:.2f}", va="center", fontsize=8)
    return figure

"""Figures about models of each depth: bigrams, skip-trigrams, copying, and what the heads of two layers do."""

from __future__ import annotations

import re

import matplotlib.pyplot as plt
import numpy as np
from matplotlib.figure import Figure
from replications.transformer_circuits.claims import COPYING, first, results_of

from reprise import Page, Results
from reprise.pages import attention_page
from reprise.plotting import COLOURS


def visible(token: str) -> str:
    """The token on one short line: marks for newline and space, runs of spaces counted."""
    short = re.sub(" {3,}", lambda run: f" \u00d7{len(run[0])}", token.replace("$", r"\$"))
    return short.replace("\n", "\u23ce").replace(" ", "\u2423")


def bigrams(results: Results) -> Figure | None:
    """A model without layers is a table of bigrams

    Each dot is a pair of tokens that occurs at least 20 times in the corpus: how often the second follows the first,
    and the probability that the zero-layer model gives it, averaged over positions. Right: the commonest tokens, what
    follows them most often, and what the model expects most.
    """
    result = first(results, "bigrams", 0)
    if result is None:
        return None
    figure, (left, right) = plt.subplots(1, 2, figsize=(7.6, 4.0), width_ratios=(1.25, 1))
    left.loglog(result["corpus"], result["model"], ".", color=COLOURS[0], alpha=0.25, markersize=3)
    ends = [1e-4, 1]
    left.plot(ends, ends, color="#555555", linewidth=0.9)
    left.set(title="Bigrams", xlabel="share in the corpus", ylabel="probability in the model", xlim=ends, ylim=ends)
    rows = [[visible(token) for token in row] for row in result.facts["examples"]]
    table = right.table(rows, colLabels=["token", "corpus", "model"], loc="center", cellLoc="left", edges="horizontal")
    table.scale(1, 1.25)
    right.axis("off")
    return figure


def skip_trigrams(results: Results) -> Figure | None:
    """Skip-trigrams: what the one-layer model's heads say about source ... destination, output

    For each head its strongest entries, read from the weights: a source token earlier in the context that the
    destination attends to (QK circuit), and the output that it raises (OV circuit). Bold: the output is the source, so
    the head copies.
    """
    result = first(results, "skip_trigrams", 1)
    if result is None:
        return None
    by_head: dict[int, list[list[str]]] = {}
    for head, *tokens in result.facts["rows"]:
        by_head.setdefault(int(head), []).append(tokens)
    figure, grid = plt.subplots(3, 4, figsize=(9.6, 5.6))
    for axes, (head, rows) in zip(grid.flat, by_head.items(), strict=False):
        axes.set_title(f"head 0.{head}")
        axes.axis("off")
        for line, (source, destination, output) in enumerate(rows[:6]):
            weight = "bold" if source == output else "normal"
            entry = f"{visible(source)} \u2026 {visible(destination)} \u2192 {visible(output)}"
            axes.text(0, 0.9 - 0.17 * line, entry, fontsize=8.5, weight=weight, family="DejaVu Sans Mono")
    return figure


def skip_trigrams_act(results: Results) -> Figure | None:
    """What a skip-trigram says in the weights, the model does

    Change of the output's log-probability after the destination when the source stands in a random context, against a
    random token in its place; one dot a skip-trigram, those of the figure above and four more a head.
    """
    result = first(results, "skip_trigrams", 1)
    if result is None:
        return None
    heads = np.array([row[0] for row in result.facts["rows"]])
    figure, axes = plt.subplots(figsize=(7.2, 3.2))
    for copies, label in ((1, "output is the source"), (0, "other")):
        chosen = result["copies"] == copies
        axes.plot(heads[chosen], result["gain"][chosen], ".", color=COLOURS[1 - copies], alpha=0.7, label=label)
    axes.axhline(0, color="#555555", linewidth=0.8)
    axes.set(title="Effect of the source", xlabel="head", ylabel="nats", xticks=range(int(heads.max()) + 1))
    axes.legend(loc="upper right")
    return figure


def copying(results: Results) -> Figure | None:
    """Which heads copy

    Sum of the real parts of the eigenvalues of each head's full OV circuit over the sum of their moduli: 1 is a head
    that raises what it attends to, -1 one that lowers it. Induction heads in orange; dashed, where a head counts as
    copying. Below: share of common tokens that are the top output of their own row.
    """
    found = [item for depth in (1, 2) for item in results_of(results, "copying", depth) if "-seed" not in item[0]]
    found = found or list(results_of(results, "copying"))[:1]
    if not found:
        return None
    figure, grid = plt.subplots(2, len(found), figsize=(7.6, 4.6), sharey="row", squeeze=False)
    for (top, bottom), (name, result) in zip(grid.T, found, strict=True):
        layers, heads = result["score"].shape
        labels = [f"{layer}.{head}" for layer in range(layers) for head in range(heads)]
        induction = [[*np.ndindex(layers, heads)].index(tuple(head)) for head in result.facts["induction"]]
        colours = [COLOURS[1] if at in induction else COLOURS[0] for at in range(len(labels))]
        top.bar(range(len(labels)), result["score"].flatten(), color=colours)
        top.axhline(COPYING, color="#555555", linestyle="--", linewidth=0.9)
        bottom.bar(range(len(labels)), result["accuracy"][..., 0].flatten(), color=colours)
        every = max(1, len(labels) // 24)
        bottom.set_xticks(range(0, len(labels), every), labels[::every], rotation=90, fontsize=7)
        top.set_xticks([])
        top.set(title=name, ylim=(-1.05, 1.05))
    grid[0, 0].set_ylabel("copying score")
    grid[1, 0].set_ylabel("top-1 copying")
    return figure


def attention(results: Results) -> Page | None:
    """Attention of every head of the two-layer model on a piece of source text and its repetition

    Choose a head above; point at a token, or at a row, to see what it attends to. Induction heads show as a stripe
    below the diagonal in the second half.
    """
    result = first(results, "heads", 2)
    if result is None or "pattern" not in result.arrays:
        return None
    layers, heads = result["pattern"].shape[:2]
    labels = [f"{layer}.{head}" for layer in range(layers) for head in range(heads)]
    best = "{}.{}".format(*np.unravel_index(result["induction"].mean(axis=0).argmax(), (layers, heads)))
    patterns = result["pattern"].reshape(-1, *result["pattern"].shape[2:])
    return attention_page(patterns, result.facts["tokens"], labels, initial=best)


def attribution(results: Results) -> Figure | None:
    """Where the logit of the right next token comes from, on random tokens and their repetition

    Direct logit attribution to the embedding and to every head of the two-layer model, mean over sequences; the
    dashed line is where the repetition begins. Biases are left out.
    """
    result = first(results, "attribution", 2)
    if result is None:
        return None
    values, labels = result["mean"].T, result.facts["labels"]
    figure, axes = plt.subplots(figsize=(7.4, 4.6))
    bound = float(np.quantile(np.abs(values), 0.995))
    image = axes.imshow(values, cmap="RdBu_r", vmin=-bound, vmax=bound, aspect="auto", interpolation="nearest")
    axes.axvline(values.shape[1] - result.facts["length"] - 0.5, color="#222222", linestyle="--", linewidth=0.9)
    axes.set_yticks(range(len(labels)), labels, fontsize=7)
    axes.set(title="Direct logit attribution", xlabel="position of the predicting token")
    axes.grid(visible=False)
    figure.colorbar(image, ax=axes, label="logit")
    return figure


def ablation(results: Results) -> Figure | None:
    """What each head is worth on repeated random tokens

    Increase of the loss on the second copy when a head's output is set to zero: the darker, the more it matters.
    """
    found = [item for depth in (1, 2) for item in results_of(results, "attribution", depth) if "-seed" not in item[0]]
    if not found:
        return None
    heights = [result["ablation"].shape[1] for _, result in found]
    figure, grid = plt.subplots(len(found), 1, figsize=(7.4, 1.2 + 0.62 * sum(heights)), height_ratios=heights)
    for axes, (name, result) in zip(np.atleast_1d(grid), found, strict=True):
        increase = result["ablation"].mean(axis=0)
        darkest = float(increase.max())
        axes.imshow(increase, cmap="Oranges", aspect="auto", vmin=0, vmax=darkest)
        for (layer, head), value in np.ndenumerate(increase):
            colour = "white" if value > 0.6 * darkest else "black"
            axes.text(head, layer, f"{value:.2f}", ha="center", va="center", fontsize=7, color=colour)
        axes.set(title=name, ylabel="layer", xticks=range(increase.shape[1]), yticks=range(increase.shape[0]))
        axes.grid(visible=False)
    np.atleast_1d(grid)[-1].set_xlabel("head")
    return figure


def codes(results: Results) -> Figure | None:
    """No linear code beats PCA; a nonlinear one can, where the data are curved

    Share of the variance that a reconstruction from a few numbers leaves unexplained, on rows that were not fitted.
    Left: residual stream before the second layer. Right: points on a noisy curve in ten dimensions.
    """
    result = first(results, "codes", 2)
    if result is None:
        return None
    figure, panels = plt.subplots(1, 2, figsize=(7.4, 3.4))
    for axes, (name, title) in zip(panels, (("stream", "Residual stream"), ("curve", "A curve")), strict=True):
        sizes = result.facts["sizes"][name]
        for method, label, style in (
            (0, "PCA", "-"),
            (1, "linear autoencoder", ":"),
            (2, "nonlinear autoencoder", "-"),
        ):
            left = result[name][:, method, 1]
            axes.plot(sizes, left, style, marker="o", markersize=3, color=COLOURS[method], label=label)
        axes.set(title=title, xlabel="code size", ylim=(0, None), xscale="log" if name == "stream" else "linear")
        axes.set_xticks(sizes, [str(size) for size in sizes])
    panels[0].set_ylabel("variance left")
    panels[1].legend(loc="upper right")
    return figure

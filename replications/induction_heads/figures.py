"""The figures of Olsson et al. 2022, from stored results alone.

A figure that needs checkpoints is not drawn for a model without them.
"""

from __future__ import annotations

from collections.abc import Iterator

import matplotlib.pyplot as plt
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle
from replications.induction_heads.claims import Array, window
from replications.induction_heads.head_map import head_map

from reprise import Result, Results
from reprise.experiment import Draw
from reprise.plotting import COLOURS


def trained(results: Results) -> Iterator[tuple[str, Result, str]]:
    """Name, dynamics and colour of every model with checkpoints, fewest layers first."""
    of = {name: result for name, result in results.of("dynamics").items() if len(result["tokens"]) > 2}
    ordered = sorted(of, key=lambda name: (of[name].facts["n_layers"], name))
    for colour, name in zip(COLOURS, ordered, strict=False):
        yield name, of[name], colour


def main_models(results: Results, stage: str) -> list[tuple[str, Result]]:
    """Results of a stage for the models of the first training seed, fewest layers first."""
    of = {name: result for name, result in results.of(stage).items() if "-seed" not in name}
    return sorted(of.items(), key=lambda item: (item[1].facts["n_layers"], item[0]))


def layers(result: Result) -> str:
    n = result.facts["n_layers"]
    return f"{n} layer{'s'[: n != 1]}"


def mean_line(axes: Axes, result: Result, name: str, colour: str) -> None:
    """Mean over windows of text against tokens, with a band of 1.96 standard errors."""
    x, values = result["tokens"][1:], result[name][1:]
    mean, error = values.mean(axis=1), 1.96 * values.std(axis=1) / np.sqrt(values.shape[1])
    axes.plot(x, mean, color=colour, marker="o", markersize=2.5, label=layers(result))
    axes.fill_between(x, mean - error, mean + error, color=colour, alpha=0.15, linewidth=0)


def shade_windows(axes: Axes, results: Results) -> None:
    for _, result, colour in trained(results):
        span = window(result)
        if span and result.facts["n_layers"] > 1:
            axes.axvspan(*np.exp(span), color=colour, alpha=0.10, linewidth=0)


def phase_change(results: Results) -> Figure | None:
    """One window: the loss, in-context learning and prefix matching change together

    Top: loss on held-out text. Middle: in-context learning score (loss late in the context minus loss early; lower is
    better). Bottom: prefix-matching score of the best head on repeated random tokens. Shaded: the window in which the
    best head of the two-layer (orange) and three-layer (green) model climbs from 10 % to 90 % of its final score. Bands
    are 95 % intervals over windows of text; the windows of text are the same everywhere, so differences between
    checkpoints are more certain than the bands suggest. Initial weights are left out; one training seed.
    """
    models = list(trained(results))
    if not models:
        return None
    figure, (top, middle, bottom) = plt.subplots(3, 1, figsize=(7.2, 7.6), sharex=True)
    for _, result, colour in models:
        mean_line(top, result, "loss", colour)
        mean_line(middle, result, "score", colour)
        best = result["prefix_matching"][1:].mean(axis=1).max(axis=(1, 2))
        bottom.plot(result["tokens"][1:], best, color=colour, marker="o", markersize=2.5, label=layers(result))
    for axes, title, label in (
        (top, "Loss on held-out text", "nats per token"),
        (middle, "In-context learning score", "nats per token"),
        (bottom, "Best prefix-matching head", "share of attention"),
    ):
        shade_windows(axes, results)
        axes.set(title=title, ylabel=label, xscale="log")
    top.legend(loc="upper right")
    bottom.set(xlabel="training tokens", ylim=(0, 1))
    return figure


def heads_over_training(results: Results) -> Figure | None:
    """Every head along training: previous-token heads first, then prefix-matching heads one layer above

    Each line is a head, on repeated random tokens; colour is its layer (blue the first, orange the second, green the
    third). Left: attention to the token after an earlier occurrence. Right: attention to the previous token.
    """
    models = list(trained(results))
    if not models:
        return None
    figure, grid = plt.subplots(
        len(models), 2, figsize=(7.2, 2.3 * len(models)), sharex=True, sharey=True, squeeze=False
    )
    for row, (_, result, _) in zip(grid, models, strict=True):
        for axes, name in zip(row, ("prefix_matching", "previous_token"), strict=True):
            scores = result[name][1:].mean(axis=1)
            for layer in range(scores.shape[1]):
                axes.plot(result["tokens"][1:], scores[:, layer], color=COLOURS[layer], linewidth=1.1, alpha=0.85)
            axes.set(title=f"{layers(result)}: {name.replace('_', ' ')}", xscale="log", ylim=(0, 1))
        row[0].set_ylabel("share of attention")
    for axes in grid[-1]:
        axes.set_xlabel("training tokens")
    return figure


def attention_pattern(results: Results) -> Figure | None:
    """The strongest induction head on a segment of random tokens and its repetition

    Rows are queries, columns keys. In the second half the head looks at the token after the earlier copy of the present
    one: the lower stripe parallel to the diagonal. The sequence is not one of those on which the head was chosen.
    """
    models = [item for item in main_models(results, "repeated") if item[1].facts["n_layers"] > 1]
    if not models:
        return None
    figure, grid = plt.subplots(1, len(models), figsize=(3.7 * len(models) + 0.6, 3.9), squeeze=False)
    for axes, (name, result) in zip(grid[0], models, strict=True):
        image = axes.imshow(result["pattern"], cmap="Blues", vmin=0, vmax=1, interpolation="nearest")
        layer, head = result.facts["strongest"]
        axes.set(title=f"{name}: head {layer}.{head}", xlabel="key position", ylabel="query position")
        axes.axhline(len(result["pattern"]) - result.facts["length"] - 0.5, color=COLOURS[1], linewidth=0.8)
        axes.grid(visible=False)
    figure.colorbar(image, ax=grid[0], label="attention", shrink=0.85)
    return figure


def loss_per_position(results: Results) -> Figure | None:
    """Repeated random tokens: the second time they are predicted, by models with more than one layer

    Mean loss at each position of a segment of random tokens followed by itself; the dashed line is where the repetition
    begins. Losses above ln(vocabulary) show that random tokens are unlike the training text. Bands
    are 95 % intervals over sequences.
    """
    figure, axes = plt.subplots()
    for colour, (_, result) in zip(COLOURS, main_models(results, "repeated"), strict=False):
        losses = result["loss"]
        mean, error = losses.mean(axis=0), 1.96 * losses.std(axis=0) / np.sqrt(len(losses))
        position = np.arange(1, len(mean) + 1)
        axes.plot(position, mean, color=colour, label=layers(result))
        axes.fill_between(position, mean - error, mean + error, color=colour, alpha=0.2, linewidth=0)
        axes.axvline(len(mean) - result.facts["length"] + 0.5, color="#555555", linestyle="--", linewidth=0.9)
    axes.set(title="Loss on repeated random tokens", xlabel="position", ylabel="nats per token", ylim=(0, None))
    axes.legend(loc="lower left")
    return figure


def ablation_per_head(results: Results) -> Figure | None:
    """What each head is worth: increase of the loss when its output is set to zero

    On held-out text, at the end of training; the number is the increase in nats per token, darker is more important.
    Induction heads are framed.
    """
    models = main_models(results, "ablation")
    heights = [result.facts["n_layers"] for _, result in models]
    figure, grid = plt.subplots(
        len(models), 1, figsize=(7.2, 0.9 * len(models) + 0.42 * sum(heights)), squeeze=False, height_ratios=heights
    )
    for axes, (name, result) in zip(grid[:, 0], models, strict=True):
        increase = result["zero"].mean(axis=0)
        darkest = max(0.2, float(np.quantile(increase, 0.98)))
        axes.imshow(increase, cmap="Oranges", aspect="auto", vmin=0, vmax=darkest)
        for layer, head in np.ndindex(*increase.shape):
            if increase.shape[1] <= 16:
                value = float(increase[layer, head])
                colour = "white" if value > 0.6 * darkest else "black"
                axes.text(head, layer, f"{value:.2f}", ha="center", va="center", fontsize=7, color=colour)
        for layer, head in result.facts["induction_heads"]:
            axes.add_patch(Rectangle((head - 0.48, layer - 0.46), 0.96, 0.92, fill=False, edgecolor=COLOURS[0], lw=1.6))
        axes.set(title=name, ylabel="layer", xticks=range(0, increase.shape[1]), yticks=range(increase.shape[0]))
        axes.grid(visible=False)
    grid[-1, 0].set_xlabel("head")
    return figure


def ablation_of_induction(results: Results) -> Figure | None:
    """Knocking out the induction heads takes the in-context learning away; knocking out others does so less

    In-context learning score (nats per token; lower is better) of the intact model, without its induction heads, and
    without equally many other heads of the same layers, chosen at random. Bars are 95 % intervals over windows
    of text. Seeds are models trained alike from other initial weights and data order.
    """
    of = {name: result for name, result in results.of("ablation").items() if result.facts["induction_heads"]}
    if not of:
        return None
    figure, axes = plt.subplots()
    names = sorted(of, key=lambda name: (of[name].facts["n_layers"], name))
    bars = (
        ("intact", "score"),
        ("without induction heads", "score_without_induction"),
        ("without others", "score_without_controls"),
    )
    for offset, (label, key) in enumerate(bars):
        values = [of[name][key] if key != "score_without_controls" else of[name][key].mean(axis=0) for name in names]
        errors = [1.96 * value.std() / np.sqrt(len(value)) for value in values]
        place = np.arange(len(names)) + 0.27 * (offset - 1)
        axes.bar(
            place, [value.mean() for value in values], 0.25, yerr=errors, label=label, color=COLOURS[offset], capsize=2
        )
    axes.set_xticks(range(len(names)), [f"{name}\n{len(of[name].facts['induction_heads'])} heads" for name in names])
    axes.axhline(0, color="#555555", linewidth=0.8)
    axes.set(title="In-context learning score", ylabel="nats per token")
    axes.legend(loc="lower right")
    return figure


def ablation_over_training(results: Results) -> Figure | None:
    """Along training: what the heads that end as induction heads are worth

    Left: increase of the in-context learning score when all of them are set to zero, with 95 % intervals over windows
    of text; shaded as in the first figure. Right: increase of the loss for each head of the two-layer model alone; blue
    lines are the first layer, orange the second, induction heads are drawn thick.
    """
    of = {name: result for name, result in results.of("ablation_dynamics").items() if len(result["tokens"]) > 2}
    if not of:
        return None
    figure, (left, right) = plt.subplots(1, 2, figsize=(7.6, 3.4))
    colours = {name: colour for name, _, colour in trained(results)}
    for name, result in of.items():
        if result.facts["induction_heads"]:
            effect = {"tokens": result["tokens"], "effect": result["score_without_induction"] - result["score"]}
            mean_line(left, Result(effect, result.facts), "effect", colours[name])
    shade_windows(left, results)
    left.set(title="Effect on the score", xlabel="training tokens", ylabel="nats per token", xscale="log")
    left.legend(loc="upper left")
    two = [result for result in of.values() if result.facts["n_layers"] == 2]
    for result in two[:1]:
        thick = {tuple(head) for head in result.facts["induction_heads"]}
        increase: Array = result["zero"].mean(axis=1)
        for layer, head in np.ndindex(*increase.shape[1:]):
            width = 2.2 if (layer, head) in thick else 0.8
            right.plot(result["tokens"][1:], increase[1:, layer, head], color=COLOURS[layer], linewidth=width)
    right.set(title="Effect of each head on the loss", xlabel="training tokens", ylabel="nats per token", xscale="log")
    return figure


FIGURES: dict[str, Draw] = {
    "phase_change": phase_change,
    "heads_over_training": heads_over_training,
    "attention_pattern": attention_pattern,
    "head_map": head_map,
    "loss_per_position": loss_per_position,
    "ablation_per_head": ablation_per_head,
    "ablation_of_induction": ablation_of_induction,
    "ablation_over_training": ablation_over_training,
}

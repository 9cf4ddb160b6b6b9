"""Figures of returns along training: CartPole, and the comparison of objectives."""

from __future__ import annotations

import matplotlib.pyplot as plt
import numpy as np
from matplotlib.figure import Figure
from replications.proximal_policy_optimization import drawing
from replications.proximal_policy_optimization.drawing import BLUE, GREY, SHOWN, short
from replications.proximal_policy_optimization.setting import FIRST_CODE, OBJECTIVES, SWEEPS

from reprise import Results


def cartpole_curves(results: Results) -> Figure | None:
    """CartPole-v1: returns along training, and of the trained policies

    Left: mean return of the episodes that ended in each hundredth of the training steps; mean over the seeds, band from
    the lowest seed to the highest (the 95 % bootstrap interval of three). Right: 100 evaluation episodes of each
    trained policy with sampled actions; the bar is the mean, the dashed line the threshold of 475.
    """
    of = results.of("cartpole")
    if not of:
        return None
    figure, (left, right) = plt.subplots(1, 2, figsize=(7.6, 3.4), width_ratios=(2, 1), sharey=True)
    names = sorted(of)
    steps = of[names[0]]["curve_steps"] / 1000
    drawing.curves(left, steps, [of[name]["curve_return"] for name in names], colour=BLUE, label=f"{len(of)} seeds")
    generator = np.random.default_rng(0)
    for place, name in enumerate(names):
        returns = of[name]["evaluation"]
        right.scatter(place + generator.uniform(-0.2, 0.2, len(returns)), returns, s=6, color=BLUE, alpha=0.35)
        right.hlines(returns.mean(), place - 0.35, place + 0.35, color=BLUE, linewidth=2.2)
    for axes in (left, right):
        axes.axhline(475, color=GREY, linestyle="--", linewidth=1)
    left.set(title="While training", xlabel="thousand steps", ylabel="return of an episode", ylim=(0, 515))
    left.legend(loc="lower right")
    right.set(title="Trained", xlim=(-0.6, len(names) - 0.4))
    right.set_xticks(range(len(names)), [name.replace("seed", "seed ") for name in names])
    return figure


def comparison_curves(results: Results) -> Figure | None:
    """One objective of each kind, along training

    Mean return of the episodes that ended in each part of the training steps; mean over the seeds that were run, band
    from the lowest to the highest (the 95 % bootstrap interval of three). The dotted line is the untrained policy.
    """
    names = drawing.environments(results)
    if not names:
        return None
    columns = min(3, len(names))
    rows = -(-len(names) // columns)
    figure, grid = plt.subplots(rows, columns, figsize=(2.6 * columns + 0.4, 2.6 * rows + 0.5), squeeze=False)
    for axes in grid.flat[len(names) :]:
        axes.remove()
    for axes, environment in zip(grid.flat, names, strict=False):
        for objective in SHOWN:
            found = drawing.runs(results, environment, objective)
            if found:
                values = [run["curve_return"] for run in found]
                kind, text = drawing.colour(objective), drawing.label(objective)
                drawing.curves(axes, found[0]["curve_steps"] / 1000, values, colour=kind, label=text)
        untrained = results.of("untrained").get(environment)
        if untrained is not None:
            axes.axhline(untrained["returns"].mean(), color=GREY, linestyle=":", linewidth=1.2)
        axes.set(title=short(environment), xlabel="thousand steps")
    grid[0, 0].set_ylabel("return of an episode")
    handles, labels = grid[0, 0].get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside lower center", ncols=2)
    return figure


def first_code_curves(results: Results) -> Figure | None:
    """Clipping and none, with all details and with those of the authors' first code

    Solid: as in the other figures, with scaled rewards and clipped values and gradients. Dashed: without these three,
    as in the code published with the paper. Means over the seeds that were run, bands from the lowest to the highest.
    The dotted line is the untrained policy.
    """
    names = [
        name
        for name in SWEEPS[results.tier].environments
        if any(drawing.runs(results, name, objective, "first_code") for objective in FIRST_CODE)
    ]
    if not names:
        return None
    figure, grid = plt.subplots(1, len(names), figsize=(max(6.0, 2.6 * len(names) + 0.4), 3.4), squeeze=False)
    for axes, environment in zip(grid[0], names, strict=True):
        for stage, style, addition in (("train", "-", ""), ("first_code", "--", ", first code")):
            for objective in FIRST_CODE:
                found = drawing.runs(results, environment, objective, stage)
                if found:
                    steps, values = found[0]["curve_steps"] / 1000, [run["curve_return"] for run in found]
                    kind, text = drawing.colour(objective), drawing.label(objective) + addition
                    drawing.curves(axes, steps, values, colour=kind, label=text, linestyle=style)
        untrained = results.of("untrained").get(environment)
        if untrained is not None:
            axes.axhline(untrained["returns"].mean(), color=GREY, linestyle=":", linewidth=1.2)
        axes.set(title=short(environment), xlabel="thousand steps")
    grid[0, 0].set_ylabel("return of an episode")
    lines = {line.get_label(): line for axes in grid[0] for line in axes.get_legend_handles_labels()[0]}
    figure.legend(list(lines.values()), list(lines), loc="outside lower center", ncols=2)
    return figure


def every_objective(results: Results) -> Figure | None:
    """Returns at the end of training, every objective and every run

    A dot is a run: the mean return that its score is made of. The bar is the mean over seeds, the dotted line the
    untrained policy.
    """
    names = drawing.environments(results)
    if not names:
        return None
    shown = [objective for objective in OBJECTIVES if any(drawing.runs(results, name, objective) for name in names)]
    size = (2.1 * len(names) + 1.9, 0.26 * len(shown) + 1)
    figure, grid = plt.subplots(1, len(names), figsize=size, sharey=True, squeeze=False)
    for axes, environment in zip(grid[0], names, strict=True):
        for place, objective in enumerate(shown):
            ends = [float(run["last_returns"].mean()) for run in drawing.runs(results, environment, objective)]
            if ends:
                kind = drawing.colour(objective)
                axes.scatter(ends, [place] * len(ends), s=14, color=kind, alpha=0.6)
                axes.vlines(np.mean(ends), place - 0.32, place + 0.32, color=kind, linewidth=2)
        untrained = results.of("untrained").get(environment)
        if untrained is not None:
            axes.axvline(untrained["returns"].mean(), color=GREY, linestyle=":", linewidth=1.2)
        axes.set(title=short(environment), xlabel="return")
    grid[0, 0].set_yticks(range(len(shown)), [drawing.label(objective) for objective in shown])
    grid[0, 0].set_ylim(len(shown) - 0.4, -0.6)
    return figure

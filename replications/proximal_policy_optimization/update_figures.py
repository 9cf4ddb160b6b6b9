"""Figures of single updates: how far they move the policy, the adaptive penalty, the first update, the probes."""

from __future__ import annotations

import matplotlib.pyplot as plt
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from replications.proximal_policy_optimization import drawing
from replications.proximal_policy_optimization.drawing import BLACK, BLUE, GREEN, GREY, ORANGE, SHOWN, short
from replications.proximal_policy_optimization.setting import ADAPTIVE, target_of

from reprise import Result, Results


def size_of_updates(results: Results) -> Figure | None:
    """How far each update moves the policy

    Top: KL divergence of the policy after an update's ten epochs from the one before, mean over the rollout. Bottom:
    share of actions whose probability ratio is outside of 0.8 to 1.2 during the epochs. Mean over the seeds that were
    run, band from the lowest to the highest; running means over a twentieth of training.
    """
    names = drawing.environments(results)
    if not names:
        return None
    figure, grid = plt.subplots(2, len(names), figsize=(2.4 * len(names) + 0.8, 5), sharex=True, squeeze=False)
    for column, environment in enumerate(names):
        for objective in SHOWN:
            found = drawing.runs(results, environment, objective)
            if found:
                along(grid[0, column], found, "kl", objective)
                along(grid[1, column], found, "outside", objective)
        grid[0, column].set(title=short(environment), yscale="log")
        grid[1, column].set(xlabel="thousand steps", ylim=(0, 1))
    grid[0, 0].set_ylabel("KL divergence (nats)")
    grid[1, 0].set_ylabel("ratios outside 0.8 to 1.2")
    handles, labels = grid[0, 0].get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside lower center", ncols=2)
    return figure


def along(axes: Axes, found: list[Result], name: str, objective: str) -> None:
    """A quantity of updates along training, over seeds."""
    shortest = min(len(run[name]) for run in found)
    width = max(1, shortest // 20)
    values = [drawing.smooth(run[name][:shortest].astype(np.float64), width) for run in found]
    steps = found[0]["update_steps"][:shortest] / 1000
    drawing.curves(axes, steps, values, colour=drawing.colour(objective), label=drawing.label(objective))


def adaptive_penalty(results: Results) -> Figure | None:
    """The adaptive penalty: divergence over target, and the coefficient that brings it there

    Top: KL divergence of each update over its target; shaded, the range in which the coefficient is left alone (1/1.5
    to 1.5). Bottom: the coefficient, which begins at 1. Mean over the seeds that were run, band from the lowest to the
    highest.
    """
    names = [
        environment
        for environment in drawing.environments(results)
        if any(drawing.runs(results, environment, objective) for objective in ADAPTIVE)
    ]
    if not names:
        return None
    figure, grid = plt.subplots(2, len(names), figsize=(2.4 * len(names) + 0.8, 5), sharex=True, squeeze=False)
    for column, environment in enumerate(names):
        for kind, objective in zip((BLUE, ORANGE, GREEN), ADAPTIVE, strict=True):
            found = drawing.runs(results, environment, objective)
            if not found:
                continue
            target = target_of(objective)
            steps = found[0]["update_steps"] / 1000
            quotients = [run["kl"].astype(np.float64) / target for run in found]
            coefficients = [run["kl_coefficient"].astype(np.float64) for run in found]
            drawing.curves(grid[0, column], steps, quotients, colour=kind, label=f"target {target:g}")
            drawing.curves(grid[1, column], steps, coefficients, colour=kind, label=f"target {target:g}")
        grid[0, column].axhspan(1 / 1.5, 1.5, color=GREY, alpha=0.2, linewidth=0)
        grid[0, column].set(title=short(environment), yscale="log")
        grid[1, column].set(xlabel="thousand steps", yscale="log")
    grid[0, 0].set_ylabel("divergence over target")
    grid[1, 0].set_ylabel("coefficient β")
    handles, labels = grid[0, 0].get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside lower center", ncols=3)
    return figure


def first_update(results: Results) -> Figure | None:
    """The first update on Hopper: objectives along the line from the old policy to the updated one

    The paper's Figure 2. 0 is the old policy, 1 the one after ten epochs; beyond, the line is continued. L^CPI is the
    mean of ratio times advantage, L^CLIP the clipped objective; advantages are normalised. Lines are means over seeds,
    bands their 95 % interval.
    """
    of = results.of("first_update")
    if not of:
        return None
    found = [of[name] for name in sorted(of)]
    figure, (left, right) = plt.subplots(1, 2, figsize=(7.6, 3.4))
    places = found[0]["along"]
    for name, kind, text in (("unclipped", ORANGE, "L$^{CPI}$"), ("clipped", BLUE, "L$^{CLIP}$")):
        drawing.curves(left, places, [run[name] for run in found], colour=kind, label=text)
    drawing.curves(right, places, [run["kl"] for run in found], colour=BLACK, label="KL divergence")
    right.axhline(0.02, color=GREY, linestyle=":", linewidth=1.2)
    right.annotate("the paper's 0.02", (places[0], 0.021), color=GREY, fontsize=8)
    for axes in (left, right):
        axes.axvline(1, color=GREY, linestyle="--", linewidth=1)
        axes.set_xlabel("old policy 0, updated policy 1")
    left.axhline(0, color=GREY, linewidth=0.8)
    left.set(title="Surrogate objectives")
    left.legend(loc="upper left")
    right.set(title="KL divergence from the old policy", ylabel="nats")
    return figure

"""The figures of He et al. 2016, section 4.2, from stored results alone.

Lines are means over training seeds and bands Student's 95 % intervals, as in `claims`; networks of which no run is
stored are left out.
"""

from __future__ import annotations

from typing import Any

import matplotlib.pyplot as plt
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter
from replications.residual_networks.claims import STUDENT, Array, Network, runs
from replications.residual_networks.setting import DEPTHS, KINDS

from reprise import Result, Results
from reprise.experiment import Draw
from reprise.plotting import COLOURS

NAMES = {"plain": "Plain", "residual": "ResNet"}
HUES = {"plain": COLOURS[1], "residual": COLOURS[0]}
BOXED: dict[str, Any] = {"frameon": True, "framealpha": 0.9, "edgecolor": "none"}  # readable over lines
PROFILED = (("plain", 20), ("plain", 56), ("residual", 20), ("residual", 56), ("residual", 110))  # figure 7


def depths(results: Results, kind: str) -> list[tuple[int, str, list[Result]]]:
    """Depth, colour and runs of every network of a kind, the shallowest first."""
    found = [(depth, list(runs(results, (kind, depth)).values())) for depth in DEPTHS[results.tier]]
    return [(depth, COLOURS[place], of) for place, (depth, of) in enumerate(found) if of]


def mean_and_reach(samples: Array) -> tuple[Array, Array]:
    """Mean over the first axis, seeds, and half the width of Student's interval (0 for one seed)."""
    n = len(samples)
    if n < 2:
        return samples.mean(axis=0), np.zeros(samples.shape[1:])
    return samples.mean(axis=0), STUDENT[min(n - 2, len(STUDENT) - 1)] * samples.std(axis=0, ddof=1) / np.sqrt(n)


def band(axes: Axes, x: Array, samples: Array, colour: str, label: str, *, logarithm: bool = False) -> None:
    """A line with a band; means of logarithms if asked for, as for ratios and norms."""
    mean, reach = mean_and_reach(np.log(samples) if logarithm else samples)
    centre, low, high = (np.exp(v) if logarithm else v for v in (mean, mean - reach, mean + reach))
    axes.plot(x, centre, color=colour, label=label)
    axes.fill_between(x, low, high, color=colour, alpha=0.15, linewidth=0)


def error_scale(axes: Axes) -> None:
    """Percent, linear up to 1 and logarithmic above, so that errors of 0 and of 80 % fit into one picture."""
    axes.set_yscale("symlog", linthresh=1.0, linscale=0.5)
    axes.set_yticks([0, 1, 2, 5, 10, 20, 50, 100])
    axes.yaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
    axes.set_ylim(0, 100)


def learning_curves(results: Results) -> Figure | None:
    """Errors over training: plain networks get worse with depth, residual ones do not

    Top: error on the training images, without augmentation. Bottom: on the test images. Left: plain networks. Right:
    residual ones, with as many parameters. The scale is linear up to 1 % and logarithmic above. Dotted lines: the
    learning rate is divided by 10. Bands are 95 % intervals over training seeds.
    """
    figure, grid = plt.subplots(2, 2, figsize=(7.6, 6.6), sharex=True, sharey=True)
    if not _curves(results, grid, (("training_error", "training"), ("test_error", "test"))):
        return None
    for axes in grid.flat:
        error_scale(axes)
    return figure


def loss_curves(results: Results) -> Figure | None:
    """The training loss: the difficulty is one of optimisation

    Cross-entropy on augmented training batches, mean between two measurements. Left: plain networks. Right: residual
    ones. Dotted lines: the learning rate is divided by 10. Bands are 95 % intervals over training seeds, of logarithms.
    """
    figure, grid = plt.subplots(1, 2, figsize=(7.6, 3.7), sharex=True, sharey=True, squeeze=False)
    return figure if _curves(results, grid, (("training_loss", "training loss"),)) else None


def _curves(results: Results, grid: Array, rows: tuple[tuple[str, str], ...]) -> bool:
    """Draw each named curve of both kinds into a row; False if nothing is there to draw."""
    drawn = False
    for (name, title), line in zip(rows, grid, strict=True):
        for kind, axes in zip(KINDS, line, strict=True):
            loss = name == "training_loss"
            for depth, colour, of in depths(results, kind):
                curves = np.stack([run[name][1:] for run in of])
                x = of[0]["steps"][1:]
                band(axes, x, curves if loss else 100 * curves, colour, f"{depth}", logarithm=loss)
                drawn = True
            for run in [run for _, _, of in depths(results, kind) for run in of][:1]:
                for step in run.facts["divide_at"]:
                    axes.axvline(step, color="#555555", linestyle=":", linewidth=0.9)
            axes.set_title(f"{NAMES[kind]}: {title}{'' if loss else ' error'}")
            if loss:
                axes.set_yscale("log")
        line[0].set_ylabel("nats" if name == "training_loss" else "%")
        shown = [axes for axes in line if axes.get_legend_handles_labels()[0]]
        if shown:
            shown[-1].legend(title="layers", ncols=2, loc="upper right", **BOXED)
    for axes in grid[-1]:
        axes.set_xlabel("step")
    return drawn


def error_by_depth(results: Results) -> Figure | None:
    """Errors at the end of training against depth

    Left: on the training images. Right: on the test images. Dots are runs, the line is their mean, bars are 95 %
    intervals over training seeds. The scale is linear up to 1 % and logarithmic above.
    """
    figure, grid = plt.subplots(1, 2, figsize=(7.6, 3.7), sharey=True)
    drawn = False
    for axes, (name, title) in zip(grid, (("training_error", "Training"), ("test_error", "Test")), strict=True):
        for shift, kind in zip((-0.4, 0.4), KINDS, strict=True):
            of = depths(results, kind)
            if not of:
                continue
            drawn = True
            x = np.array([depth for depth, _, _ in of]) + shift
            ends = [100 * np.array([float(run[name][-1]) for run in found]) for _, _, found in of]
            means, reaches = zip(*(mean_and_reach(end) for end in ends), strict=True)
            axes.errorbar(x, means, yerr=reaches, color=HUES[kind], capsize=2.5, label=NAMES[kind])
            for place, end in zip(x, ends, strict=True):
                axes.plot(np.full(len(end), place), end, ".", color=HUES[kind], alpha=0.45, markersize=5)
        axes.set(title=f"{title} error", xlabel="layers", xticks=DEPTHS[results.tier])
        error_scale(axes)
    grid[0].set_ylabel("%")
    grid[0].legend(loc="upper left")
    return figure if drawn else None


def gradient_norms(results: Results) -> Figure | None:
    """How gradients reach the layers: norms of the gradient of the loss at each layer's response

    Top: with the initial weights, every depth. Bottom: along training, for 56 layers. The first layer stands at 0, the
    last 3x3 layer at 1. A line that falls to the left vanishes on its way back, one that rises to the left explodes.
    Bands are 95 % intervals over training seeds, of logarithms.
    """
    if not any(runs(results, (kind, 56)) for kind in KINDS):
        return None
    figure, grid = plt.subplots(2, 2, figsize=(7.6, 6.4), sharex=True, sharey=True)
    for kind, column in zip(KINDS, grid.T, strict=True):
        for depth, colour, of in depths(results, kind):
            start = np.stack([run["signal_gradients"][0] for run in of])
            band(column[0], np.linspace(0, 1, start.shape[1]), start, colour, f"{depth} layers", logarithm=True)
        deep = list(runs(results, (kind, 56)).values())
        for moment, step in enumerate(deep[0]["gradient_steps"] if deep else ()):
            norms = np.stack([run["signal_gradients"][moment] for run in deep])
            x = np.linspace(0, 1, norms.shape[1])
            band(column[1], x, norms, COLOURS[moment], f"step {step:.0f}", logarithm=True)
        column[0].set(title=f"{NAMES[kind]}: initial weights", yscale="log")
        column[1].set(title=f"{NAMES[kind]}, 56 layers: in training", xlabel="layer, as a share of the depth")
    for axes in grid[:, 0]:
        axes.set_ylabel("norm of the gradient")
    for row in grid:
        shown = [axes for axes in row if axes.get_legend_handles_labels()[0]]
        if shown:
            shown[-1].legend(fontsize=8, loc="upper right", **BOXED)
    return figure


def responses(results: Results) -> Figure | None:
    """Standard deviations of the layers' responses at the end of training (the paper's figure 7)

    The response of a 3x3 layer is its output after batch normalisation and before addition or nonlinearity. Left: in
    the order of the layers. Right: sorted by size. Dashed: plain networks. Bands are 95 % intervals over seeds, of
    logarithms.
    """
    networks: list[Network] = [network for network in PROFILED if runs(results, network)]
    if not networks:
        return None
    figure, (ordered, ranked) = plt.subplots(1, 2, figsize=(7.6, 3.9), sharey=True)
    for colour, (kind, depth) in zip(COLOURS, networks, strict=False):
        found = np.stack([run["responses"] for run in runs(results, (kind, depth)).values()])
        layers = np.arange(1, found.shape[1] + 1)
        for axes, samples in ((ordered, found), (ranked, -np.sort(-found, axis=1))):
            band(axes, layers, samples, colour, f"{NAMES[kind]}-{depth}", logarithm=True)
            axes.lines[-1].set_linestyle("--" if kind == "plain" else "-")
    ordered.set(title="In the order of the layers", xlabel="layer", ylabel="standard deviation", yscale="log")
    ordered.set_yticks([0.5, 1, 2, 5, 10, 20, 50])
    ordered.yaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
    ranked.set(title="Sorted by size", xlabel="rank")
    ranked.legend(loc="upper right")
    return figure


FIGURES: dict[str, Draw] = {
    "error_by_depth": error_by_depth,
    "learning_curves": learning_curves,
    "loss_curves": loss_curves,
    "gradient_norms": gradient_norms,
    "responses": responses,
}

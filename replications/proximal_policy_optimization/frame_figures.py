"""Frame strips of episodes, drawn from stored states: a cart with its pole, or a body's capsules from the side."""

from __future__ import annotations

import matplotlib.pyplot as plt
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.layout_engine import ConstrainedLayoutEngine
from matplotlib.patches import Rectangle
from replications.proximal_policy_optimization import drawing
from replications.proximal_policy_optimization.drawing import BLACK, BLUE, GREY, ORANGE, Array, short
from replications.proximal_policy_optimization.scores import run_of

from reprise import Result, Results

SHOWN = ("clip-0.2", "none")
POLE = 1.0  # metres; Gymnasium's CartPole stores half of it


def cartpole_frames(results: Results) -> Figure | None:
    """An episode of CartPole after training

    Frames at equal distances, seed 0, the likeliest action at each step; below each, the step. The track ends at 2.4
    metres on both sides.
    """
    run = results.of("cartpole").get("seed0")
    if run is None or "states" not in run.arrays:
        return None
    states, at = run["states"], run["frame_steps"]
    figure, grid = plt.subplots(2, -(-len(states) // 2), figsize=(7.6, 3), squeeze=False)
    for axes in grid.flat[len(states) :]:
        axes.remove()
    for axes, state, step in zip(grid.flat, states, at, strict=False):
        cart(axes, float(state[0]), float(state[2]))
        axes.text(0, -0.15, f"step {int(step)}", ha="center", va="top", fontsize=8)
    return figure


def cart(axes: Axes, place: float, angle: float) -> None:
    """A cart at x (metres) with its pole (radians from upright)."""
    axes.plot([-2.4, 2.4], [0, 0], color=GREY, linewidth=0.8)
    axes.add_patch(Rectangle((place - 0.3, 0), 0.6, 0.25, color=BLACK))
    top = (place + POLE * np.sin(angle), 0.25 + POLE * np.cos(angle))
    axes.plot([place, top[0]], [0.25, top[1]], color=ORANGE, linewidth=3, solid_capstyle="round")
    axes.set(xlim=(-2.4, 2.4), ylim=(-0.5, 1.5), aspect="equal")
    axes.axis("off")


def body_frames(results: Results) -> Figure | None:
    """An episode after training, with clipping and without

    Frames at equal distances of an episode of each environment, seed 0, the likeliest action at each step; blue with
    clipping at 0.2, orange without clipping or penalty. Bodies are drawn from the side, each frame around its own
    middle; below each, the step and the distance covered (metres). An episode that ends early has its last frames close
    together.
    """
    shown = [
        (environment, objective, run)
        for environment in drawing.environments(results)
        for objective in SHOWN
        if (run := run_of(results, environment, objective, 0)) is not None and "segments" in run.arrays
    ]
    if not shown:
        return None
    columns = max(len(run["segments"]) for _, _, run in shown)
    figure, grid = plt.subplots(len(shown), columns, figsize=(7.6, 1.35 * len(shown)), squeeze=False)
    layout = figure.get_layout_engine()
    if isinstance(layout, ConstrainedLayoutEngine):
        layout.set(h_pad=0.13)
    for row, (environment, objective, run) in zip(grid, shown, strict=True):
        strip(row, run, BLUE if objective == "clip-0.2" else ORANGE)
        name = f"{short(environment)}, {drawing.label(objective)}"
        heading = row[0].text(0, 1.05, name, transform=row[0].transAxes, fontsize=8, fontweight="bold")
        heading.set_in_layout(False)  # it reaches over the next frames
    return figure


def strip(row: Array, run: Result, colour: str) -> None:
    """One episode's frames in a row of axes, at one scale."""
    segments, radii, at = run["segments"], run["radii"], run["frame_steps"]
    middles = segments.mean(axis=(1, 2))
    spread = np.abs(segments - middles[:, None, None]).max() + radii.max() + 0.05
    for axes, body, middle, step in zip(row, segments, middles, at, strict=False):
        for (start, end), radius in zip(body, radii, strict=True):
            width = max(1.2, 60 * float(radius) / float(spread))
            axes.plot(
                [start[0], end[0]], [start[1], end[1]], color=colour, linewidth=width, solid_capstyle="round", alpha=0.8
            )
        axes.axhline(0, color=GREY, linewidth=0.6)
        axes.set(
            xlim=(middle[0] - spread, middle[0] + spread),
            ylim=(middle[1] - spread, middle[1] + spread),
            aspect="equal",
        )
        caption = f"{int(step)} · {round(float(middle[0] - middles[0, 0]), 1) + 0.0} m"
        axes.text(0.5, -0.03, caption, transform=axes.transAxes, ha="center", va="top", fontsize=6.5)
    for axes in row:
        axes.axis("off")

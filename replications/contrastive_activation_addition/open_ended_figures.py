"""Figures of what is written under a vector: scores, their price in fluency, the controls, and a few texts."""

from __future__ import annotations

import textwrap

import matplotlib.pyplot as plt
import numpy as np
from matplotlib.figure import Figure
from replications.contrastive_activation_addition.drawing import GREY, curve, ends
from replications.contrastive_activation_addition.generation_stages import (
    ANOTHER,
    HEADER,
    LAST_LAYER,
    LOGIT_BIAS,
    PROMPT_ONLY,
    RANDOM,
    UNSTEERED,
    signed,
)
from replications.contrastive_activation_addition.measures import Array, main
from replications.contrastive_activation_addition.open_ended_claims import DOWN, UP, loss, score
from replications.contrastive_activation_addition.setting import MINUS, PLUS

from reprise import Result, Results
from reprise.plotting import COLOURS

ROWS = (
    (UNSTEERED, "unsteered"),
    (UP, "the vector at +1"),
    (DOWN, "the vector at -1"),
    (RANDOM, "random vectors at +1"),
    (ANOTHER, "another behaviour's at +1"),
    (LAST_LAYER, "behind the last layer, +1"),
    (LOGIT_BIAS, "its logit bias, +1"),
    (signed(PROMPT_ONLY, PLUS), "on the prompt only, +1"),
    (signed(PROMPT_ONLY, MINUS), "on the prompt only, -1"),
    (signed(HEADER, PLUS), "a header that names it"),
    (signed(HEADER, MINUS), "a header, its contrary"),
)
WIDTH = 118


def open_ended(results: Results) -> Figure | None:
    """What is written, against the multiplier, with its price

    Left: the share of the behaviour's words (among its own and its contrary's, or all attitudes') in continuations of
    openings, the vector added from the prompt's last token on. Beside it, of the same texts, the share of grammatical
    sentences and the perplexity under the unsteered model. Thin: single behaviours; bands: 95 % over behaviours.
    """
    return _by_multiplier(results, "open_ended")


def readings_open_ended(results: Results) -> Figure | None:
    """What is written with the best of the other readings, with its price

    As the figure of open-ended text, with the vector that is read and added where it moves answers most.
    """
    return _by_multiplier(results, "readings_open_ended")


def _by_multiplier(results: Results, stage: str) -> Figure | None:
    result = main(results, stage)
    names = result.facts["scored"]
    if not names:
        return None
    x = sorted([0.0, *result.facts["multipliers"]])
    conditions = [UNSTEERED if at == 0 else f"{at:+g}" for at in x]
    found = {
        "share of the behaviour's words": _table(result, names, conditions, "score"),
        "grammatical sentences": _table(result, names, conditions, "wellformed"),
        "perplexity": np.exp([[loss(result, each, name) for each in conditions] for name in names]),
    }
    found = {title: values for title, values in found.items() if not np.isnan(values).all()}
    figure, grid = plt.subplots(1, len(found), figsize=(3.2 * len(found) + 0.4, 3.6), squeeze=False)
    for axes, (title, values) in zip(grid[0], found.items(), strict=True):
        for name, row, colour in zip(names, values, COLOURS[:6] * len(names), strict=False):
            axes.plot(x, row, color=colour, linewidth=0.9, alpha=0.85, label=name)
        if len(names) > 1:
            curve(axes, x, values, results, color="black", label="mean")
        axes.set(title=title[0].upper() + title[1:], xlabel="multiplier")
        if title == "perplexity":
            axes.set_yscale("log")
        else:
            axes.set_ylim(-0.03, 1.03)
    figure.legend(*grid[0, 0].get_legend_handles_labels(), loc="outside upper center", ncols=7, fontsize=8.5)
    return figure


def open_ended_controls(results: Results) -> Figure | None:
    """What else does it? Open-ended text under the controls

    The same measures for each condition: black, mean over behaviours with 95 % over behaviours; coloured, single
    behaviours. A vector behind the last layer and a constant on the logits change words without anything reading them;
    a vector on the prompt alone acts through attention; a header says it in words.
    """
    return _by_condition(results, "open_ended")


def readings_open_ended_controls(results: Results) -> Figure | None:
    """What else does it? Open-ended text with the best of the other readings, under the controls

    As the figure of the controls for the paper's vector.
    """
    return _by_condition(results, "readings_open_ended")


def _by_condition(results: Results, stage: str) -> Figure | None:
    result = main(results, stage)
    names = result.facts["scored"]
    if not names:
        return None
    rows = [(key, label) for key, label in ROWS if not np.isnan(score(result, key, names[0], "tokens"))]
    keys = [key for key, _ in rows]
    found = {
        "Share of the behaviour's words": _table(result, names, keys, "score"),
        "Grammatical sentences": _table(result, names, keys, "wellformed"),
        "Perplexity": np.exp([[loss(result, key, name) for key in keys] for name in names]),
    }
    found = {title: values for title, values in found.items() if not np.isnan(values).all()}
    figure, grid = plt.subplots(
        1, len(found), figsize=(2.8 * len(found) + 2.0, 0.3 * len(rows) + 1.3), sharey=True, squeeze=False
    )
    places = np.arange(len(rows))
    for axes, (title, values) in zip(grid[0], found.items(), strict=True):
        for row, colour in zip(values, COLOURS[:6] * len(names), strict=False):
            axes.scatter(row, places, s=14, color=colour, alpha=0.7, linewidths=0)
        centre, low, high = ends(values, results.seed)
        if len(names) > 1:
            axes.hlines(places, low, high, color="black", linewidth=1.3)
            axes.plot(centre, places, "D", color="black", markersize=4)
        axes.axvline(centre[0], color=GREY, linestyle="--", linewidth=0.8)
        axes.set_title(title)
        if title == "Perplexity":
            axes.set_xscale("log")
        else:
            axes.set_xlim(-0.03, 1.03)
    grid[0, 0].set_yticks(places, [label for _, label in rows], fontsize=8.5)
    grid[0, 0].invert_yaxis()
    return figure


def texts(results: Results) -> Figure | None:
    """What it writes: the first continuation of each behaviour, with the best of the readings

    The same opening and the same random numbers without a vector (0) and with the smallest and largest multiplier.
    """
    result = main(results, "readings_open_ended")
    multipliers = result.facts["multipliers"]
    if not result.facts["scored"]:
        return None
    shown = [f"{min(multipliers):+g}", UNSTEERED, f"{max(multipliers):+g}"]
    lines: list[tuple[str, str]] = []
    for name in result.facts["scored"]:
        for at, condition in enumerate(shown):
            text = " ".join(result.facts["texts"][name][condition][0].split())
            wrapped = textwrap.wrap(text, WIDTH)[:3] or [""]
            start = f"{name}  {condition}" if at == 0 else condition
            lines += [(start if row == 0 else "", part) for row, part in enumerate(wrapped)]
        lines.append(("", ""))
    figure, axes = plt.subplots(figsize=(10.4, 0.19 * len(lines) + 0.3))
    axes.set(xlim=(0, 1), ylim=(len(lines), -1))
    axes.axis("off")
    for at, (label, text) in enumerate(lines):
        axes.text(0.125, at, label, fontsize=8, fontweight="bold", va="center", ha="right", parse_math=False)
        axes.text(0.14, at, text, fontsize=8, va="center", parse_math=False)
    return figure


def _table(result: Result, names: list[str], conditions: list[str], measure: str) -> Array:
    """Means over completions [behaviour, condition]."""
    return np.array([[score(result, condition, name, measure) for condition in conditions] for name in names])

"""Figures of the vector itself: what it decodes to, what it adds up with, and other templates."""

from __future__ import annotations

import matplotlib.pyplot as plt
import numpy as np
from matplotlib.figure import Figure
from replications.function_vectors.intervals import bars
from replications.function_vectors.measures import main, of_lists

from reprise import Results
from reprise.plotting import COLOURS

SHOWN_TOKENS = 8


def decoded_tokens(results: Results) -> Figure:
    """What the vectors decode to

    The most likely tokens of every primary task's vector through the final norm and the unembedding, most likely first.
    Bold: tokens that begin an answer of the task.
    """
    result = main(results, "decoding")
    tasks = result.facts["tasks"]
    figure, axes = plt.subplots(figsize=(8.4, 0.8 + 0.3 * len(tasks)))
    axes.axis("off")
    axes.set(xlim=(0, SHOWN_TOKENS + 1.6), ylim=(-len(tasks), 1))
    for row, (task, words, named) in enumerate(zip(tasks, result.facts["words"], result["named"], strict=True)):
        axes.text(0, -row, task, va="center", fontsize=9, color="#444444")
        for column, (word, is_answer) in enumerate(zip(words[:SHOWN_TOKENS], named, strict=False)):
            text = visible(word)
            axes.text(column + 1.6, -row, text, va="center", fontsize=8.5, weight="bold" if is_answer else "normal")
    return figure


def visible(token: str) -> str:
    """A token on one short line."""
    text = token.replace("\n", "\u23ce").replace("$", r"\$").strip() or "\u2423"
    return text if len(text) <= 11 else f"{text[:10]}\u2026"


def rebuilt(results: Results) -> Figure:
    """Is a vector more than the tokens that it decodes to?

    Accuracy without examples with every primary task's vector, and with vectors of the same norm rebuilt from its
    hundred most likely tokens (mean over starts). Points on the diagonal: the tokens are enough. Lines: 95 % over the
    task's queries.
    """
    result = main(results, "decoding")
    figure, axes = plt.subplots(figsize=(4.4, 4.2))
    pairs = np.stack([result["original"], result["rebuilt"]], axis=1)
    for at in range(len(result.facts["tasks"])):
        centre, error = bars(pairs[result["task"] == at], results.seed)
        axes.errorbar(
            centre[0],
            centre[1],
            xerr=error[:, :1],
            yerr=error[:, 1:],
            fmt="o",
            color=COLOURS[0],
            alpha=0.6,
            linewidth=0.8,
        )
    axes.plot([0, 1], [0, 1], color="#555555", linewidth=0.9)
    mean = pairs.mean(axis=0)
    axes.plot(*mean, "D", color=COLOURS[1], label=f"mean ({mean[0]:.2f}, {mean[1]:.2f})")
    axes.set(
        title="Rebuilt from its tokens", xlabel="the vector", ylabel="rebuilt", xlim=(-0.03, 1.03), ylim=(-0.03, 1.03)
    )
    axes.legend(loc="upper left")
    return figure


def composition(results: Results) -> Figure | None:
    """Do vectors add up?

    Left: how well the model does the parts on lists of three with ten examples; f is the task named, and only tasks
    whose first-copy, last-copy and first-f reach the dashed line are composed. Right, where there are such: accuracy
    without examples of last-f, with first-f + last-copy - first-copy, and with its own vector. Lines: 95 % over lists.
    """
    result = of_lists(results)
    tasks, parts = result.facts["tasks"], result.facts["parts"]
    if not tasks:
        return None
    figure, (left, right) = plt.subplots(1, 2, figsize=(8.2, 1.6 + 0.32 * len(tasks)), sharey=True)
    for column, part in enumerate(parts):
        offset = 0.15 * (1.5 - column)
        place = -np.arange(len(tasks)) + offset
        left.plot(
            result["abilities"][:, column],
            place,
            "o",
            color=COLOURS[column],
            markersize=4,
            label=part.replace("_", "-"),
        )
    left.axvline(result.facts["does"], color="#555555", linestyle="--", linewidth=0.9)
    left.set(title="Ten examples", xlabel="accuracy", xlim=(-0.03, 1.03))
    left.set_yticks(-np.arange(len(tasks)), tasks)
    left.legend(loc="best", fontsize=7.5)
    values = np.stack([result[name] for name in ("plain", "composed", "own")], axis=1)
    for at in np.unique(result["task"]):
        centre, error = bars(values[result["task"] == at], results.seed)
        for column, colour in enumerate(("#777777", COLOURS[0], COLOURS[2])):
            label = ("no vector", "composed", "its own vector")[column] if at == result["task"].min() else None
            right.errorbar(
                centre[column],
                -at + 0.15 * (1 - column),
                xerr=error[:, column : column + 1],
                fmt="o",
                color=colour,
                markersize=4,
                linewidth=0.9,
                label=label,
            )
    right.set(title="last-f without examples", xlabel="accuracy", xlim=(-0.03, 1.03))
    if len(values):
        right.legend(loc="best", fontsize=7.5)
    else:
        right.text(0.5, -(len(tasks) - 1) / 2, "the model does not do the parts", ha="center", color="#555555")
    return figure


def templates(results: Results) -> Figure:
    """A vector from prompts in one template, used in others

    Accuracy without examples, with the first template's vector, and with ten examples, in every template; mean over
    primary tasks, lines 95 % over queries. Orange names: the model never saw that template in training.
    """
    result = main(results, "templates")
    names, trained = result.facts["templates"], result.facts["trained"]
    figure, axes = plt.subplots(figsize=(7.2, 1.1 + 0.26 * len(names)))
    places = -np.arange(len(names))
    for label, array, colour, mark in (
        ("no vector", "plain", "#777777", "o"),
        ("the first template's vector", "vector", COLOURS[0], "o"),
        ("ten examples", "in_context", "black", "|"),
    ):
        centre, error = bars(result[array].T, results.seed)
        axes.errorbar(centre, places, xerr=error, fmt=mark, color=colour, markersize=5, linewidth=0.9, label=label)
    axes.set_yticks(places, names, fontsize=8)
    for tick, seen in zip(axes.get_yticklabels(), trained or [True] * len(names), strict=True):
        tick.set_color("#222222" if seen else COLOURS[1])
    axes.set(title="Other templates", xlabel="accuracy", xlim=(-0.03, 1.03))
    figure.legend(loc="outside lower center", ncols=3, fontsize=8)
    return figure

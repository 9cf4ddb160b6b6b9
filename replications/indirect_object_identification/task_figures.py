"""Figures of what the model does: the task itself, with attention cut, and with prompts that mislead a circuit."""

from __future__ import annotations

import textwrap

import matplotlib.pyplot as plt
import numpy as np
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from replications.indirect_object_identification.drawing import GREY, bars, main, points, zero

from reprise import Results
from reprise.plotting import COLOURS

MEASURES = {
    "logit_difference": "Logit difference",
    "correct": "IO above S",
    "probability": "p(IO)",
    "first": "IO above all tokens",
}
PART_NAMES = {"scores": "", "held_out": "held out: "}
KINDS = {
    "plain": "no remark",
    "io_again": "a remark names IO again",
    "s_again": "a remark names S again",
}
CUTS = {
    "plain": "nothing",
    "s1": "to S1",
    "s1_and_next": "to S1 and S1+1",
    "io": "to IO (control)",
}


def performance(results: Results) -> Figure:
    """How well the model does the task

    Logit difference of the indirect object (IO) and the subject (S), shares of prompts with IO above S and above every
    other token, and the probability of IO: by template and by the order of the two names. Held out (orange): pairs of
    names, and in the tiny tier templates, that training or the search did not have. Cross: the logit difference with
    three unrelated names in the prompt. Bars: 95 % over prompts.
    """
    result = main(results, "performance")
    orders = result.facts["orders"]
    rows: list[tuple[str, str, int | None]] = []
    for part in result.facts["parts"]:
        rows.append((f"{PART_NAMES[part]}all", part, None))
        templates = np.unique(result[f"{part}.template"]).astype(int).tolist()
        rows += [(f"{PART_NAMES[part]}template {template}", part, template) for template in templates]
    figure, panels = plt.subplots(1, len(MEASURES), figsize=(9.6, 1.3 + 0.19 * len(rows)), sharey=True)
    for place, (_, part, template) in enumerate(rows):
        some = np.stack([result[f"{part}.{name}"] for name in MEASURES], axis=1)
        mine = np.full(len(some), True) if template is None else result[f"{part}.template"] == template
        for at in range(len(orders)):
            values = some[mine & (result[f"{part}.order"] == at)]
            if len(values):
                centre, error = bars(values, results.seed)
                for column, axes in enumerate(panels):
                    axes.errorbar(
                        centre[column],
                        place + 0.26 * (at - 0.5),
                        xerr=error[:, column : column + 1],
                        fmt="D" if template is None else "o",
                        color=COLOURS[(0, 2)[at]],
                        markersize=4,
                        linewidth=1,
                    )
    points(panels[0], result["abc.logit_difference"][:, None], [0], results, fmt="x", color=GREY)
    for axes, title in zip(panels, MEASURES.values(), strict=True):
        axes.set(title=title)
    for axes in panels[1:]:
        axes.set(xlim=(-0.03, 1.03))
    zero(panels[0])
    panels[0].set(xlabel="logits", ylim=(len(rows) - 0.4, -0.6))
    panels[0].set_yticks(range(len(rows)), [name for name, _, _ in rows], fontsize=7.5)
    for tick, (_, part, template) in zip(panels[0].get_yticklabels(), rows, strict=True):
        tick.set(color=COLOURS[1] if part == "held_out" else "#222222", weight="bold" if template is None else "normal")
    handles = [Line2D([], [], marker="o", linestyle="", color=COLOURS[(0, 2)[at]]) for at in range(len(orders))]
    handles.append(Line2D([], [], marker="x", linestyle="", color=GREY))
    figure.legend(handles, [*orders, "unrelated names"], loc="outside lower center", ncols=3, fontsize=8)
    return figure


def cut(results: Results) -> Figure:
    """Does it notice that a name is repeated? Attention from the second mention of S, cut

    Logit difference, and share of prompts with IO above S, when no head attends from S2 to the first mention of S (and
    the token behind it), or, as a control, to IO; what else a head attends to there is scaled up to 1. Percentages: of
    what it is without a cut. Bars: 95 % over prompts.
    """
    result = main(results, "cut")
    figure, (left, right) = plt.subplots(1, 2, figsize=(8.0, 2.6), sharey=True)
    full = float(result["plain"].mean())
    for place, name in enumerate(CUTS):
        colour = COLOURS[0] if name in ("s1", "s1_and_next") else GREY
        points(left, result[name][:, None], [place], results, color=colour)
        points(right, (result[name] > 0).astype(float)[:, None], [place], results, color=colour)
        share = f"{100 * result[name].mean() / full:.0f} %" if full else ""
        left.text(1.01, place, share, transform=left.get_yaxis_transform(), va="center", fontsize=8)
    zero(left)
    left.set(title="Logit difference", xlabel="logits", ylabel="cut from S2", ylim=(len(CUTS) - 0.5, -0.5))
    left.set_yticks(range(len(CUTS)), list(CUTS.values()))
    right.set(title="IO above S", xlabel="share of prompts", xlim=(-0.03, 1.03))
    return figure


def adversarial(results: Results) -> Figure:
    """Prompts that mislead the circuit: a remark repeats the other name

    Logit difference, and share of prompts with S above IO, of the same sentences without a remark, with a remark that
    names IO again, and with the same remark about S. On the left an example of each. Bars: 95 % over prompts.
    """
    result = main(results, "adversarial")
    figure, (texts, left, right) = plt.subplots(1, 3, figsize=(9.6, 3.2), sharey=True, width_ratios=(1.55, 1, 1))
    texts.axis("off")
    for place, (kind, label) in enumerate(KINDS.items()):
        example = textwrap.fill(f"{result.facts['examples'][kind]} \u2026", 58)
        texts.text(0, place - 0.24, label, weight="bold", fontsize=9, va="bottom", color=COLOURS[place])
        texts.text(0, place - 0.18, example, fontsize=8, va="top", color="#444444", linespacing=1.25)
        points(left, result[kind][:, None], [place], results, color=COLOURS[place])
        points(right, (result[kind] < 0).astype(float)[:, None], [place], results, color=COLOURS[place])
    zero(left)
    left.set(title="Logit difference", xlabel="logits", ylim=(len(KINDS) - 0.4, -0.6))
    right.set(title="S above IO", xlabel="share of prompts", xlim=(-0.03, 1.03))
    left.set_yticks([])
    return figure

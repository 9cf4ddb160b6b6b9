"""The figure of other readings of a vector and other places to add it."""

from __future__ import annotations

from collections.abc import Sequence

import matplotlib.pyplot as plt
import numpy as np
from matplotlib.figure import Figure
from replications.contrastive_activation_addition.drawing import GREY, at_least, curve
from replications.contrastive_activation_addition.extraction_stages import EVIDENCE, LETTER, OPTION, TEXT
from replications.contrastive_activation_addition.measures import Array, main, p_at
from replications.contrastive_activation_addition.reading_stages import AFTER, EVERYWHERE

from reprise import Result, Results
from reprise.plotting import COLOURS

NAMES = {LETTER: "at the letter (the paper)", OPTION: "at the option's word", TEXT: "of texts, before the answer"}
KINDS = (
    ("none", "questions", "black"),
    ("advance", "nothing decides", COLOURS[0]),
    ("shown", "text shows it", COLOURS[1]),
    ("contrary", "text shows the contrary", COLOURS[2]),
)
STYLES = {AFTER: "-", EVERYWHERE: "--"}


def readings(results: Results) -> Figure:
    """Where a vector is read and where it is added

    Left: the effect on answers, p(match) at +1 minus that at -1, mean over behaviours, by layer, on the items on which
    the best combination is chosen: three readings, each added from the prompt's last token on (solid, the paper) or at
    all tokens (dashed), all with one norm. Right: of the best, on the items that are scored, p(match) against the
    multiplier by what the text says, and the share of right answers to unrelated questions. Mean over behaviours, bands
    95 % over behaviours.
    """
    result = main(results, "readings")
    names, x = result.facts["behaviours"], list(range(result.facts["n_layers"]))
    figure, (left, right) = plt.subplots(1, 2, figsize=(9.2, 4.1))
    for reading, colour in zip(result.facts["readings"], COLOURS, strict=False):
        for positions, style in STYLES.items():
            effects = np.array([result[f"effect/{reading}/{positions}/{name}"].mean(axis=-1) for name in names])
            curve(left, x, effects, results, color=colour, linestyle=style)
        left.plot([], [], color=colour, label=NAMES[reading])
    for positions, style in STYLES.items():
        left.plot([], [], color=GREY, linestyle=style, label=f"added {positions}")
    left.axhline(0, color=GREY, linewidth=0.7)
    left.set(title="Effect by reading and place", xlabel="layer", ylabel="effect on p(match)")
    left.xaxis.get_major_locator().set_params(integer=True)
    at_least(left, 0.02)
    left.legend(fontsize=7.5, handlelength=2.6)
    every = sorted([0.0, *result.facts["multipliers"]])
    for kind, label, colour in KINDS:
        rows = [row for name in names if (row := _by_kind(result, name, every, kind)) is not None]
        if rows:
            curve(right, every, np.array(rows), results, color=colour, label=label)
    if "unrelated_plain" in result.arrays:
        unrelated = np.array([_unrelated(result, name, every) for name in names])
        curve(right, every, unrelated, results, color=GREY, linestyle=":", label="unrelated: right")
    best = f"{result.facts['reading']}, {result.facts['positions']}, layer {result.facts['at']}"
    right.set(title=f"Best: {best}", xlabel="multiplier", ylabel="p(match)", ylim=(-0.03, 1.05))
    figure.legend(*right.get_legend_handles_labels(), loc="outside lower right", ncols=4, fontsize=8)
    return figure


def _by_kind(result: Result, name: str, multipliers: Sequence[float], kind: str) -> Array | None:
    """Mean p(match) of a behaviour's questions of a kind, by multiplier; None where there is none."""
    kept = result[f"evidence/{name}"] == EVIDENCE.index(kind)
    if not kept.any():
        return None
    return np.array([p_at(result, name, multiplier)[kept].mean() for multiplier in multipliers])


def _unrelated(result: Result, name: str, multipliers: Sequence[float]) -> list[float]:
    """The share of right answers to unrelated questions with a behaviour's vector, by multiplier."""
    places = [result.facts["multipliers"].index(multiplier) if multiplier else None for multiplier in multipliers]
    every = [result["unrelated_plain"] if at is None else result[f"unrelated/{name}"][at] for at in places]
    return [float((p > 0.5).mean()) for p in every]

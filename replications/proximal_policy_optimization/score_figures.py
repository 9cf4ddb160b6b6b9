"""The figure of Table 1: normalised scores beside the paper's."""

from __future__ import annotations

import matplotlib.pyplot as plt
from matplotlib.figure import Figure
from replications.proximal_policy_optimization import drawing, scores
from replications.proximal_policy_optimization.claims import score
from replications.proximal_policy_optimization.drawing import GREY, short
from replications.proximal_policy_optimization.setting import OBJECTIVES, PAPER_SCORES, SWEEPS

from reprise import Results


def table_of_scores(results: Results) -> Figure | None:
    """Normalised scores of section 6.1, beside the paper's Table 1

    Filled: our mean over all runs of an objective, with its 95 % interval over runs; small dots are the means of single
    environments. Open: the paper's number, of seven environments and a million steps. 0 is the untrained policy, 1 the
    best run of each environment.
    """
    of = scores.normalised_scores(results)
    if of is None:
        return None
    shown = [objective for objective in OBJECTIVES if objective in of]
    figure, axes = plt.subplots(figsize=(7.2, 4.2))
    names = SWEEPS[results.tier].environments
    marks = ("v", "s", "^", "D", "P", "X", "*")
    for place, objective in enumerate(shown):
        kind = drawing.colour(objective)
        measured = score(objective)(results)
        assert measured is not None
        axes.plot([measured.low, measured.high], [place, place], color=kind, linewidth=2)
        axes.scatter(measured.estimate, place, color=kind, s=46, zorder=3)
        axes.scatter(PAPER_SCORES[objective], place, facecolor="white", edgecolor=kind, s=46, linewidth=1.6, zorder=3)
        for mark, values in zip(marks, of[objective].mean(axis=1), strict=False):
            axes.scatter(values, place + 0.3, color=GREY, s=14, marker=mark, alpha=0.8)
    axes.axvline(0, color=GREY, linewidth=1)
    axes.set_yticks(range(len(shown)), [drawing.label(objective) for objective in shown])
    axes.invert_yaxis()
    axes.set(title="Average normalised score", xlabel="0 untrained, 1 the best run")
    axes.scatter([], [], color="black", s=46, label="ours")
    axes.scatter([], [], facecolor="white", edgecolor="black", s=46, linewidth=1.6, label="the paper's")
    for mark, name in zip(marks, names, strict=False):
        axes.scatter([], [], color=GREY, s=14, marker=mark, label=short(name))
    figure.legend(loc="outside lower center", ncols=5)
    return figure

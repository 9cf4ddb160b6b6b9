"""Figures of the validation: whether a circuit is the whole story (faithful, complete, minimal), and backup heads."""

from __future__ import annotations

import matplotlib.pyplot as plt
import numpy as np
from matplotlib.figure import Figure
from matplotlib.patches import Patch
from replications.indirect_object_identification import circuit
from replications.indirect_object_identification.drawing import (
    GREY,
    ROLE_COLOURS,
    ROLE_NAMES,
    bars,
    counted,
    diagonal,
    heads_of,
    main,
    named,
    points,
    zero,
)

from reprise import Results
from reprise.plotting import COLOURS

MOST_GROWN = 8
KINDS = {"nothing": ("nothing", "black", "s"), "random": ("random", GREY, "o"), "greedy": ("greedy", "black", "^")}
MOST_BARS = 60


def faithfulness(results: Results) -> Figure:
    """Is it faithful? Logit difference of the circuit alone

    With everything outside replaced by its mean over sentences of three unrelated names, by template; beside the whole
    model (line), the naive circuit, all heads but the circuit's, no heads, and circuits of as many random heads in the
    same roles (each a grey dot). Percentages: of the whole model's. Bars: 95 % over prompts.
    """
    result = main(results, "faithfulness")
    rows = {
        "model": "whole model",
        "circuit": f"circuit ({counted(result.facts['circuit']['heads'])})",
        **({"everywhere": "its heads at all tokens"} if result.facts["circuit"]["words"] else {}),
        **({"discovered": "what the search proposed"} if result.facts["is_published"] else {}),
        "naive": f"naive circuit ({counted(result.facts['naive']['heads'])})",
        "complement": "all but the circuit",
        "nothing": "no heads",
        "random": "random circuits",
    }
    figure, axes = plt.subplots(figsize=(7.4, 0.9 + 0.36 * len(rows)))
    full = float(result["model"].mean())
    for place, name in enumerate(rows):
        values = result[name]
        if name == "random":
            means = values.mean(axis=0)
            axes.plot(means, np.full(len(means), place), "o", color=GREY, markersize=4, alpha=0.5, markeredgewidth=0)
            axes.plot(means.mean(), place, "|", color="black", markersize=13, markeredgewidth=1.6)
        else:
            points(axes, values[:, None], [place], results, color=COLOURS[2 if name == "naive" else 0])
        share = f"{100 * values.mean() / full:.0f} %" if full else ""
        axes.text(1.01, place, share, transform=axes.get_yaxis_transform(), va="center", fontsize=8.5)
    axes.axvline(full, color="#555555", linestyle="--", linewidth=0.9)
    zero(axes)
    axes.set_yticks(range(len(rows)), list(rows.values()))
    axes.set(title="Faithfulness", xlabel="logit difference", ylim=(len(rows) - 0.5, -0.5))
    return figure


def completeness(results: Results) -> Figure:
    """Is it complete? The circuit and the model lose the same when heads are taken out of both

    One dot a subset of the circuit's heads: logit difference of the model without it, and of the circuit without it.
    On the line: what the subset does, it does within the circuit. Greedy subsets were searched for, on other prompts,
    to be far from it. Left: the circuit; right: the naive one. Lines: 95 % over prompts.
    """
    result = main(results, "completeness")
    figure, panels = plt.subplots(1, 2, figsize=(8.0, 4.1), sharex=True, sharey=True)
    for axes, (name, title) in zip(panels, (("circuit", "The circuit"), ("naive", "Naive circuit")), strict=True):
        kinds = [kind for kind, _ in result.facts["subsets"][name]]
        of_model, x_error = bars(result[f"{name}.model"], results.seed)
        of_circuit, y_error = bars(result[name], results.seed)
        for at, kind in enumerate(kinds):
            label, colour, marker = KINDS.get(kind, (None, ROLE_COLOURS.get(kind, GREY), "D"))
            axes.errorbar(
                of_model[at],
                of_circuit[at],
                xerr=x_error[:, at : at + 1],
                yerr=y_error[:, at : at + 1],
                fmt=marker,
                color=colour,
                markersize=4.5,
                linewidth=0.7,
                alpha=0.6 if kind == "random" else 1.0,
                label=label or ROLE_NAMES.get(kind, kind),
            )
        gap = np.abs(of_model - of_circuit).max(initial=0)
        axes.set(title=f"{title} (largest gap {gap:.2f})", xlabel="model without the subset")
    diagonal(*panels)
    panels[0].set_ylabel("circuit without the subset")
    entries = {
        label: handle for axes in panels for handle, label in zip(*axes.get_legend_handles_labels(), strict=True)
    }
    figure.legend(entries.values(), entries.keys(), loc="outside lower center", ncols=5, fontsize=8)
    return figure


def minimality(results: Results) -> Figure:
    """Is it minimal? What each head is worth within the circuit

    How much the logit difference falls when a head goes, in the circuit without a set of other heads that shows this
    head most (chosen on other prompts among nothing, the rest of its role, the movers, and both). Below 0: the head
    works against the answer. Colours: roles. Bars: 95 % over prompts.
    """
    result = main(results, "minimality")
    heads, roles = heads_of(result.facts["heads"]), [of[0] for of in result.facts["roles"]]
    fall = result["without_k"] - result["without_both"]
    ranks = {role: at for at, role in enumerate(circuit.ROLES)}
    order = sorted(range(len(heads)), key=lambda at: (ranks[roles[at]], -abs(fall[:, at].mean())))
    centre, error = bars(fall[:, order], results.seed)
    figure, axes = plt.subplots(figsize=(max(6.4, min(12.0, 1.6 + 0.3 * len(order))), 3.4))
    colours = [ROLE_COLOURS[roles[at]] for at in order]
    axes.bar(range(len(order)), centre, yerr=error, color=colours, error_kw={"lw": 0.9})
    every = 1 + len(order) // MOST_BARS
    labels = [named(heads[at]) for at in order]
    axes.set_xticks(range(0, len(order), every), labels[::every], rotation=90, fontsize=8)
    zero(axes, vertical=False)
    axes.grid(visible=False, axis="x")
    axes.set(title="Minimality", xlabel="head", ylabel="logit difference lost")
    shown = [role for role in circuit.ROLES if role in roles]
    handles = [Patch(color=ROLE_COLOURS[role]) for role in shown]
    names = [ROLE_NAMES[role] for role in shown]
    figure.legend(handles, names, loc="outside upper center", ncols=4, fontsize=8)
    return figure


def backup(results: Results) -> Figure | None:
    """Backup heads: which heads step in when the movers are knocked out

    Direct effect of every head on the logit difference, before and after the movers are replaced by their mean over
    sentences of three unrelated names: of all heads (left; above the line it grew), and of the movers and the eight
    heads that grew most (middle). Right: logit difference of the model. Lines: 95 % over prompts.
    """
    result = main(results, "backup")
    movers, n_heads = heads_of(result.facts["movers"]), result.facts["n_heads"]
    if not movers:
        return None
    before, after = (result[f"direct.{name}"].reshape(len(result["before"]), -1) for name in ("before", "after"))
    knocked = [layer * n_heads + head for layer, head in movers]
    growth = (after - before).mean(axis=0)
    others = [at for at in np.argsort(-growth, kind="stable").tolist() if at not in knocked]
    grown = [at for at in others[:MOST_GROWN] if growth[at] > 0]
    rows = [*knocked[:MOST_GROWN], *grown]
    figure, panels = plt.subplots(1, 3, figsize=(10.2, max(3.6, 1.2 + 0.2 * len(rows))), width_ratios=(1.7, 1.5, 0.8))
    for some, colour, label in (
        (others, "#555555", "other heads"),
        (grown, ROLE_COLOURS[circuit.BACKUP], "grew most"),
        (knocked, ROLE_COLOURS[circuit.MOVERS], "movers"),
    ):
        panels[0].plot(
            before[:, some].mean(axis=0), after[:, some].mean(axis=0), "o", color=colour, markersize=4, label=label
        )
    ends = [
        min(panels[0].get_xlim()[0], panels[0].get_ylim()[0]),
        max(panels[0].get_xlim()[1], panels[0].get_ylim()[1]),
    ]
    panels[0].plot(ends, ends, color="#555555", linewidth=0.9, zorder=0)
    panels[0].set(title="Direct effect", xlabel="before (logits)", ylabel="without the movers (logits)")
    panels[0].legend(loc="best", fontsize=8)
    places = np.arange(len(rows))
    points(panels[1], before[:, rows], places - 0.14, results, color="#999999", label="before", markersize=4)
    points(
        panels[1], after[:, rows], places + 0.14, results, color=COLOURS[0], label="without the movers", markersize=4
    )
    zero(panels[1])
    panels[1].set(title="Movers, and what grew", xlabel="logits", ylim=(len(rows) - 0.4, -0.6))
    panels[1].set_yticks(places, [named(divmod(at, n_heads)) for at in rows], fontsize=8)
    for tick, at in zip(panels[1].get_yticklabels(), rows, strict=True):
        tick.set_color(ROLE_COLOURS[circuit.MOVERS] if at in knocked else "#222222")
    panels[1].legend(loc="best", fontsize=8)
    centre, error = bars(np.stack([result["before"], result["after"]], axis=1), results.seed)
    panels[2].bar([0, 1], centre, 0.55, yerr=error, color=["#999999", COLOURS[0]], error_kw={"lw": 1})
    panels[2].set_xticks([0, 1], ["before", f"without\n{len(movers)} mover{'s' if len(movers) > 1 else ''}"])
    panels[2].set(title="Model", ylabel="logit difference", xlim=(-0.6, 1.6))
    panels[2].grid(visible=False, axis="x")
    zero(panels[2], vertical=False)
    return figure

"""Figures of what the heads that were found do: where they attend, what they write and copy, and what they signal."""

from __future__ import annotations

import matplotlib.pyplot as plt
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from replications.indirect_object_identification import circuit
from replications.indirect_object_identification.circuit import Head
from replications.indirect_object_identification.drawing import (
    GREY,
    ROLE_COLOURS,
    ROLE_NAMES,
    bars,
    found_roles,
    head_map,
    heads_of,
    heat,
    main,
    map_panels,
    named,
    role_legend,
    zero,
)
from replications.indirect_object_identification.path_stages import PUBLISHED

from reprise import Result, Results
from reprise.plotting import COLOURS

MOST_SCATTERS, MOST_OF_A_ROLE = 6, 6
# The word at which a role's heads work where no step of path patching says so.
WORD_OF = {
    circuit.MOVERS: "END",
    circuit.NEGATIVE: "END",
    circuit.INHIBITION: "END",
    circuit.PREVIOUS: "S1+1",
}
EARLY = {
    "previous_token": ("Previous token", circuit.PREVIOUS),
    "duplicate_token": ("Duplicate token", circuit.DUPLICATE),
    "induction": ("Induction", circuit.INDUCTION),
}
SIDES = {1: "stands first", -1: "stands second"}


def attention(results: Results) -> Figure | None:
    """Where the heads that were found attend

    Attention of every head that path patching found, from the word at which its role works to the five words, at
    most six of a role; mean over prompts. What is missing to 1 goes to other tokens.
    """
    roles, result = found_roles(results), main(results, "attention")
    rows = [(role, head) for role, heads in roles.items() for head in heads[:MOST_OF_A_ROLE]]
    if not rows:
        return None
    words = result.facts["words"]
    word_of = {**dict.fromkeys(roles, main(results, "paths_to_inhibition").facts["word"]), **WORD_OF}
    mean = result["attention"].mean(axis=0)
    shown = np.array([mean[head][words.index(word_of[role])] for role, head in rows])
    figure, axes = plt.subplots(figsize=(6.4, 1.2 + 0.27 * len(rows)))
    heat(axes, shown, label="share of attention", top=1.0)
    axes.set_xticks(range(len(words)), [f"to {word}" for word in words])
    labels = [f"{ROLE_NAMES[role]} {named(head)}, from {word_of[role]}" for role, head in rows]
    axes.set_yticks(range(len(rows)), labels, fontsize=8)
    for tick, (role, _) in zip(axes.get_yticklabels(), rows, strict=True):
        tick.set_color(ROLE_COLOURS[role])
    axes.set(title="Attention")
    return figure


def movers(results: Results) -> Figure | None:
    """Name movers write the name that they attend to

    One dot a prompt and name: attention of a head from the last token to IO (or to S, both times that it stands there),
    and what its output adds along the unembedding of that name. Negative movers write against it. r is the correlation
    over all dots.
    """
    chosen = movers_shown(results)
    if not chosen:
        return None
    result = main(results, "attention")
    words = result.facts["words"]
    end, to = words.index("END"), ((words.index("IO"),), (words.index("S1"), words.index("S2")))
    columns = min(3, len(chosen))
    rows = -(-len(chosen) // columns)
    figure, grid = plt.subplots(rows, columns, figsize=(2.9 * columns + 0.6, 2.5 * rows + 0.6), squeeze=False)
    for axes, (head, role) in zip(grid.flat, chosen, strict=False):
        attended = [result["attention"][:, head[0], head[1], end, list(keys)].sum(axis=1) for keys in to]
        written = [result["projection"][:, head[0], head[1], name] for name in range(len(to))]
        for name, colour, x, y in zip(("IO", "S"), COLOURS, attended, written, strict=False):
            axes.plot(x, y, "o", color=colour, markersize=3, alpha=0.55, markeredgewidth=0, label=name)
        together = correlation(np.concatenate(attended), np.concatenate(written))
        axes.set_title(f"{named(head)}{together}", color=ROLE_COLOURS[role])
        axes.set(xlim=(-0.03, 1.03))
        zero(axes, vertical=False)
    for axes in list(grid.flat)[len(chosen) :]:
        axes.set_visible(False)
    figure.supxlabel("attention from END to the name", fontsize=9.5)
    figure.supylabel("output along the name", fontsize=9.5)
    figure.legend(*grid[0, 0].get_legend_handles_labels(), loc="outside upper right", ncols=2, fontsize=8.5)
    return figure


def movers_shown(results: Results) -> list[tuple[Head, str]]:
    """At most six heads: the movers, and up to two negative ones; those that are published where they are judged."""
    of_paper = main(results, "faithfulness").facts
    roles = of_paper["circuit"]["roles"] if of_paper["is_published"] else found_roles(results)
    positive, negative = (heads_of(roles.get(role, ())) for role in (circuit.MOVERS, circuit.NEGATIVE))
    negative = negative[:2]
    positive = positive[: MOST_SCATTERS - len(negative)]
    return [(head, circuit.MOVERS) for head in positive] + [(head, circuit.NEGATIVE) for head in negative]


def correlation(x: object, y: object) -> str:
    """As words behind a title; none where one of the two does not vary."""
    both = np.array([x, y], dtype=float)
    return f", r = {np.corrcoef(both)[0, 1]:.2f}" if (both.std(axis=1) > 0).all() else ""


def copying(results: Results) -> Figure:
    """Which heads copy a name, and which write against it

    Share of names for which a head, reading nothing but the name behind the first layer, has that name among its
    highest logits (left), or among its lowest (right); over prompts and the three places of names. Framed: the movers
    and negative movers that path patching found.
    """
    result = main(results, "copying")
    k = result.facts["k"]
    roles = found_roles(results, circuit.MOVERS, circuit.NEGATIVE)
    figure, every = map_panels(2, result["top"].shape[2:])
    for axes, name, title in zip(every, ("top", "bottom"), (f"In the top {k}", f"In the bottom {k}"), strict=True):
        head_map(axes, result[name].mean(axis=(0, 1)), label="share of names", roles=roles, top=1.0)
        axes.set(title=title)
    role_legend(figure, roles)
    return figure


def early(results: Results) -> Figure:
    """Early heads on repeated random tokens

    Mean attention to the token before, to the same token in the first half, and to the token behind that one. Framed:
    the heads that path patching on the task found in the role.
    """
    result = main(results, "early")
    figure, every = map_panels(len(EARLY), result["induction"].shape[1:])
    found: dict[str, None] = {}
    for axes, (name, (title, role)) in zip(every, EARLY.items(), strict=True):
        roles = found_roles(results, role)
        found |= dict.fromkeys(roles)
        head_map(axes, result[name].mean(axis=0), label="attention", roles=roles, top=1.0)
        axes.set(title=title)
    role_legend(figure, found)
    return figure


def signals(results: Results) -> Figure | None:
    """What the S-inhibition heads say: which name is repeated, and where it stood

    Left: logit difference when their output at the last token is from a sentence whose repeated name is another one, or
    stands at the place of IO. Right: what each signal weighs in it, fitted to every prompt. Top: the heads that path
    patching found; below, where there are any, the published ones. Bars: 95 % over prompts.
    """
    result = main(results, "signals")
    readings = [prefix for prefix in ("", PUBLISHED) if f"{prefix}weights" in result.arrays]
    if not readings:
        return None
    figure, grid = plt.subplots(
        len(readings), 2, figsize=(8.2, 2.7 * len(readings) + 0.7), width_ratios=(1.7, 1), squeeze=False, sharex="col"
    )
    for (left, right), prefix in zip(grid, readings, strict=True):
        _signals(left, right, result, prefix, results.seed)
    grid[-1, 0].set_xlabel("token: whose name is repeated")
    figure.legend(*grid[0, 0].get_legend_handles_labels(), loc="outside lower center", ncols=2, fontsize=8.5)
    return figure


def _signals(left: Axes, right: Axes, result: Result, prefix: str, seed: int) -> None:
    pairs = [tuple(pair) for pair in result.facts["signals"]]
    centre, error = bars(result[f"{prefix}logit_difference"], seed)
    for side, colour in ((1, COLOURS[0]), (-1, COLOURS[1])):
        some = sorted((at for at, pair in enumerate(pairs) if pair[0] == side), key=lambda at: -pairs[at][1])
        left.errorbar(
            [-pairs[at][1] - 0.03 * side for at in some],
            centre[some],
            yerr=error[:, some],
            marker="o",
            markersize=4.5,
            color=colour,
            label=f"position: that of {'S1' if side == 1 else 'IO'}",
        )
    of = "Published heads" if prefix else "Heads found"
    names = [named(head) for head in heads_of(result.facts[f"{prefix}heads"])]
    shown = names if len(names) <= 6 else [*names[:6], "\u2026"]
    left.set(title=f"{of}: {', '.join(shown)}")
    left.set(ylabel="logit difference", xlim=(-1.3, 1.3))
    left.set_xticks([-1, 0, 1], ["the subject's", "somebody else's", "the indirect object's"])
    zero(left, vertical=False)
    weight, error = bars(result[f"{prefix}weights"], seed)
    right.errorbar([0, 1], weight, yerr=error, fmt="o", color=COLOURS[2], markersize=5.5)
    for at, value in enumerate(weight):
        right.annotate(
            f"{value:.2f}", (at, value), xytext=(8, 0), textcoords="offset points", va="center", fontsize=8.5
        )
    right.set(title="Weights", ylabel="logits", xlim=(-0.5, 1.6))
    right.set_xticks([0, 1], ["position", "token"])
    right.axhline(0, color=GREY, linewidth=0.8)

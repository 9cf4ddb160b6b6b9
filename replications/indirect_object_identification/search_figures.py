"""Figures of the search: which heads, words and paths the answer rests on."""

from __future__ import annotations

import textwrap

import matplotlib.pyplot as plt
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from replications.indirect_object_identification import circuit
from replications.indirect_object_identification.drawing import (
    found_roles,
    head_map,
    heat,
    integers,
    main,
    map_panels,
    map_size,
    mark,
    not_run,
    points,
    role_legend,
    roles_of,
    zero,
)
from replications.indirect_object_identification.path_stages import PUBLISHED

from reprise import Results
from reprise.plotting import COLOURS

LEAST = 0.02  # of the logit difference: what the scale of an effect goes to at least
STEPS = (
    ("paths_to_logits", "effects", "To the logits"),
    ("paths_to_queries", "effects", "To the movers' queries"),
    ("paths_to_inhibition", "keys.effects", "To S-inhibition's keys"),
    ("paths_to_inhibition", "values.effects", "To S-inhibition's values"),
    ("paths_to_induction", "effects", "To induction's keys"),
)
SOUGHT = {
    "paths_to_queries": (circuit.INHIBITION,),
    "paths_to_inhibition": (circuit.INDUCTION, circuit.DUPLICATE),
    "paths_to_induction": (circuit.PREVIOUS,),
}


def attribution(results: Results) -> Figure:
    """What writes the answer: direct attribution of the logit difference

    What every head (left), and every layer's attention and MLP (right), adds at the last token to the logit difference,
    by the direct path alone; elsewhere: the embedding and all biases. Framed: what path patching to the logits found.
    Bars: 95 % over prompts.
    """
    result = main(results, "attribution")
    heads = result["heads"].mean(axis=0)
    width, height = map_size(*heads.shape)
    figure, (left, right) = plt.subplots(
        1, 2, figsize=(width + 5.4, max(2.4, height + 1.2)), width_ratios=(width + 1.0, 2.8)
    )
    roles = found_roles(results, circuit.MOVERS, circuit.NEGATIVE)
    head_map(left, heads, label="logits", roles=roles)
    left.set(title=f"Heads (logit difference {result['total'].mean():.2f})")
    layers = np.arange(len(heads))
    for at, (name, label) in enumerate((("attention", "attention"), ("mlps", "MLP"))):
        points(right, result[name], layers + 0.2 * (at - 0.5), results, color=COLOURS[at], label=label, markersize=4)
    zero(right)
    right.plot([], [], " ", label=f"elsewhere {result['rest'].mean():.2f}")
    right.set(title="Layers", xlabel="logits", ylabel="layer")
    right.set_ylim(len(layers) - 0.5, -0.5)
    integers(right.yaxis, len(layers))
    right.legend(loc="upper left", bbox_to_anchor=(1, 1), fontsize=8)
    role_legend(figure, roles)
    return figure


def stream(results: Results) -> Figure:
    """Where the answer is on its way: activation patching of the residual stream

    Change of the logit difference when the stream before a layer, at one word, is that of the same sentence with three
    unrelated names. Mean over prompts.
    """
    result = main(results, "stream")
    words = result.facts["words"]
    effects = result["effects"].mean(axis=0).T
    width, height = map_size(len(effects), len(words))
    figure, axes = plt.subplots(figsize=(max(4.2, width + 1.8), height + 1.2))
    heat(axes, effects, label="logits")
    axes.set(title=f"Stream (logit difference {result['clean'].mean():.2f})", xlabel="word", ylabel="layer")
    axes.set_xticks(range(len(words)), words)
    integers(axes.yaxis, len(effects))
    return figure


def heads(results: Results) -> Figure:
    """Which heads the answer rests on, with all that follows from them: activation patching

    Change of the logit difference when a head's output is that of the same sentence with three unrelated names: at the
    last token, or at all tokens; and when only where it attends from the last token is. Mean over prompts. Framed: the
    roles that path patching found.
    """
    outputs, patterns = main(results, "heads"), main(results, "patterns")
    panels = (
        ("Output at END", outputs["effects"]),
        ("Output at all tokens", outputs["everywhere.effects"]),
        ("Attention from END", patterns["effects"]),
    )
    roles = found_roles(results)
    figure, every = map_panels(3, outputs["effects"].shape[1:])
    for axes, (title, effects) in zip(every, panels, strict=True):
        head_map(axes, effects.mean(axis=0), label="logits", roles=roles)
        axes.set(title=title)
    role_legend(figure, roles, columns=8)
    return figure


def paths(results: Results) -> Figure:
    """The circuit, backwards: path patching from the logits to the heads that the answer begins with

    Change of the logit difference when one head's output at a word is that of the same sentence with three unrelated
    names, and only the named inputs of the heads framed in the panel before read it. Mean over prompts. Framed: what
    each step finds, from which the next one goes on. Every panel has a scale of its own, of at least 2 % of the logit
    difference.
    """
    figure, every = map_panels(len(STEPS), _shape(results))
    roles: dict[str, None] = {}
    for axes, step in zip(every, STEPS, strict=True):
        roles |= dict.fromkeys(_step(axes, results, step, ""))
    role_legend(figure, roles, columns=8)
    return figure


def paths_from_published(results: Results) -> Figure | None:
    """The same steps from the heads that the paper names

    As the figure before; the receivers of every step are the published heads of their role, so that a step does not
    hang on the ones before it. Framed: what the step finds. Dots: the published heads that it should find.
    """
    steps = [step for step in STEPS if f"{PUBLISHED}receivers" in main(results, step[0]).facts]
    if not steps:
        return None
    figure, every = map_panels(len(steps), _shape(results), columns=2)
    roles: dict[str, None] = {}
    for axes, step in zip(every, steps, strict=True):
        roles |= dict.fromkeys(_step(axes, results, step, PUBLISHED))
        mark(axes, [head for role in SOUGHT[step[0]] for head in circuit.GPT2_SMALL.roles[role]])
    role_legend(figure, roles, columns=8)
    return figure


def _shape(results: Results) -> tuple[int, int]:
    facts = main(results, "paths_to_logits").facts
    return facts["n_layers"], facts["n_heads"]


def _step(axes: Axes, results: Results, step: tuple[str, str, str], prefix: str) -> list[str]:
    """A panel; returns the roles that are framed in it."""
    stage, name, title = step
    result = main(results, stage)
    axes.set_title(title)
    if f"{prefix}{name}" not in result.arrays:
        not_run(axes, textwrap.fill(f"not run: {result.facts[f'{prefix}why_not']}", 26))
        return []
    roles = roles_of(result.facts[f"{prefix}roles"])
    least = LEAST * abs(float(result[f"{prefix}clean"].mean()))
    head_map(axes, result[f"{prefix}{name}"].mean(axis=0), label="logits", roles=roles, least=least)
    axes.set_xlabel(f"head (its output at {result.facts[f'{prefix}word']})")
    return list(roles)

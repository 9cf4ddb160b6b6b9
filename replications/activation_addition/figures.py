"""The figures of Turner et al. 2023, from stored results alone.

Each shows the first model of the run. Intervals are 95 % bootstraps over the units that the claims resample: topics,
or prompts or completions where there are few.
"""

from __future__ import annotations

import matplotlib.pyplot as plt
from matplotlib.figure import Figure
from replications.activation_addition.claims import condition, interval, perplexity_quotient
from replications.activation_addition.drawing import (
    CONTROL,
    LABELS,
    PLAIN,
    STEERED,
    WAYS,
    bars_of,
    first,
    frame,
    heat_map,
    maps,
    whiskers,
)
from replications.activation_addition.material import MOOD, TOPIC
from replications.activation_addition.text_figures import knowledge, perplexity

from reprise import Results
from reprise.experiment import Draw
from reprise.plotting import COLOURS


def topics_by_layer(results: Results) -> Figure:
    """Topics: where the vector acts, and how strongly

    Completions written with a topic's vector in one layer, mean over topics: the share of the topic's words, the share
    of grammatical sentences (where there is a grammar), and the perplexity under the unsteered model over that of
    unsteered completions. Above: the pair's vector at the front of the prompt, as in the paper; below: its mean
    direction at every position. Framed: the cell that is judged, which has the highest share among those whose ratio
    is at most 2; it is scored on other prompts.
    """
    return _by_layer(results, TOPIC)


def moods_by_layer(results: Results) -> Figure:
    """Moods: where the vector acts, and how strongly

    As for topics, mean over both directions of mood; the share is that of the wanted mood, one half by chance.
    """
    return _by_layer(results, MOOD)


def _by_layer(results: Results, kind: str) -> Figure:
    result = first(results, "choose")
    layers, coefficients = result.facts["layers"], result.facts["coefficients"]
    columns = list(maps(result, "front", kind))
    height = max(2.5, 0.24 * len(layers) + 1.2)
    figure, grid = plt.subplots(
        2, len(columns), figsize=(3.2 * len(columns) + 0.4, 2 * height), squeeze=False, sharey=True
    )
    for row, (way, title) in zip(grid, WAYS.items(), strict=True):
        chosen = result.facts["chosen"][way][kind]
        for axes, (name, values) in zip(row, maps(result, way, kind).items(), strict=True):
            heat_map(axes, values, layers, coefficients, ratio=name == "perplexity ratio")
            frame(axes, layers.index(chosen["layer"]), coefficients.index(chosen["coefficient"]))
            axes.set_title(f"{title}\n{name}" if axes is row[0] else f"\n{name}", fontsize=9.5)
        row[0].set_ylabel("layer")
    for axes in grid[-1]:
        axes.set_xlabel("coefficient")
    return figure


def topics_controls(results: Results) -> Figure:
    """Topics: the vector beside its controls

    The share of the topic's words, of grammatical sentences (where there is a grammar), and perplexity under the
    unsteered model over that of unsteered completions, at the layer and the coefficient that were chosen on other
    prompts. Blue: the vector. Orange: controls. Grey and dashed: unsteered. At the front the vector touches no position
    from which a token is predicted, so that "prompt only" is the same; behind the last layer and as a bias it can act
    on the logits alone.
    """
    return _controls(results, TOPIC)


def moods_controls(results: Results) -> Figure:
    """Moods: the vector beside its controls

    As for topics; the share is that of the wanted mood's words among those of both moods, over both directions.
    """
    return _controls(results, MOOD)


def _controls(results: Results, kind: str) -> Figure:
    result = first(results, "completions")
    columns = ["success", "wellformed"] if f"front.{kind}.wellformed" in result.arrays else ["success"]
    titles = {"success": "share", "wellformed": "grammatical sentences"}
    names = result.facts["conditions"]
    heights = [len(names[way]) for way in WAYS]
    figure, grid = plt.subplots(
        2,
        len(columns) + 1,
        figsize=(9.6, 0.27 * sum(heights) + 1.9),
        squeeze=False,
        sharey="row",
        height_ratios=heights,
    )
    for row, (way, title) in zip(grid, WAYS.items(), strict=True):
        chosen = result.facts["chosen"][way][kind]
        for place, name in enumerate(names[way]):
            colour = STEERED if name == "vector" else PLAIN if name == "unsteered" else CONTROL
            for axes, what in zip(row, columns, strict=False):
                if measured := interval(results.seed, condition(result, way, kind, name, what)):
                    whiskers(axes, place, measured, colour=colour)
            if ratio := perplexity_quotient(result, way, kind, name, results.seed):
                whiskers(row[-1], place, ratio, colour=colour)
        for axes, what in zip(row, [*columns, "perplexity ratio"], strict=True):
            if what in columns:
                axes.set_xlim(-0.02, 1.03)
                if measured := interval(results.seed, condition(result, way, kind, "unsteered", what)):
                    axes.axvline(measured.estimate, color=PLAIN, linestyle="--", linewidth=0.9)
            else:
                axes.axvline(1.0, color=PLAIN, linestyle="--", linewidth=0.9)
                axes.set_xscale("log")
                highest = axes.get_xlim()[1]
                ticks = [tick for tick in ((1, 3, 10, 30, 100) if highest > 4 else (0.7, 1, 1.4, 2)) if tick <= highest]
                axes.set_xticks(ticks, [f"{tick:g}" for tick in ticks])
                axes.set_xlim(0.7, None)
                axes.minorticks_off()
            axes.set_title(f"\n{titles.get(what, what)}", fontsize=9.5)
        at = f"layer {chosen['layer']}, coefficient {chosen['coefficient']:g}"
        row[0].set_title(f"{title}, {at}\nshare", fontsize=9.5)
        row[0].set_yticks(range(len(names[way])), [LABELS.get(name, name) for name in names[way]], fontsize=8.5)
        row[0].invert_yaxis()
    return figure


def per_topic(results: Results) -> Figure:
    """Topic by topic and mood by mood

    The share of the words of each topic (of the wanted mood) without a vector, with another topic's vector at the
    front, with its own vector at the front and at every position, and behind a text that names it. Bars: 95 % intervals
    over prompts, or over completions of a single prompt.
    """
    result = first(results, "completions")
    shown = (
        ("unsteered", "front", "unsteered", PLAIN),
        ("another topic's vector, front", "front", "another vector", COLOURS[4]),
        ("vector, front", "front", "vector", COLOURS[0]),
        ("vector, everywhere", "everywhere", "vector", COLOURS[2]),
        ("named in words", "front", "prefix", COLOURS[3]),
    )
    latents = [(kind, place, name) for kind, of in result.facts["latents"].items() for place, name in enumerate(of)]
    figure, axes = plt.subplots(figsize=(max(6.5, 1.0 * len(latents) + 1.2), 3.9))
    width = 0.8 / len(shown)
    for offset, (label, way, name, colour) in enumerate(shown):
        places, measured = [], []
        for at, (kind, place, _) in enumerate(latents):
            values = condition(result, way, kind, name)[place][None]
            if (found := interval(results.seed, values)) is not None:
                places.append(at + width * (offset - (len(shown) - 1) / 2))
                measured.append(found)
        if measured:
            axes.bar(
                places,
                [each.estimate for each in measured],
                0.92 * width,
                yerr=bars_of(measured),
                color=colour,
                error_kw={"elinewidth": 0.8, "ecolor": "#222222"},
                label=label,
            )
    axes.set_xticks(range(len(latents)), [f"{name}\n({kind})" for kind, _, name in latents], fontsize=8.5)
    axes.set(ylabel="share", ylim=(0, 1.05))
    axes.grid(visible=False, axis="x")
    figure.legend(*axes.get_legend_handles_labels(), loc="outside upper center", ncols=3, fontsize=8.5)
    return figure


FIGURES: dict[str, Draw] = {
    "topics_by_layer": topics_by_layer,
    "topics_controls": topics_controls,
    "per_topic": per_topic,
    "perplexity": perplexity,
    "moods_by_layer": moods_by_layer,
    "moods_controls": moods_controls,
    "knowledge": knowledge,
}

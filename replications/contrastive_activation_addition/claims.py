"""What each claim of paper.toml measures, from stored results alone.

An effect is p(match) at multiplier +1 minus that at -1, at the layer that was chosen on other items; of an item, the
mean over its forms.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
from replications.contrastive_activation_addition.extraction_stages import EVIDENCE
from replications.contrastive_activation_addition.measures import (
    Array,
    by_item,
    control_effects,
    effects,
    gate_of,
    main,
    mean,
    of_item,
    of_items,
    of_model,
    over,
)
from replications.contrastive_activation_addition.open_ended_claims import OPEN_ENDED_CLAIMS
from replications.contrastive_activation_addition.setting import MINUS, PLUS
from replications.contrastive_activation_addition.table_claims import TABLE_CLAIMS

from reprise import Measurement, Results, bootstrap
from reprise.experiment import Measure

REPEATING = "stories-4l"  # the model whose texts repeat the option behind its letter
LEAST = 0.02  # of an effect, to ask how much of it is left elsewhere
Where = Sequence[tuple[str, int]]
CONTRADICTED: Where = (("evidence", EVIDENCE.index("contrary")),)
UNDECIDED: Where = (("evidence", EVIDENCE.index("advance")),)


def gate_behaviour(results: Results) -> Measurement | None:
    """The share of right answers of the behaviour for which it is lowest."""
    found = gate_of(main(results, "gate"))
    if not found:
        return None
    worst = min(found, key=lambda name: float(found[name].mean()))
    return bootstrap(np.mean, found[worst].mean(axis=1), over=f"items of {worst}", seed=results.seed)


def gate_form(results: Results) -> Measurement | None:
    """The share of right answers of the form for which it is lowest, over the items of all behaviours."""
    found = gate_of(main(results, "gate"))
    if not found:
        return None
    right = np.concatenate(list(found.values()))
    return bootstrap(np.mean, right[:, right.mean(axis=0).argmin()], over="items", seed=results.seed)


def steers(where: Where = (), stage: str = "sweep") -> Measure:
    """The effect, mean over behaviours."""
    return lambda results: mean(results, effects(main(results, stage), where=where))


def lower_of(form: str, stage: str = "sweep") -> Measure:
    """The effect in the form of the questions in which it is smaller; None where there is one alone."""

    def measure(results: Results) -> Measurement | None:
        result = main(results, stage)
        sides = [effects(result, where=((form, value),)) for value in (0, 1)]
        if not all(sides):
            return None
        return mean(results, min(sides, key=_mean))

    return measure


def control(condition: str, stage: str = "controls") -> Measure:
    """The effect of something that should have none, mean over behaviours."""
    return lambda results: mean(results, control_effects(main(results, stage), condition))


def every_behaviour(results: Results) -> Measurement | None:
    """The smaller of the two steps from -1 to 0 and from 0 to +1, of the behaviour for which it is smallest."""
    result = main(results, "sweep")
    steps = {
        (name, end): of_item(result, name, high) - of_item(result, name, low)
        for name in result.facts["behaviours"]
        for end, (low, high) in {"down": (MINUS, 0.0), "up": (0.0, PLUS)}.items()
    }
    worst = min(steps, key=lambda key: float(steps[key].mean()))
    return of_items(results, steps[worst], worst[0])


def intermediate_layer(results: Results) -> Measurement | None:
    """The effect at the chosen layer less the higher of those at the first and the last."""
    result = main(results, "sweep")
    chosen = effects(result)
    ends = [effects(result, layer) for layer in (0, result.facts["n_layers"] - 1)]
    highest = max(ends, key=_mean)
    return mean(results, {name: chosen[name] - highest[name] for name in chosen})


def separable(results: Results) -> Measurement | None:
    """Held-out accuracy at the chosen layer, mean over behaviours."""
    return mean(results, _right(results, main(results, "sweep").facts["layer"]))


def separable_later(results: Results) -> Measurement | None:
    """Held-out accuracy at the chosen layer minus that at the first."""
    chosen, first = (_right(results, layer) for layer in (main(results, "sweep").facts["layer"], 0))
    return mean(results, {name: chosen[name] - first[name] for name in chosen})


def _right(results: Results, layer: int) -> dict[str, Array]:
    result = main(results, "picture")
    return {name: result[f"right/{name}"][:, layer].astype(float) for name in result.facts["behaviours"]}


def neighbours_alike(results: Results) -> Measurement | None:
    """Cosines of vectors of adjacent layers, mean over layers, then over behaviours."""
    result = main(results, "extraction")
    cosines = np.diagonal(result["between_layers"], offset=1, axis1=1, axis2=2)
    return mean(results, dict(zip(result.facts["behaviours"], cosines, strict=True)))


def behaviours_differ(results: Results) -> Measurement | None:
    """The size of the cosine of a behaviour's vector with those of the others, at the chosen layer."""
    result, layer = main(results, "extraction"), main(results, "sweep").facts["layer"]
    names = result.facts["behaviours"]
    if len(names) < 2:
        return None
    sizes = np.abs(result["between_behaviours"][layer])
    return mean(results, {name: np.delete(sizes[at], at) for at, name in enumerate(names)})


def transfers(results: Results) -> Measurement | None:
    """The effect of the chosen layer's vector at its neighbours (without the last layer), over its own effect; None
    where there is next to no effect that could transfer."""
    result = main(results, "transfer")
    layer, last = result.facts["layer"], result.facts["n_layers"] - 1
    source = result.facts["sources"].index(layer)
    targets = [at for at in (layer - 1, layer + 1) if 0 <= at < last]
    by_behaviour = np.array([result[f"effect/{name}"][source].mean(axis=-1) for name in result.facts["behaviours"]])
    own, moved = by_behaviour[:, layer], by_behaviour[:, targets].mean(axis=1)
    if len(own) < 2 or own.mean() < LEAST:
        return None

    def ratio(ours: Array, others: Array) -> float:
        return float(others.mean() / max(ours.mean(), 1e-9))

    return bootstrap(ratio, own, moved, over=over(results, "behaviours"), seed=results.seed)


def unrelated_change(results: Results) -> Measurement | None:
    """Accuracy on questions about something else with a vector minus without: mean over signs, then over behaviours."""
    found = _unrelated_changes(results)
    return mean(results, {name: of.mean(axis=0) for name, of in found.items()})


def reading_unrelated(results: Results) -> Measurement | None:
    """The same with the best of the other readings."""
    result = main(results, "readings")
    if "unrelated_plain" not in result.arrays:
        return None
    items, plain = result["unrelated_item"], (result["unrelated_plain"] > 0.5).astype(float)
    rows = [result.facts["multipliers"].index(end) for end in (MINUS, PLUS)]
    changes = {
        name: by_item((result[f"unrelated/{name}"][rows] > 0.5).astype(float) - plain, items).mean(axis=0)
        for name in result.facts["behaviours"]
    }
    return mean(results, changes)


def unrelated_worst(results: Results) -> Measurement | None:
    """The same of the behaviour and sign for which it is lowest, over questions."""
    found = _unrelated_changes(results)
    rows = [(name, row) for name, of in found.items() for row in of]
    if not rows:
        return None
    name, row = min(rows, key=lambda each: float(each[1].mean()))
    return bootstrap(np.mean, row, over=f"questions ({name})", seed=results.seed)


def _unrelated_changes(results: Results) -> dict[str, Array]:
    """Changes of right and wrong by behaviour, [sign, item]."""
    result = main(results, "off_target")
    if not result.facts["questions"]:
        return {}
    items, plain = result["item"], (result["plain"] > 0.5).astype(float)
    return {
        name: by_item((result[f"p/{name}"] > 0.5).astype(float) - plain, items) for name in result.facts["behaviours"]
    }


def _mean(of: Mapping[str, Array]) -> float:
    return float(np.mean([values.mean() for values in of.values()]))


def repeating(measure: Measure) -> Measure:
    """The same of the model whose texts repeat the option behind its letter; None where it has not been run."""

    def of_it(results: Results) -> Measurement | None:
        found = of_model(results, REPEATING)
        return None if found is None else measure(found)

    return of_it


CLAIMS: dict[str, Measure] = {
    "gate-behaviour": gate_behaviour,
    "gate-form": gate_form,
    "steers": steers(),
    "steers-undecided": steers(UNDECIDED),
    "steers-against-the-text": steers(CONTRADICTED),
    "either-order": lower_of("swapped"),
    "reversed-questions": lower_of("reversed"),
    "random-vectors": control("random"),
    "another-behaviour": control("another"),
    "letter-vector": control("letters"),
    "last-layer": control("last_layer"),
    "logit-bias": control("logit_bias"),
    "every-behaviour": every_behaviour,
    **TABLE_CLAIMS,
    "intermediate-layer": intermediate_layer,
    "separable": separable,
    "separable-later": separable_later,
    "neighbours-alike": neighbours_alike,
    "behaviours-differ": behaviours_differ,
    "transfers": transfers,
    "unrelated-change": unrelated_change,
    "unrelated-worst": unrelated_worst,
    **OPEN_ENDED_CLAIMS,
    "reading-steers": steers(stage="readings"),
    "reading-unrelated": reading_unrelated,
    "reading-against-the-text": steers(CONTRADICTED, stage="readings"),
    "reading-either-order": lower_of("swapped", stage="readings"),
    "reading-reversed-questions": lower_of("reversed", stage="readings"),
    **{
        f"reading-{name}": control(condition, stage="readings")
        for name, condition in {
            "random-vectors": "random",
            "another-behaviour": "another",
            "last-layer": "last_layer",
            "logit-bias": "logit_bias",
        }.items()
    },
    "repeated-gate": repeating(gate_behaviour),
    "repeated-steers": repeating(steers()),
    "repeated-separable": repeating(separable),
    "repeated-reading-steers": repeating(steers(stage="readings")),
}

"""What the measures of all claims and the figures share: effects by item, and means over behaviours.

A mean over behaviours is resampled over behaviours, each by its mean, since a claim is about behaviours; with a single
behaviour over its items. What a measurement counts says how many behaviours fail the gate: nothing is left out then,
since what is left would have been chosen by the outcome.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
from numpy.typing import NDArray
from replications.contrastive_activation_addition.setting import MINUS, PLUS

from reprise import Measurement, Result, Results, bootstrap

Array = NDArray[np.floating]
GATE = 0.9


def main(results: Results, stage: str) -> Result:
    """The result of the run's (first) model."""
    return results.of(stage)[min(results.of(stage))]


def of_model(results: Results, name: str) -> Results | None:
    """What was measured of one model; None where it has not been run."""
    kept = {stage: {name: found[name]} for stage, found in results.by_stage.items() if name in found}
    return Results(results.tier, results.seed, kept) if kept else None


def by_item(values: Array, items: Array) -> Array:
    """The mean of each item's questions (the last axis), the items last."""
    numbers = np.unique(items)
    return np.stack([np.asarray(values)[..., items == number].mean(axis=-1) for number in numbers], axis=-1)


def gate_of(result: Result) -> dict[str, Array]:
    """Right or wrong by behaviour, [item, form]: the options as they are and exchanged, then the same reversed."""
    found = {}
    for name in result.facts["gated"]:
        right, items = result[f"right/{name}"].astype(float), result[f"item/{name}"]
        form = 2 * result[f"reversed/{name}"].astype(int) + result[f"swapped/{name}"].astype(int)
        found[name] = np.stack([by_item(right[form == at], items[form == at]) for at in np.unique(form)], axis=-1)
    return found


def failing(results: Results) -> list[str]:
    """The behaviours that the unsteered model answers worse than the gate asks in some form."""
    return [name for name, right in gate_of(main(results, "gate")).items() if right.mean(axis=0).min() < GATE]


def over(results: Results, what: str) -> str:
    """What is counted, with a mark where behaviours fail the gate."""
    gated, fail = main(results, "gate").facts["gated"], len(failing(results))
    return f"{what} ({fail} of {len(gated)} behaviours fail the gate)" if fail else what


def mean(results: Results, by_behaviour: Mapping[str, Array]) -> Measurement | None:
    """The mean over behaviours of the means over items, each array [item]; None where nothing was measured."""
    values = [of[~np.isnan(of)] for of in map(np.asarray, by_behaviour.values())]
    values = [of for of in values if len(of)]
    if len(values) > 1:
        means = np.array([of.mean() for of in values])
        return bootstrap(np.mean, means, over=over(results, "behaviours"), seed=results.seed)
    if len(values) == 1 and len(values[0]) > 1:
        return bootstrap(np.mean, values[0], over=over(results, "items"), seed=results.seed)
    return None


def of_items(results: Results, values: Array, name: str) -> Measurement | None:
    """The mean over the items of one behaviour."""
    if len(values) < 2:
        return None
    return bootstrap(np.mean, values, over=over(results, f"items of {name}"), seed=results.seed)


def p_at(result: Result, name: str, multiplier: float, layer: int | None = None) -> Array:
    """p(match) of every question, at the chosen layer unless another is given."""
    if multiplier == 0:
        return np.asarray(result[f"plain/{name}"])
    at = result.facts["multipliers"].index(multiplier)
    return np.asarray(result[f"p/{name}"][result.facts["layer"] if layer is None else layer, at])


def effect(result: Result, name: str, layer: int | None = None) -> Array:
    """p(match) at +1 minus that at -1, of every question."""
    return np.asarray(p_at(result, name, PLUS, layer) - p_at(result, name, MINUS, layer))


def effects(result: Result, layer: int | None = None, where: Sequence[tuple[str, int]] = ()) -> dict[str, Array]:
    """The effect by behaviour and item; `where` keeps questions of a form, such as ("swapped", 1)."""
    found = {}
    for name in result.facts["behaviours"]:
        kept = np.ones(len(result[f"item/{name}"]), dtype=bool)
        for form, value in where:
            kept &= result[f"{form}/{name}"] == value
        if kept.any():
            found[name] = by_item(effect(result, name, layer)[kept], result[f"item/{name}"][kept])
    return found


def control_effects(result: Result, condition: str, where: Sequence[tuple[str, int]] = ()) -> dict[str, Array]:
    """The effect of a control by behaviour and item, mean over its draws."""
    found = {}
    for name in result.facts["behaviours"]:
        if f"{condition}/{name}" not in result.arrays:
            continue
        p = result[f"{condition}/{name}"]
        kept = np.ones(p.shape[-1], dtype=bool)
        for form, value in where:
            kept &= result[f"{form}/{name}"] == value
        if kept.any():
            found[name] = by_item((p[:, 1] - p[:, 0]).mean(axis=0)[kept], result[f"item/{name}"][kept])
    return found


def of_item(result: Result, name: str, multiplier: float, *, in_order: bool = False) -> Array:
    """p(match) by item, of all forms or of the options in their own order."""
    kept = ~result[f"swapped/{name}"] if in_order else np.ones(len(result[f"item/{name}"]), dtype=bool)
    return by_item(p_at(result, name, multiplier)[kept], result[f"item/{name}"][kept])

"""What each claim of paper.toml measures, from stored results alone.

Only primary tasks count. The units that are resampled are tasks, each by its mean over prompts, since a claim is about
tasks; with a single task its prompts are resampled instead. In a conflict the tasks are those whose vector is put in.
"""

from __future__ import annotations

from functools import partial

import numpy as np
from numpy.typing import NDArray

from reprise import Measurement, Result, Results, bootstrap
from reprise.experiment import Measure

Array = NDArray[np.floating]
# The paper's conflicts are between algorithmic or linguistic tasks; those of translation and knowledge are shown only.
CONFLICT_KINDS = frozenset({"town", "data", "algorithmic", "linguistic"})


def only(results: Results, stage: str) -> Result | None:
    """The result of a run with one model; None with several, which no claim of this paper compares."""
    of = results.of(stage)
    return next(iter(of.values())) if len(of) == 1 else None


def primary(result: Result, name: str) -> Array:
    """An array with the axis task first, of the primary tasks."""
    return np.asarray(result[name][np.array(result.facts["primary"])], dtype=np.float64)


def at_chosen(result: Result) -> Array:
    """With the task vector at each task's own layer, [task, prompt]."""
    layers = np.array(result.facts["layers"])
    return np.asarray(np.take_along_axis(result["by_layer"], layers[:, None, None], axis=2)[:, :, 0])


def chosen(result: Result) -> Array:
    """The same, of the primary tasks."""
    return np.asarray(at_chosen(result)[np.array(result.facts["primary"])], dtype=np.float64)


def mean_over_tasks(results: Results, *samples: Array, ratio: bool = False) -> Measurement | None:
    """The mean of a sample [task, prompt], or the quotient of the means of two."""
    over = "tasks"
    units = [sample.mean(axis=1) for sample in samples]
    if len(units[0]) == 1:
        units, over = [sample[0] for sample in samples], "prompts"
    if len(units[0]) < 2:
        return None
    # Prompts drawn again may all be wrong in context: then one counts as right, so that the quotient is a number.
    least = 1 / len(units[0]) if over == "prompts" else 0.0
    statistic = partial(ratio_of_means, least=least) if ratio else np.mean
    return bootstrap(statistic, *units, over=over, seed=results.seed)


def share_of_in_context(results: Results) -> Measurement | None:
    """Tasks of which the model gets nothing right in context say nothing, and are left out."""
    result = only(results, "accuracy")
    if result is None:
        return None
    in_context, patched = primary(result, "in_context"), chosen(result)
    can = in_context.mean(axis=1) > 0
    if not can.any() or (len(can) > 1 and can.sum() < 2):
        return None
    return mean_over_tasks(results, patched[can], in_context[can], ratio=True)


def zero_shot(results: Results) -> Measurement | None:
    result = only(results, "accuracy")
    return None if result is None else mean_over_tasks(results, primary(result, "zero_shot"))


def intermediate_layer(results: Results) -> Measurement | None:
    """Accuracy at the chosen layer less the higher of those at the first and the last, of each task."""
    result = only(results, "accuracy")
    if result is None:
        return None
    by_layer = primary(result, "by_layer")
    ends = by_layer[:, :, [0, -1]].mean(axis=1).max(axis=1)
    gain = chosen(result) - ends[:, None]
    return mean_over_tasks(results, gain)


def conflict(name: str, *, patched: bool) -> Measure:
    """The share of prompts with this answer, with the vector at its task's layer or without it."""

    def measure(results: Results) -> Measurement | None:
        result = only(results, "conflict")
        if result is None:
            return None
        of = by_patched_task(result, name if patched else f"clean_{name}")
        return None if len(of) < 2 else bootstrap(np.mean, of, over="patched tasks", seed=results.seed)

    return measure


def by_patched_task(result: Result, name: str) -> Array:
    """The mean over prompts and prompted tasks, for each task whose vector is put in, of the pairs that are judged."""
    shares: dict[str, list[float]] = {}
    for at in judged_pairs(result):
        shares.setdefault(result.facts["pairs"][at][0], []).append(pair_share(result, name, at))
    return np.array([np.mean(of) for of in shares.values()])


def judged_pairs(result: Result) -> list[int]:
    """The places of the pairs of primary tasks of the kinds that the paper has."""
    facts = result.facts
    kinds = dict(zip(facts["tasks"], facts["kinds"], strict=True))
    primary_ones = {name for name, of in zip(facts["tasks"], facts["primary"], strict=True) if of}
    return [
        at
        for at, pair in enumerate(facts["pairs"])
        if primary_ones.issuperset(pair) and CONFLICT_KINDS.issuperset(kinds[name] for name in pair)
    ]


def pair_share(result: Result, name: str, at: int) -> float:
    """The mean over prompts of one pair of tasks, at the patched task's layer where there are layers."""
    values = result[name][at]
    return float((values[:, result.facts["layers"][at]] if values.ndim == 2 else values).mean())


def nearest_centroid(results: Results) -> Measurement | None:
    """Chance is one in the number of tasks."""
    result = only(results, "vectors")
    if result is None or sum(result.facts["primary"]) < 2:
        return None
    return mean_over_tasks(results, second_half(result, "nearest"))


def distance_ratio(results: Results) -> Measurement | None:
    result = only(results, "vectors")
    if result is None or sum(result.facts["primary"]) < 2:
        return None
    within, between = (second_half(result, name) for name in ("within", "between"))
    return mean_over_tasks(results, within, between, ratio=True)


def second_half(result: Result, name: str) -> Array:
    """Of the vectors on which the layer was not chosen, [task, vector]."""
    values = primary(result, name)[:, :, result.facts["layer"]]
    return np.asarray(values[:, values.shape[1] // 2 :])


def names_itself(results: Results) -> Measurement | None:
    """The share of relations whose own word has the highest logit among the words of all relations."""
    result = only(results, "decoded")
    if result is None or "names" not in result.arrays or len(result["names"]) < 2:
        return None
    logits = result["names"]
    hits = (logits.argmax(axis=1) == np.arange(len(logits))).astype(np.float64)
    return bootstrap(np.mean, hits, over="tasks", seed=results.seed)


def ratio_of_means(numerator: Array, denominator: Array, least: float = 0.0) -> float:
    return float(numerator.mean() / max(denominator.mean(), least))


CLAIMS: dict[str, Measure] = {
    "share-of-in-context-learning": share_of_in_context,
    "zero-shot-baseline": zero_shot,
    "conflict-patched-wins": conflict("patched", patched=True),
    "conflict-without-vector": conflict("prompt", patched=False),
    "intermediate-layer-best": intermediate_layer,
    "same-task-nearest-centroid": nearest_centroid,
    "same-task-distance": distance_ratio,
    "decoded-tokens-name-the-task": names_itself,
}

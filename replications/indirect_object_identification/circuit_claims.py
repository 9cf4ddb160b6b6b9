r"""What the claims about circuits measure: faithfulness, completeness, minimality, and what the search proposes.

F of a circuit is the mean over prompts with all outside of it ablated. Faithfulness, incompleteness and what a head
adds are shares of the whole model's F on the same prompts. Of the largest incompleteness the subset is that of each
resample, of the smallest addition the head is that of all prompts.
"""

from __future__ import annotations

import numpy as np
from replications.indirect_object_identification.measures import (
    Array,
    counted,
    faithfulness,
    faithfulness_of,
    is_above_0,
    is_published,
    main,
    mean,
    over_heads,
    share,
)

from reprise import Measurement, Results, bootstrap
from reprise.experiment import Measure

NOTHING, GREEDY = "nothing", "greedy"


def circuit_size(results: Results) -> Measurement | None:
    if not is_published(results):
        return None
    return _share_of_heads(results, each=True)


def few_heads(results: Results) -> Measurement | None:
    return _share_of_heads(results, each=False)


def _share_of_heads(results: Results, *, each: bool) -> Measurement:
    facts = main(results, "discovery").facts
    n, of_all = len(facts["circuit"]), facts["n_layers"] * facts["n_heads"]
    return counted(float(n) if each else n / of_all, of_all, "heads of the model")


def faithful(stage: str, name: str, published_alone: bool) -> Measure:
    def measure(results: Results) -> Measurement | None:
        if published_alone and not is_published(results):
            return None
        result = main(results, stage)
        return faithfulness(results, result["model"], result[name])

    return measure


def more_faithful(stage: str, better: str, worse: str) -> Measure:
    """Faithfulness of a circuit less that of another, or of several [prompt, draw], mean over them."""

    def measure(results: Results) -> Measurement | None:
        result = main(results, stage)
        others = result[worse].reshape(len(result[worse]), -1)

        def difference(full: Array, one: Array, others: Array) -> float:
            return float(faithfulness_of(full, one) - faithfulness_of(full, others).mean())

        if not is_above_0(result["model"]) or not others.shape[1]:
            return None
        return bootstrap(difference, result["model"], result[better], others, over="prompts", seed=results.seed)

    return measure


def complement(results: Results) -> Measurement | None:
    result = main(results, "discovery")
    return share(results, result["complement"], result["model"])


def backward_beats_forward(results: Results) -> Measurement | None:
    """Mean over numbers of heads that both orders reach, from 1 on, of faithfulness that counts as 0 below 0."""
    result = main(results, "discovery")
    backward, forward = result["curve.elimination"], result["curve.grown"]
    sizes = np.array(result.facts["sizes"])[: min(backward.shape[1], forward.shape[1])]
    at = np.flatnonzero(sizes > 0)
    full = result["model"][: len(backward)]

    def difference(full: Array, backward: Array, forward: Array) -> float:
        ours, theirs = (faithfulness_of(full, of).clip(min=0).mean() for of in (backward, forward))
        return float(ours - theirs)

    if not is_above_0(full) or not len(at):
        return None
    return bootstrap(difference, full, backward[:, at], forward[:, at], over="prompts", seed=results.seed)


def overlap(of: str, with_: str) -> Measure:
    """The share of one circuit's heads that are in another; heads are resampled."""

    def measure(results: Results) -> Measurement | None:
        facts = main(results, "discovery").facts
        if facts["published"] is None:
            return None
        heads = {"proposed": facts["circuit"], "published": facts["published"]["heads"]}
        return mean(results, np.array([head in heads[with_] for head in heads[of]]), f"{of} heads")

    return measure


def incompleteness(name: str) -> Measure:
    """Mean over roles and random subsets, as a share of F."""

    def measure(results: Results) -> Measurement | None:
        gaps, full = _gaps(results, name), _whole(results)
        return bootstrap(_mean_gap, gaps, full, over="prompts", seed=results.seed) if is_above_0(full) else None

    return measure


def naive_less_complete(results: Results) -> Measurement | None:
    naive, ours, full = _gaps(results, "naive"), _gaps(results, "circuit"), _whole(results)

    def difference(naive: Array, ours: Array, full: Array) -> float:
        return _mean_gap(naive, full) - _mean_gap(ours, full)

    return bootstrap(difference, naive, ours, full, over="prompts", seed=results.seed) if is_above_0(full) else None


def largest_incompleteness(results: Results) -> Measurement | None:
    result = main(results, "completeness")

    def largest(gaps: Array) -> float:
        return float(np.abs(gaps.mean(axis=0, dtype=float)).max())

    return bootstrap(largest, result["circuit"] - result["circuit.model"], over="prompts", seed=results.seed)


def minimality(results: Results) -> Measurement | None:
    """What the head adds that adds least."""
    result, full = main(results, "minimality"), main(results, "faithfulness")["model"]
    added = result["without_k"] - result["without_both"]
    worst = int(np.abs(added.mean(axis=0)).argmin())
    layer, head = result.facts["heads"][worst]

    def of_worst(added: Array, full: Array) -> float:
        return float(abs(added.mean(dtype=float)) / full.mean(dtype=float))

    if not is_above_0(full):
        return None
    return bootstrap(of_worst, added[:, worst], full, over=over_heads([(layer, head)]), seed=results.seed)


def _gaps(results: Results, name: str) -> Array:
    r"""F(C \ K) - F(M \ K) of every prompt, [prompt, subset], for roles and random subsets."""
    result = main(results, "completeness")
    kept = [at for at, (kind, _) in enumerate(result.facts["subsets"][name]) if kind not in (NOTHING, GREEDY)]
    gaps: Array = (result[name] - result[f"{name}.model"])[:, kept]
    return gaps


def _whole(results: Results) -> Array:
    """F of the whole model on the prompts of completeness: that of the subset of nothing."""
    result = main(results, "completeness")
    kinds = [kind for kind, _ in result.facts["subsets"]["circuit"]]
    whole: Array = result["circuit.model"][:, kinds.index(NOTHING)]
    return whole


def _mean_gap(gaps: Array, full: Array) -> float:
    return float(np.abs(gaps.mean(axis=0, dtype=float)).mean() / full.mean(dtype=float))


CIRCUIT_CLAIMS: dict[str, Measure] = {
    "circuit-size": circuit_size,
    "faithfulness": faithful("faithfulness", "circuit", published_alone=True),
    "discovered-faithful": faithful("discovery", "circuit", published_alone=False),
    "discovered-few-heads": few_heads,
    "random-circuits": more_faithful("discovery", "circuit", "random"),
    "complement": complement,
    "backward-beats-forward": backward_beats_forward,
    "precision": overlap("proposed", "published"),
    "recall": overlap("published", "proposed"),
    "completeness": incompleteness("circuit"),
    "largest-incompleteness": largest_incompleteness,
    "naive-faithful": faithful("faithfulness", "naive", published_alone=True),
    "paths-alone-less-faithful": more_faithful("faithfulness", "circuit", "naive"),
    "naive-less-complete": naive_less_complete,
    "minimality": minimality,
}

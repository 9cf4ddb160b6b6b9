"""What the claims about the task, the answer's writers and the paths measure, from stored results alone.

Claims about what heads do are in `head_claims`, about circuits in `circuit_claims`, about backup and adversarial
prompts in `backup_claims`.
"""

from __future__ import annotations

import numpy as np
from replications.indirect_object_identification import circuit
from replications.indirect_object_identification.backup_claims import BACKUP_CLAIMS
from replications.indirect_object_identification.circuit import GPT2_SMALL, Head
from replications.indirect_object_identification.circuit_claims import CIRCUIT_CLAIMS
from replications.indirect_object_identification.grouping import WORDS
from replications.indirect_object_identification.head_claims import HEAD_CLAIMS
from replications.indirect_object_identification.measured_circuits import PATHS
from replications.indirect_object_identification.measures import (
    EARLY,
    Array,
    heads_of,
    main,
    mean,
    no_such_heads,
    of_heads,
    of_published,
    over_heads,
    prefix_of,
    share,
)
from replications.indirect_object_identification.path_stages import PUBLISHED
from replications.indirect_object_identification.setting import HELD_OUT, SCORES

from reprise import Measurement, Results, bootstrap
from reprise.experiment import Measure

LOGITS, QUERIES, INHIBITION, INDUCTION = PATHS
WRITERS = 3
FEW = {"tiny": 0.25, "paper": 0.05}  # share of all heads that counts as few
QUARTER = 4


def performance(column: str, part: str = SCORES) -> Measure:
    """The mean of a column of the stage "performance"."""
    return lambda results: mean(results, main(results, "performance")[f"{part}.{column}"])


def held_out_worst(results: Results) -> Measurement | None:
    """The share of right answers in the template for which it is lowest."""
    result = main(results, "performance")
    right, template = result[f"{HELD_OUT}.correct"], result[f"{HELD_OUT}.template"]
    worst = min(np.unique(template), key=lambda at: float(right[template == at].mean()))
    return mean(results, right[template == worst], f"prompts of template {int(worst)}")


def no_preference(results: Results) -> Measurement | None:
    return mean(results, main(results, "performance")["abc.logit_difference"])


def left_without(cut: str) -> Measure:
    """What is left of F with a cut of the stage "cut"."""

    def measure(results: Results) -> Measurement | None:
        result = main(results, "cut")
        return share(results, result[cut], result["plain"])

    return measure


def few_heads_write(results: Results) -> Measurement | None:
    """The heads are the three largest of each resample."""
    heads = main(results, "attribution")["heads"]
    return bootstrap(
        lambda sample: in_largest(sample.mean(axis=0).clip(min=0), WRITERS),
        heads.reshape(len(heads), -1),
        over="prompts",
        seed=results.seed,
    )


def in_largest(values: Array, n: int) -> float:
    """The share of the sum of some values, none below 0, that is in the n largest; 0 of nothing."""
    ordered = np.sort(values)[::-1]
    return float(ordered[:n].sum() / ordered.sum()) if ordered.sum() else 0.0


def written_late(results: Results) -> Measurement | None:
    heads = main(results, "attribution")["heads"]
    depth = np.arange(1, heads.shape[1] + 1) / heads.shape[1]

    def late(sample: Array) -> float:
        positive = sample.mean(axis=0).clip(min=0).sum(axis=1)
        return float(positive @ depth / positive.sum()) if positive.sum() else 0.0

    return bootstrap(late, heads, over="prompts", seed=results.seed)


def heads_not_mlps(results: Results) -> Measurement | None:
    result = main(results, "attribution")
    return share(results, result["attention"].sum(axis=1), result["total"])


def stream(word: str, more: int, less: int) -> Measure:
    """What is lost of F when the stream of p_ABC is put in at a word: before layer `more`, less before layer `less`.

    Layers below 0 count from the last one; `QUARTER` is that at a quarter of the depth.
    """

    def measure(results: Results) -> Measurement | None:
        result = main(results, "stream")
        lost = -result["effects"][:, WORDS.index(word)]
        n_layers = lost.shape[1]
        at = [n_layers // QUARTER if layer == QUARTER else layer for layer in (more, less)]
        return share(results, lost[:, at[0]] - lost[:, at[1]], result["clean"])

    return measure


def few_heads_at_end(results: Results) -> Measurement | None:
    """The heads are those of largest effect in each resample."""
    effects = main(results, "heads")["effects"]
    flat = effects.reshape(len(effects), -1)
    k = max(1, int(FEW[results.tier] * flat.shape[1]))
    return bootstrap(lambda sample: in_largest(np.abs(sample.mean(axis=0)), k), flat, over="prompts", seed=results.seed)


def movers_by_attention(results: Results) -> Measurement | None:
    movers = heads_of(results, circuit.MOVERS)
    if not movers:
        return None
    by_attention, whole = (-of_heads(main(results, stage)["effects"], movers) for stage in ("patterns", "heads"))
    return share(results, by_attention.sum(axis=1), whole.sum(axis=1), over_heads(movers))


def direct(role: str, sign: int) -> Measure:
    """The share of F that a role's heads make up by the direct path: lost without them (1), or won (-1)."""

    def measure(results: Results) -> Measurement | None:
        result, heads = main(results, LOGITS), heads_of(results, role)
        lost = -of_heads(result["effects"], heads).sum(axis=1)
        return share(results, sign * lost, result["clean"], over_heads(heads))

    return measure


def through(stage: str, roles: tuple[str, ...], ways: dict[str, int]) -> Measure:
    """The share of F that is lost on the paths of a step, summed over the heads of some roles.

    Args:
        ways: what the names of the step's arrays begin with, and the sign with which each counts.
    """

    def measure(results: Results) -> Measurement | None:
        result, prefix, heads = main(results, stage), prefix_of(results), heads_of(results, *roles)
        names = {f"{prefix}{way}effects": sign for way, sign in ways.items()}
        if not result.arrays.keys() >= names.keys():
            if stage != INDUCTION or heads_of(results, circuit.INDUCTION):
                return None
            return no_such_heads(results, len(main(results, LOGITS).arrays.get("clean", ())), "prompts")
        lost = sum(-sign * of_heads(result[name], heads).sum(axis=1) for name, sign in names.items())
        return share(results, np.asarray(lost), result[f"{prefix}clean"], over_heads(heads))

    return measure


def roles(results: Results) -> tuple[set[tuple[str, Head]], set[tuple[str, Head]]] | None:
    """Which heads were found in which roles, each step from the published heads behind it, and which are published."""
    if not of_published(results):
        return None
    asked = {
        circuit.MOVERS: (LOGITS, ""),
        circuit.NEGATIVE: (LOGITS, ""),
        circuit.INHIBITION: (QUERIES, PUBLISHED),
        circuit.INDUCTION: (INHIBITION, PUBLISHED),
        circuit.DUPLICATE: (INHIBITION, PUBLISHED),
        circuit.PREVIOUS: (INDUCTION, PUBLISHED),
    }
    found = {
        (role, (int(layer), int(head)))
        for role, (stage, prefix) in asked.items()
        for layer, head in main(results, stage).facts[f"{prefix}roles"].get(role, ())
    }
    return found, {(role, head) for role in asked for head in GPT2_SMALL.roles[role]}


def roles_recall(results: Results) -> Measurement | None:
    known = roles(results)
    if known is None:
        return None
    found, published = known
    return mean(results, np.array([each in found for each in sorted(published)]), "published heads")


def roles_precision(results: Results) -> Measurement | None:
    known = roles(results)
    if known is None:
        return None
    found, published = known
    return mean(results, np.array([each in published for each in sorted(found)]), "heads found")


CLAIMS: dict[str, Measure] = {
    "logit-difference": performance("logit_difference"),
    "io-above-s": performance("correct"),
    "p-io": performance("probability"),
    "held-out-templates": performance("correct", HELD_OUT),
    "held-out-worst-template": held_out_worst,
    "no-preference-without-names": no_preference,
    "needs-repetition": left_without("s1"),
    "needs-repetition-and-next": left_without("s1_and_next"),
    "other-name-control": left_without("io"),
    "few-heads-write": few_heads_write,
    "written-late": written_late,
    "heads-not-mlps": heads_not_mlps,
    "stream-leaves-s2": stream("S2", 0, -1),
    "stream-arrives-at-end": stream("END", -1, QUARTER),
    "few-heads-at-end": few_heads_at_end,
    "movers-by-attention": movers_by_attention,
    "movers-direct": direct(circuit.MOVERS, 1),
    "negative-movers": direct(circuit.NEGATIVE, -1),
    "inhibition-through-queries": through(QUERIES, (circuit.INHIBITION,), {"": 1}),
    "early-through-inhibition": through(INHIBITION, EARLY, {"keys.": 1, "values.": 1}),
    "values-not-keys": through(INHIBITION, EARLY, {"keys.": -1, "values.": 1}),
    "previous-through-induction": through(INDUCTION, (circuit.PREVIOUS,), {"": 1}),
    "roles-recall": roles_recall,
    "roles-precision": roles_precision,
    **HEAD_CLAIMS,
    **BACKUP_CLAIMS,
    **CIRCUIT_CLAIMS,
}

"""What each claim of paper.toml measures, from stored results alone; those of the gate are in `gate_claims`.

At the paper tier accuracies are over the queries that the model answers right with ten clean examples, as in the public
code; at the tiny tier over all.
"""

from __future__ import annotations

import numpy as np
from replications.function_vectors.gate_claims import GATE_CLAIMS, gate_of
from replications.function_vectors.measures import Array, Mask, by_task, main, mean, of_lists, over
from replications.function_vectors.vectors import AVERAGE, DIFFERENCES, RANDOM_VECTOR, VECTOR

from reprise import Measurement, Result, Results, bootstrap
from reprise.experiment import Measure

FEW = {"tiny": 0.25, "paper": 0.05}  # share of all heads that counts as few
FIRST = 1  # templates behind the one that vectors are from


def few_heads_carry(results: Results) -> Measurement | None:
    """Prompts are resampled; the heads are those of largest effect in each resample."""
    effects = main(results, "effects")["effects"]
    flat = effects.reshape(len(effects), -1)
    k = max(1, int(FEW[results.tier] * flat.shape[1]))

    def share(sample: Array) -> float:
        positive = np.sort(sample.mean(axis=0).clip(min=0))[::-1]
        return float(positive[:k].sum() / positive.sum()) if positive.sum() else 0.0

    return bootstrap(share, flat, over=over(results, "prompts"), seed=results.seed)


def few_heads_suffice(results: Results) -> Measurement | None:
    result = main(results, "heads")
    ks = np.array(result.facts["ks"])
    few = int(np.flatnonzero(ks <= max(1, int(FEW[results.tier] * result.facts["n_heads"])))[-1])
    right = result["zero_shot.largest"]

    def ratio(sample: Array) -> float:
        accuracy = sample.mean(axis=0)
        return float(accuracy[few] / accuracy.max()) if accuracy.max() else 0.0

    return bootstrap(ratio, right, over=over(results, "queries"), seed=results.seed)


def answered(results: Results) -> Mask:
    """Which of the scored queries of the primary tasks count for accuracies."""
    result, primary = gate_of(results)
    right: Mask = result["in_context"][primary & (result["fold"] == 0)] > 0
    return right if results.tier == "paper" else np.ones_like(right)


def accuracy(condition: str, label: str | None) -> Measure:
    """Accuracy without an edit, or with one at the chosen layer."""

    def measure(results: Results) -> Measurement | None:
        result = main(results, "layers")
        values = result[f"{condition}.plain"] if label is None else at_chosen(result, condition, label)
        return mean(results, values[answered(results)], "queries")

    return measure


def at_chosen(result: Result, condition: str, label: str) -> Array:
    return result[f"{condition}.{label}"][:, result.facts["layer"]]


def early_layers(results: Results) -> Measurement | None:
    """The earliest of a task's best layers."""
    result = main(results, "layers")
    by_layer = by_task(result[f"zero_shot.{VECTOR}"], result["zero_shot.task"])
    return mean(results, (by_layer.argmax(axis=1) + 1) / by_layer.shape[1], "tasks")


def random_vector(results: Results) -> Measurement | None:
    result = main(results, "layers")
    change = at_chosen(result, "zero_shot", RANDOM_VECTOR) - result["zero_shot.plain"]
    return mean(results, by_task(change, result["zero_shot.task"]), "tasks")


def best_layer(result: Result, label: str) -> tuple[float, int]:
    """Highest accuracy on the first halves, and its layer."""
    by_layer = result[f"chosen.{label}"].mean(axis=0)
    return float(by_layer.max()), int(by_layer.argmax())


def beats(*labels: str) -> Measure:
    """In pairs, the vector against the best of some baselines, each in the layer that is best for it."""

    def measure(results: Results) -> Measurement | None:
        result = main(results, "layers")
        rival = max(labels, key=lambda label: best_layer(result, label)[0])
        ours, theirs = (
            result[f"zero_shot.{label}"][:, best_layer(result, label)[1]][answered(results)]
            for label in (VECTOR, rival)
        )
        return mean(results, ours - theirs, "queries")

    return measure


def natural_text(results: Results) -> Measurement | None:
    result = main(results, "layers")
    if "sentences.plain" not in result.arrays:
        return None
    return mean(results, at_chosen(result, "sentences", VECTOR) - result["sentences.plain"], "queries in sentences")


def decoded_tokens(results: Results) -> Measurement | None:
    return mean(results, main(results, "decoding")["named"].mean(axis=1), "tasks")


def rebuilt(results: Results) -> Measurement | None:
    result = main(results, "decoding")
    return mean(results, (result["rebuilt"] - result["original"])[answered(results)], "queries")


def composition(results: Results) -> Measurement | None:
    result = of_lists(results)
    n = len(np.unique(result["task"]))
    change = result["composed"] - result["plain"]
    return None if not n else bootstrap(np.mean, change, over=f"lists of {n} tasks", seed=results.seed)


def portable(trained: bool) -> Measure:
    """Over the templates that the model was trained on, or not; all where that is not known."""

    def measure(results: Results) -> Measurement | None:
        result = main(results, "templates")
        change = (result["vector"] - result["plain"]).mean(axis=1)
        known = result.facts["trained"]
        group = np.array([is_trained is trained for is_trained in known]) if known else np.full(len(change), trained)
        return mean(results, change[FIRST:][group[FIRST:]], "templates")

    return measure


CLAIMS: dict[str, Measure] = {
    **GATE_CLAIMS,
    "few-heads-carry": few_heads_carry,
    "few-heads-suffice": few_heads_suffice,
    "zero-shot-plain": accuracy("zero_shot", None),
    "zero-shot-with-vector": accuracy("zero_shot", VECTOR),
    "shuffled-plain": accuracy("shuffled", None),
    "shuffled-with-vector": accuracy("shuffled", VECTOR),
    "early-layers": early_layers,
    "random-vector": random_vector,
    "beats-layer-average": beats(AVERAGE),
    "beats-mean-difference": beats(*DIFFERENCES),
    "natural-text": natural_text,
    "decoded-tokens": decoded_tokens,
    "rebuilt-is-worse": rebuilt,
    "composition": composition,
    "portable": portable(trained=True),
    "portable-held-out": portable(trained=False),
}

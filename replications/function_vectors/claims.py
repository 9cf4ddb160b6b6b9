"""What each claim of paper.toml measures, from stored results alone.

A mean over queries is resampled over the queries of all primary tasks, a mean over tasks over tasks: what a measurement
counts says which. It also says where primary tasks failed the gate: nothing is left out then, since what is left would
have been chosen by the outcome.

At the paper tier accuracies are over the queries that the model answers right with ten clean examples, as in the public
code; at the tiny tier over all.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray
from replications.function_vectors.setting import PRIMARY
from replications.function_vectors.vectors import AVERAGE, DIFFERENCES, RANDOM_VECTOR, VECTOR

from reprise import Measurement, Result, Results, bootstrap
from reprise.experiment import Measure

Array = NDArray[np.floating]
Mask = NDArray[np.bool_]
FEW = {"tiny": 0.25, "paper": 0.05}  # share of all heads that counts as few
FIRST = 1  # templates behind the one that vectors are from


def main(results: Results, stage: str) -> Result:
    """The result of the run's (first) model."""
    return results.of(stage)[min(results.of(stage))]


def gate_of(results: Results) -> tuple[Result, Mask]:
    """The gate of the primary tasks, and which rows are theirs."""
    result = main(results, "gate")
    primary = [at for at, group in enumerate(result.facts["groups"]) if group == PRIMARY]
    return result, np.isin(result["task"], primary)


def passed(results: Results, task: str) -> bool:
    """Whether a task passes all criteria of the gate."""
    return all(criterion[-1] for criterion in main(results, "gate").facts["criteria"][task])


def failing(results: Results) -> int:
    result = main(results, "gate")
    named = zip(result.facts["tasks"], result.facts["groups"], strict=True)
    return sum(not passed(results, task) for task, group in named if group == PRIMARY)


def over(results: Results, what: str) -> str:
    """What is counted, with a mark where primary tasks failed the gate."""
    result = main(results, "gate")
    n = result.facts["groups"].count(PRIMARY)
    of = f"{what} of {n} tasks" if what != "tasks" else "tasks"
    return f"{of} ({failing(results)} of {n} fail the gate)" if failing(results) else of


def by_task(values: Array, task: Array) -> Array:
    """The mean of each task."""
    return np.array([values[task == at].mean(axis=0) for at in np.unique(task)])


def mean(results: Results, values: Array, what: str) -> Measurement | None:
    """The mean with its interval; None of fewer than two values."""
    return None if len(values) < 2 else bootstrap(np.mean, values, over=over(results, what), seed=results.seed)


def lowest_margin(control: str) -> Measure:
    """10-shot accuracy less that of a control, of the task for which it is lowest; over that task's queries."""

    def measure(results: Results) -> Measurement | None:
        result, primary = gate_of(results)
        margin = (result["in_context"] - result[control])[primary]
        task = result["task"][primary]
        means = by_task(margin, task)
        worst = np.unique(task)[means.argmin()]
        name = result.facts["tasks"][int(worst)]
        return bootstrap(np.mean, margin[task == worst], over=f"queries of {name}", seed=results.seed)

    return measure


def from_baseline(with_edit: Callable[[Result], Array]) -> Measure:
    """Accuracy with something added, less zero-shot accuracy; mean over tasks."""

    def measure(results: Results) -> Measurement | None:
        result, primary = gate_of(results)
        change = (with_edit(result) - result["zero_shot"])[primary]
        return mean(results, by_task(change, result["task"][primary]), "tasks")

    return measure


def gate_passed(results: Results) -> Measurement | None:
    result = main(results, "gate")
    named = zip(result.facts["tasks"], result.facts["groups"], strict=True)
    verdicts = np.array([float(passed(results, task)) for task, group in named if group == PRIMARY])
    return bootstrap(np.mean, verdicts, over="tasks", seed=results.seed)


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
    """Which queries of the primary tasks count for accuracies."""
    result, primary = gate_of(results)
    right: Mask = result["in_context"][primary] > 0
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
    result = main(results, "composition")
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
    "gate-in-context": lowest_margin("shuffled"),
    "gate-answer-set": lowest_margin("among_answers"),
    "gate-random-heads": from_baseline(lambda result: result["random_heads"].mean(axis=1)),
    "gate-another-task": from_baseline(lambda result: result["another"]),
    "gate-last-layer": from_baseline(lambda result: result["vector"][:, -1]),
    "gate-passed": gate_passed,
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

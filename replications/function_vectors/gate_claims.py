"""What the claims about the gate measure, over all queries of the primary tasks (both folds, see `score_stages`).

The margins are of the task for which they are lowest; the changes of accuracy by a control are means over tasks. The
gate is passed when the margins are large enough on every task and the changes small enough on the mean over tasks
(`function_vectors.gate_together`); whether each task passes everything on its own is a claim of its own.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from replications.function_vectors.measures import Array, Mask, by_task, main, mean, passed
from replications.function_vectors.setting import PRIMARY

from reprise import Measurement, Result, Results, bootstrap
from reprise.experiment import Measure

MARGINS = ("shuffled", "among_answers")
CHANGES: dict[str, Callable[[Result], Array]] = {
    "random_heads": lambda result: result["random_heads"].mean(axis=1),
    "another": lambda result: result["another"],
    "last_layer": lambda result: result["vector"][:, -1],
}
ROUNDING = 1e-6  # accuracies are quotients in float32: a difference of exactly the threshold passes


def gate_of(results: Results) -> tuple[Result, Mask]:
    """The gate of the primary tasks, and which rows are theirs."""
    result = main(results, "gate")
    primary = [at for at, group in enumerate(result.facts["groups"]) if group == PRIMARY]
    return result, np.isin(result["task"], primary)


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


def change(control: str) -> Measure:
    """Accuracy with something added, less zero-shot accuracy; mean over tasks."""

    def measure(results: Results) -> Measurement | None:
        return mean(results, change_by_task(results, control), "tasks")

    return measure


def change_by_task(results: Results, control: str) -> Array:
    result, primary = gate_of(results)
    return by_task((CHANGES[control](result) - result["zero_shot"])[primary], result["task"][primary])


def together(results: Results) -> Measurement | None:
    """The share of the five criteria that the tasks meet together; tasks are resampled."""
    result, primary = gate_of(results)
    margins = [result["in_context"] - result[control] for control in MARGINS]
    by_margin = [by_task(values[primary], result["task"][primary]) for values in margins]
    values = np.stack([*by_margin, *(change_by_task(results, control) for control in CHANGES)], axis=1)
    limits = np.array([row[3] for row in result.facts["together"]])

    def met(sample: Array) -> float:
        lowest, changes = sample[:, : len(MARGINS)].min(axis=0), np.abs(sample[:, len(MARGINS) :].mean(axis=0))
        large = lowest >= limits[: len(MARGINS)] - ROUNDING
        small = changes <= limits[len(MARGINS) :] + ROUNDING
        return float(np.mean([*large, *small]))

    return bootstrap(met, values, over="tasks", seed=results.seed)


def each_alone(results: Results) -> Measurement | None:
    """The share of primary tasks that meet all five criteria on their own."""
    return bootstrap(np.mean, np.array(passed(results), dtype=float), over="tasks", seed=results.seed)


GATE_CLAIMS: dict[str, Measure] = {
    "gate-in-context": lowest_margin("shuffled"),
    "gate-answer-set": lowest_margin("among_answers"),
    "gate-random-heads": change("random_heads"),
    "gate-another-task": change("another"),
    "gate-last-layer": change("last_layer"),
    "gate-passed": together,
    "gate-per-task": each_alone,
}

"""What the measures of all claims and the figures share.

A mean over queries is resampled over the queries of all primary tasks, a mean over tasks over tasks: what a measurement
counts says which. It also says how many primary tasks fail the gate on their own: nothing is left out then, since what
is left would have been chosen by the outcome.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from replications.function_vectors.setting import LISTS_MODEL, PRIMARY

from reprise import Measurement, Result, Results, bootstrap

Array = NDArray[np.floating]
Mask = NDArray[np.bool_]


def main(results: Results, stage: str) -> Result:
    """The result of the run's (first) model."""
    return results.of(stage)[min(results.of(stage))]


def of_lists(results: Results) -> Result:
    """The result about composition: of the model that is there for it, else of the run's (first) model."""
    return results.of("composition").get(LISTS_MODEL) or main(results, "composition")


def passed(results: Results) -> list[bool]:
    """Which primary tasks pass all criteria of the gate, each judged on its own."""
    facts = main(results, "gate").facts
    named = zip(facts["tasks"], facts["groups"], strict=True)
    return [all(row[-1] for row in facts["criteria"][task]) for task, group in named if group == PRIMARY]


def over(results: Results, what: str) -> str:
    """What is counted, with a mark where primary tasks fail the gate."""
    verdicts = passed(results)
    n, failing = len(verdicts), verdicts.count(False)
    of = f"{what} of {n} tasks" if what != "tasks" else "tasks"
    return f"{of} ({failing} of {n} fail the gate)" if failing else of


def by_task(values: Array, task: Array) -> Array:
    """The mean of each task."""
    return np.array([values[task == at].mean(axis=0) for at in np.unique(task)])


def mean(results: Results, values: Array, what: str) -> Measurement | None:
    """The mean with its interval; None of fewer than two values."""
    return None if len(values) < 2 else bootstrap(np.mean, values, over=over(results, what), seed=results.seed)

"""The gate: whether a model infers a task from examples, and a vector carries the task rather than its answers' class.

A model can show the headline number of Todd et al. 2024 without having a function vector: where each task has a class
of answers of its own (capitals, plurals), a vector that names the class is enough. Such a model answers as well with
shuffled labels, or with no examples and the choice narrowed to the task's answers. So, for one model and task:

    in-context learning     accuracy(10-shot) - accuracy(shuffled labels)                        at least 0.4
    task, not class         accuracy(10-shot) - accuracy(zero-shot, among the task's answers)    at least 0.4
    heads matter            |accuracy(zero-shot + vector of random heads) - accuracy(zero-shot)|   at most 0.1
    task matters            |accuracy(zero-shot + another task's vector) - accuracy(zero-shot)|    at most 0.1
    layer matters           |accuracy(zero-shot + vector in the last layer) - accuracy(zero-shot)| at most 0.1

Random heads and the other task's vector are added at the layer that was chosen for the vector; several draws of random
heads count by their mean. The verdicts are on the estimates; `Scores` has the intervals. What a vector gains, which is
the result and no control, is reported and not judged here.

Heads, k and layer are to be chosen on other prompts than those given here (`selection`). To have every query of a task
scored even so, split its pairs, choose on each part, and put each choice through the gate on the other part: gates of
one task count as one, over the queries of all of them (`gate_by_task`).

Several tasks can also be judged together (`gate_together`): the first two criteria on the task for which they are
lowest, the other three on the change's mean over tasks. That is milder. Another task's vector makes the model do that
task, which costs each task the answers that were right without examples; on a single task these are many or few by
luck. But a change upwards on some tasks hides one downwards on others, so look at both.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import astuple, dataclass
from typing import Literal

import torch
from jaxtyping import Float, Int
from torch import Tensor

from function_vectors.encoding import Encoded
from function_vectors.evaluation import score, score_by_layer
from function_vectors.runners import Runner, adding
from function_vectors.scores import Scores
from function_vectors.vectors import FunctionVector
from interventions.notebook import table

MARGINS = 2  # criteria that a difference has to reach; those behind them it must not exceed
CRITERIA = (
    "10-shot over shuffled labels",
    "10-shot over zero-shot among the task's answers",
    "random heads",
    "another task's vector",
    "vector in the last layer",
)


@dataclass(frozen=True)
class Thresholds:
    """Differences of accuracies, between 0 and 1, each judged as the table above says, in its order."""

    over_shuffled: float = 0.4
    over_answer_set: float = 0.4
    of_random_heads: float = 0.1
    of_another_task: float = 0.1
    of_last_layer: float = 0.1


@dataclass(frozen=True)
class Criterion:
    """One line of the gate: `value` has to be `at_least` or `at_most` the threshold."""

    name: str
    value: float
    sense: Literal["at least", "at most"]
    threshold: float

    @property
    def passed(self) -> bool:
        # Accuracies are quotients in float32: a difference of exactly the threshold passes.
        slack = 1e-6
        if self.sense == "at least":
            return self.value >= self.threshold - slack
        return self.value <= self.threshold + slack

    def __str__(self) -> str:
        verdict = "passed" if self.passed else "FAILED"
        return f"{self.name}: {self.value:.3f}, {self.sense} {self.threshold:g}: {verdict}"


@dataclass(frozen=True)
class Gate:
    """Everything that was measured of a model and a task; `layer` is where the vector is added for the comparison.

    The scores with vectors are by layer, on the zero-shot prompts; `with_random_heads` has one for each draw.
    """

    task: str
    layer: int
    in_context: Scores
    shuffled: Scores
    zero_shot: Scores
    zero_shot_among_answers: Scores
    with_vector: Scores
    with_random_heads: tuple[Scores, ...]
    with_another_task: Scores
    thresholds: Thresholds

    @property
    def right(self) -> dict[str, Float[Tensor, " prompt"]]:
        """Right or wrong in each condition of the criteria, vectors at their layer; of random heads the mean draw."""
        last = self.with_vector.coordinates[0][-1]
        drawn = [scores.take("layer", self.layer).right.float() for scores in self.with_random_heads]
        return {
            "in context": self.in_context.right.float(),
            "shuffled": self.shuffled.right.float(),
            "among answers": self.zero_shot_among_answers.right.float(),
            "zero-shot": self.zero_shot.right.float(),
            "random heads": torch.stack(drawn).mean(dim=0),
            "another task": self.with_another_task.take("layer", self.layer).right.float(),
            "last layer": self.with_vector.take("layer", last).right.float(),
        }

    @property
    def criteria(self) -> tuple[Criterion, ...]:
        """The five criteria, judged."""
        return gate_by_task([self])[self.task]

    @property
    def passed(self) -> bool:
        """Whether every criterion is met."""
        return all(criterion.passed for criterion in self.criteria)

    def __str__(self) -> str:
        return f"{self.task}: " + "; ".join(map(str, self.criteria))

    def __repr__(self) -> str:
        return f"<Gate {'passed' if self.passed else 'FAILED'}: {self}>"

    def _repr_html_(self) -> str:
        rows = [
            [each.name, f"{each.value:.3f}", f"{each.sense} {each.threshold:g}", "passed" if each.passed else "FAILED"]
            for each in self.criteria
        ]
        n = f"{self.zero_shot.n} zero-shot prompts, layer {self.layer}"
        gained = f"{float(self.with_vector.take('layer', self.layer).accuracy):.3f}"
        note = f"Accuracy with the vector {gained}, without {float(self.zero_shot.accuracy):.3f}; not judged here."
        return table(f"Gate of {self.task}: {n}", ["criterion", "accuracy", "asked for", ""], rows, note=note)


def gate_by_task(gates: Sequence[Gate]) -> dict[str, tuple[Criterion, ...]]:
    """The five criteria of every task; gates of one task count as one, each query with the vector of its gate.

    Raises:
        ValueError: there is no gate, or they have different thresholds.
    """
    limits = _thresholds(gates)
    by_task: dict[str, list[Gate]] = {}
    for each in gates:
        by_task.setdefault(each.task, []).append(each)
    return {task: _judged(_differences(of), limits) for task, of in by_task.items()}


def gate_together(gates: Sequence[Gate]) -> tuple[Criterion, ...]:
    """The five criteria of several tasks together: the two margins where they are lowest, the changes on the mean.

    Every task counts alike, whatever its number of queries. Gates of one task count as one, as in `gate_by_task`.

    Raises:
        ValueError: as `gate_by_task`.
    """
    limits = _thresholds(gates)
    names = dict.fromkeys(each.task for each in gates)
    values = torch.stack([_differences([each for each in gates if each.task == name]) for name in names])
    return _judged(torch.cat([values[:, :MARGINS].amin(dim=0), values[:, MARGINS:].mean(dim=0)]), limits)


def _thresholds(gates: Sequence[Gate]) -> Thresholds:
    found = {each.thresholds for each in gates}
    if len(found) != 1:
        raise ValueError(
            f"{len(gates)} gates with {len(found)} different thresholds: expected at least one gate, and the same "
            f"thresholds for all that are judged together"
        )
    return found.pop()


def _differences(gates: Sequence[Gate]) -> Float[Tensor, " criterion"]:
    """The two margins, then the three changes with their signs, over the queries of all gates of a task."""
    accuracy = {name: torch.cat([each.right[name] for each in gates]).mean() for name in gates[0].right}
    learnt, baseline = accuracy["in context"], accuracy["zero-shot"]
    margins = [learnt - accuracy[name] for name in ("shuffled", "among answers")]
    return torch.stack(margins + [accuracy[name] - baseline for name in ("random heads", "another task", "last layer")])


def _judged(differences: Float[Tensor, " criterion"], limits: Thresholds) -> tuple[Criterion, ...]:
    values = [*differences[:MARGINS].tolist(), *differences[MARGINS:].abs().tolist()]
    return tuple(
        Criterion(name, value, "at least" if at < MARGINS else "at most", limit)
        for at, (name, value, limit) in enumerate(zip(CRITERIA, values, astuple(limits), strict=True))
    )


def gate(
    runner: Runner,
    vector: FunctionVector,
    *,
    in_context: Encoded,
    shuffled: Encoded,
    zero_shot: Encoded,
    answers: Int[Tensor, " token"],
    random_heads: Sequence[FunctionVector],
    another_task: FunctionVector,
    thresholds: Thresholds | None = None,
) -> Gate:
    """Put a model and a task through the gate.

    Args:
        vector: of the task, for the layer that was chosen.
        in_context, shuffled, zero_shot: prompts of the task with demonstrations (ten, as the gate is defined), with
            the same under shuffled labels, and without.
        answers: first tokens of the task's answers (`encoding.answer_set`).
        random_heads: vectors of as many heads drawn at random (`baselines.random_heads`), one for each draw.
        another_task: the vector of the same heads, of another task.
        thresholds: those of the table by default.

    Raises:
        ValueError: the vector has no layer, there are no random heads, the heads differ in number; or an answer is not
            among `answers`.
    """
    if vector.layer is None:
        raise ValueError(f"the vector of {vector.task} has no layer: expected the one that was chosen; see .at(layer)")
    if not random_heads:
        raise ValueError("no vector of random heads: expected at least one draw")
    for other in (*random_heads, another_task):
        if other.k != vector.k:
            raise ValueError(
                f"the vector of {other.task} is of {other.k} heads, that of {vector.task} of {vector.k}: expected as "
                f"many for a comparison"
            )
    among = score(runner, zero_shot, candidates=answers)
    at = [vector.layer]
    return Gate(
        task=vector.task,
        layer=vector.layer,
        in_context=score(runner, in_context),
        shuffled=score(runner, shuffled),
        zero_shot=score(runner, zero_shot),
        zero_shot_among_answers=among,
        with_vector=score_by_layer(runner, zero_shot, adding(vector.vector)),
        with_random_heads=tuple(
            score_by_layer(runner, zero_shot, adding(each.vector), layers=at) for each in random_heads
        ),
        with_another_task=score_by_layer(runner, zero_shot, adding(another_task.vector), layers=at),
        thresholds=Thresholds() if thresholds is None else thresholds,
    )

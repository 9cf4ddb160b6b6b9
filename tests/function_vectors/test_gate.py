"""The gate: verdicts on models whose answers are scripted, and scores on a real network."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import pytest
import torch
from jaxtyping import Int
from torch import Tensor

from function_vectors.encoding import Encoded
from function_vectors.engine import EngineRunner
from function_vectors.evaluation import score, score_by_layer
from function_vectors.gate import Criterion, Gate, Thresholds, gate, gate_by_task, gate_together
from function_vectors.runners import StreamEdit, adding
from function_vectors.scores import Scores
from function_vectors.vectors import FunctionVector
from interventions import Prompts, as_prompts

from .conftest import D_MODEL, FOUR, encoded, random_network

N, N_LAYERS = 20, 4
ANSWERS = torch.arange(50, 50 + N)
VECTOR, OTHER = 1.0, 2.0
RANDOM = (3.0, 4.0)


@dataclass(frozen=True)
class Scripted(EngineRunner):
    """So many of 20 prompts right: by the prompts' only token, and by the number that the added vector holds."""

    right: dict[Any, int] = field(default_factory=dict)

    @property
    def n_layers(self) -> int:
        return N_LAYERS

    def predictions(self, prompts: Prompts, candidates: Int[Tensor, " choice"] | None = None) -> Int[Tensor, " prompt"]:
        condition = int(prompts.tokens[0, 0])
        return self._answered(self.right[condition if candidates is None else "among answers"])

    def predictions_by_layer(
        self,
        prompts: Prompts,
        edit: StreamEdit,
        layers: Sequence[int],
        candidates: Int[Tensor, " choice"] | None = None,
    ) -> Int[Tensor, "prompt layer"]:
        assert int(prompts.tokens[0, 0]) == 3
        return torch.stack([self._answered(self.right[float(edit.values[0, 0, 0]), layer]) for layer in layers], dim=1)

    def _answered(self, right: int) -> Int[Tensor, " prompt"]:
        return torch.where(torch.arange(N) < right, ANSWERS, 0)


GOOD: dict[Any, int] = {
    1: 18,
    2: 6,
    3: 3,
    "among answers": 4,
    **{(VECTOR, layer): right for layer, right in enumerate((9, 15, 8, 4))},
    (OTHER, 1): 2,
    (RANDOM[0], 1): 1,
    (RANDOM[1], 1): 8,
}


def prompts(condition: int) -> Encoded:
    return Encoded(as_prompts([[condition]] * N), tuple((int(token),) for token in ANSWERS))


def vector(number: float, task: str, layer: int | None = None) -> FunctionVector:
    return FunctionVector(torch.full((D_MODEL,), number), task, ((0, 0), (1, 1)), layer)


def put_through(right: dict[Any, int], thresholds: Thresholds | None = None) -> Gate:
    return gate(
        Scripted(random_network("gpt2"), right=right),
        vector(VECTOR, "antonym", 1),
        in_context=prompts(1),
        shuffled=prompts(2),
        zero_shot=prompts(3),
        answers=ANSWERS,
        random_heads=[vector(number, "random") for number in RANDOM],
        another_task=vector(OTHER, "capital"),
        thresholds=thresholds,
    )


def test_a_model_that_infers_the_task_passes() -> None:
    found = put_through(GOOD)
    assert (found.task, found.layer, found.passed) == ("antonym", 1, True)
    values = {criterion.name: round(criterion.value, 4) for criterion in found.criteria}
    assert values == {
        "10-shot over shuffled labels": 0.6,
        "10-shot over zero-shot among the task's answers": 0.7,
        "random heads": 0.075,  # (1 + 8) / 2 / 20 from 3 / 20
        "another task's vector": 0.05,
        "vector in the last layer": 0.05,
    }
    assert [float(x) for x in found.with_vector.accuracy] == pytest.approx([0.45, 0.75, 0.4, 0.2])
    assert "antonym: 10-shot over shuffled labels: 0.600, at least 0.4: passed; " in str(found)


@pytest.mark.parametrize(
    ("change", "failed"),
    [
        ({2: 11}, "10-shot over shuffled labels"),
        ({"among answers": 11}, "10-shot over zero-shot among the task's answers"),
        ({(RANDOM[0], 1): 3}, "random heads"),
        ({(OTHER, 1): 6}, "another task's vector"),
        ({(OTHER, 1): 0}, "another task's vector"),
        ({(VECTOR, 3): 6}, "vector in the last layer"),
    ],
)
def test_each_criterion_fails_alone(change: dict[Any, int], failed: str) -> None:
    found = put_through({**GOOD, **change})
    assert [criterion.name for criterion in found.criteria if not criterion.passed] == [failed]
    assert not found.passed
    assert f"{failed}: " in str(found)
    assert str(found).count("FAILED") == 1


def test_a_difference_of_exactly_the_threshold_passes() -> None:
    found = put_through({**GOOD, 2: 10, "among answers": 10, (OTHER, 1): 5, (VECTOR, 3): 1, (RANDOM[0], 1): 2})
    assert [round(criterion.value, 4) for criterion in found.criteria] == [0.4, 0.4, 0.1, 0.1, 0.1]
    assert found.passed


def test_thresholds_are_arguments() -> None:
    strict = Thresholds(0.61, 0.71, 0.07, 0.04, 0.04)
    assert [criterion.passed for criterion in put_through(GOOD, strict).criteria] == [False] * 5
    assert [criterion.threshold for criterion in put_through(GOOD, strict).criteria] == [0.61, 0.71, 0.07, 0.04, 0.04]
    assert Thresholds() == Thresholds(0.4, 0.4, 0.1, 0.1, 0.1)
    assert str(Criterion("x", 0.25, "at most", 0.1)) == "x: 0.250, at most 0.1: FAILED"


def test_vectors_that_cannot_be_compared_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Scripted, "predictions", pytest.fail)
    monkeypatch.setattr(Scripted, "predictions_by_layer", pytest.fail)
    ours, other = vector(VECTOR, "antonym", 1), vector(OTHER, "capital")
    single = replace(other, heads=((0, 0),))
    cases: list[tuple[FunctionVector, list[FunctionVector], FunctionVector, str]] = [
        (replace(ours, layer=None), [other], other, "the vector of antonym has no layer: expected the one that was"),
        (ours, [], other, "no vector of random heads: expected at least one draw"),
        (ours, [other, single], other, "the vector of capital is of 1 heads, that of antonym of 2: expected as many"),
        (ours, [other], single, "the vector of capital is of 1 heads, that of antonym of 2: expected as many"),
    ]
    for given, random_heads, another, message in cases:
        with pytest.raises(ValueError, match=message):
            gate(
                Scripted(random_network("gpt2"), right=GOOD),
                given,
                in_context=prompts(1),
                shuffled=prompts(2),
                zero_shot=prompts(3),
                answers=ANSWERS,
                random_heads=random_heads,
                another_task=another,
            )


def counted(task: str, *right: float, n: int = 20, layer: int = 1, thresholds: Thresholds | None = None) -> Gate:
    """So many of n prompts right: in context, shuffled, zero-shot, among answers, random heads, another, last layer."""

    def scores(count: float, *layers: int) -> Scores:
        is_right = torch.arange(n) < count
        return Scores(is_right[:, None].expand(n, len(layers)), ("layer",), (layers,)) if layers else Scores(is_right)

    in_context, shuffled, zero_shot, among, random, another, last = right
    # The two draws differ, and with the vector every prompt is right in each layer but the last.
    by_layer = torch.ones(n, N_LAYERS, dtype=torch.bool)
    by_layer[:, -1] = torch.arange(n) < last
    return Gate(
        task,
        layer,
        in_context=scores(in_context),
        shuffled=scores(shuffled),
        zero_shot=scores(zero_shot),
        zero_shot_among_answers=scores(among),
        with_vector=Scores(by_layer, ("layer",), (tuple(range(N_LAYERS)),)),
        with_random_heads=(scores(random - 1, layer), scores(random + 1, layer)),
        with_another_task=scores(another, layer),
        thresholds=thresholds or Thresholds(),
    )


def values(criteria: Sequence[Criterion]) -> list[float]:
    return [round(criterion.value, 5) for criterion in criteria]


def test_gates_of_one_task_count_as_one_over_all_their_queries() -> None:
    first, second = counted("a", 20, 4, 4, 5, 4, 0, 4), counted("a", 12, 6, 0, 0, 1, 2, 0, n=12, layer=2)
    other = counted("b", 18, 6, 3, 4, 5, 2, 4)
    found = gate_by_task([first, other, second])
    assert list(found) == ["a", "b"]
    assert values(found["a"]) == [round(x, 5) for x in (22 / 32, 27 / 32, 1 / 32, 2 / 32, 0)]
    assert found["b"] == other.criteria
    # On the first queries alone another task's vector takes four right answers away.
    assert [criterion.passed for criterion in first.criteria] == [True, True, True, False, True]
    assert all(criterion.passed for criterion in found["a"])
    assert second.passed is False  # 2 of 12


def test_together_margins_count_where_they_are_lowest_and_changes_on_the_mean_over_tasks() -> None:
    down, up = counted("a", 20, 2, 4, 3, 4, 0, 4), counted("b", 8, 0, 0, 1, 2, 3, 0, n=10)
    even = counted("c", 20, 12, 2, 2, 4, 2, 8)
    found = gate_together([down, up, even])
    # A task counts alike whatever its queries: (-4 / 20 + 3 / 10 + 0) / 3.
    assert values(found) == [0.4, 0.7, 0.1, 0.03333, 0.1]
    assert all(criterion.passed for criterion in found)
    assert [criterion.name for criterion in found] == [criterion.name for criterion in down.criteria]
    assert not down.passed
    assert not up.passed
    assert not even.passed


def test_together_gates_of_one_task_are_one_task() -> None:
    halves = [counted("a", 20, 2, 4, 3, 4, 0, 4), counted("a", 20, 2, 0, 1, 1, 0, 0)]
    other = counted("b", 20, 2, 0, 1, 1, 0, 2)
    assert values(gate_together([*halves, other])) == [0.9, 0.9, 0.0375, 0.05, 0.05]


@pytest.mark.parametrize(
    ("change", "failed"),
    [({1: 13}, 0), ({3: 13}, 1), ({4: 9}, 2), ({5: 9}, 3), ({6: 9}, 4)],
)
def test_together_each_criterion_fails_alone(change: dict[int, int], failed: int) -> None:
    good = [20, 2, 4, 3, 4, 4, 4]
    bad = [change.get(at, count) for at, count in enumerate(good)]
    found = gate_together([counted("a", *good), counted("b", *bad)])
    assert [criterion.passed for criterion in found] == [at != failed for at in range(5)]


def test_a_change_on_all_tasks_fails_whatever_its_sign() -> None:
    together = gate_together([counted(task, 20, 0, 4, 0, 4, 1, 4) for task in "ab"])
    assert values(together)[3] == 0.15
    assert not together[3].passed


def test_what_cannot_be_judged_together_is_refused() -> None:
    strict = counted("b", 20, 2, 4, 3, 4, 4, 4, thresholds=Thresholds(0.5))
    for judge in (gate_by_task, gate_together):
        with pytest.raises(ValueError, match="0 gates with 0 different thresholds: expected at least one gate"):
            judge([])
        with pytest.raises(
            ValueError, match="2 gates with 2 different thresholds: expected at least one gate, and the"
        ):
            judge([counted("a", 20, 2, 4, 3, 4, 4, 4), strict])
    assert gate_together([strict])[0].threshold == 0.5


@pytest.mark.parametrize("name", FOUR)
def test_on_a_network_the_scores_are_those_of_each_condition(name: str) -> None:
    runner = EngineRunner(random_network(name))
    drawn = 10 * torch.randn(3, D_MODEL, generator=torch.Generator().manual_seed(0))
    conditions = [encoded((7, 4, 6, 5), seed=seed) for seed in range(3)]
    at_best = runner.predictions_by_layer(conditions[2].prompts, adding(drawn[0]), [2])[:, 0]
    first = (runner.predictions(conditions[0].prompts), runner.predictions(conditions[1].prompts), at_best)
    learnt, shuffled, zero_shot = (
        replace(each, answers=tuple((int(token),) for token in tokens))
        for each, tokens in zip(conditions, first, strict=True)
    )
    answers = torch.tensor(sorted(set(zero_shot.first.tolist())))
    found = gate(
        runner,
        FunctionVector(drawn[0], "antonym", ((0, 0),), 2),
        in_context=learnt,
        shuffled=replace(shuffled, answers=((0,), *shuffled.answers[1:])),
        zero_shot=zero_shot,
        answers=answers,
        random_heads=[FunctionVector(drawn[1], "random", ((1, 1),))],
        another_task=FunctionVector(drawn[2], "capital", ((0, 0),)),
    )
    assert float(found.in_context.accuracy) == 1
    assert float(found.shuffled.accuracy) == 0.75
    assert torch.equal(found.zero_shot.right, score(runner, zero_shot).right)
    assert torch.equal(found.zero_shot_among_answers.right, score(runner, zero_shot, candidates=answers).right)
    assert found.with_vector.take("layer", 2).right.all()
    assert torch.equal(
        found.with_another_task.right, score_by_layer(runner, zero_shot, adding(drawn[2]), layers=[2]).right
    )
    assert torch.equal(
        found.with_random_heads[0].right, score_by_layer(runner, zero_shot, adding(drawn[1]), layers=[2]).right
    )

"""Which task feeds which part: mistakes are named before anything is trained."""

from __future__ import annotations

from collections.abc import Mapping
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.optim import SGD

from training import FunctionTask, Options, Part, Parts, TrainingError, train
from training.tasks import Terms


class Sum:
    """The sum of what the parts named in `uses` make of ones."""

    def __init__(self, feeds: tuple[str, ...], uses: tuple[str, ...] | None = None) -> None:
        self.feeds, self.uses = feeds, uses or feeds

    def batch(self, step: int, /) -> Tensor:
        return torch.ones(1, 2)

    def loss(self, parts: Parts, batch: Tensor, /) -> Terms:
        return torch.stack([parts[name](batch).sum() for name in self.uses]).sum()


def part(module: nn.Module | None = None) -> Part:
    module = module or nn.Linear(2, 1)
    return Part(module, (SGD(module.parameters(), lr=0.1),))


def refused(tasks: Sum | Mapping[str, Sum], parts: Mapping[str, Part], only: tuple[str, ...] | None = None) -> str:
    before = [p.detach().clone() for part in parts.values() for p in part.module.parameters()]
    with pytest.raises(TrainingError) as caught:
        train(tasks, parts, steps=1, only=only)
    after = [p for part in parts.values() for p in part.module.parameters()]
    assert all(torch.equal(a, b) and b.requires_grad for a, b in zip(before, after, strict=True))
    assert all(part.module.training for part in parts.values())
    assert "\n" not in str(caught.value)
    return str(caught.value)


def test_a_trained_part_that_no_task_feeds() -> None:
    parts = {"policy": part(), "value": part()}
    assert refused(Sum(("policy",)), parts) == (
        "part 'value' is to be trained, and no task feeds it: the tasks feed 'policy'; add it to a task's `feeds`, or "
        "freeze it (without optimizers, or by `only`)"
    )
    train(Sum(("policy",)), parts, steps=1, only=("policy",))
    train(Sum(("policy",)), {**parts, "value": Part(nn.Linear(2, 1))}, steps=1)


def test_a_task_that_feeds_a_part_that_is_not_there() -> None:
    said = refused({"reward": Sum(("policy", "valeu"))}, {"policy": part(), "value": part()})
    assert said.startswith("task 'reward' feeds 'valeu': expected parts among 'policy', 'value'; correct its `feeds`")
    assert refused(Sum(()), {"policy": part()}).startswith("the task feeds nothing: expected parts among 'policy'")


def test_feeds_that_is_a_string() -> None:
    said = refused(Sum("policy"), {"policy": part()})  # type: ignore[arg-type]
    assert said == "feeds: expected a tuple of names, got 'policy'; write ('policy',)"


def test_a_fed_part_whose_parameters_get_no_gradient() -> None:
    parts = {"policy": part(), "value": part()}
    said = refused({"a": Sum(("policy", "value"), uses=("policy",)), "b": Sum(("value",))}, parts)
    assert said.startswith("the loss of task 'a' feeds 'value' and gives no parameter of it a gradient: expected one;")
    said = refused(Sum(("value",), uses=("policy",)), {**parts, "policy": Part(nn.Linear(2, 1))})
    assert said.startswith("the loss of the task feeds 'value' and gives no parameter of it a gradient")


def test_only() -> None:
    parts = {"policy": part(), "value": part(), "encoder": Part(nn.Linear(2, 1))}
    task = Sum(("policy", "value"))
    assert refused(task, parts, ()) == "only is empty: expected names among 'policy', 'value', or None for all of them"
    assert refused(task, parts, ("actor",)) == "only: 'actor' is no part; expected names among 'policy', 'value'"
    assert refused(task, parts, ("encoder",)).startswith("only: 'encoder' has no optimizers; expected names among")


def test_parts_that_are_all_frozen() -> None:
    said = refused(Sum(("policy",)), {"policy": Part(nn.Linear(2, 1))})
    assert said == "parts 'policy': expected one with optimizers, all are frozen"
    model = nn.Linear(2, 1).requires_grad_(False)
    with pytest.raises(TrainingError, match=r"^part 'policy': expected parameters that need a gradient, found none"):
        train(Sum(("policy",)), {"policy": part(model)}, steps=1)


def test_a_module_in_two_parts() -> None:
    encoder = nn.Linear(2, 2)
    parts = {"policy": part(nn.Sequential(encoder, nn.Linear(2, 1))), "value": part(nn.Sequential(encoder))}
    assert refused(Sum(("policy", "value")), parts) == (
        "parts 'policy' and 'value' share a parameter ('0.weight', '0.weight'): expected each in one part; make the "
        "shared module a part of its own, and name it in the tasks' `feeds`"
    )


def test_an_optimiser_of_another_module() -> None:
    parts = {"policy": Part(nn.Linear(2, 1), (SGD(nn.Linear(2, 3).parameters(), lr=0.1),))}
    said = refused(Sum(("policy",)), parts)
    assert said.startswith("part 'policy': SGD moves a parameter of shape (3, 2) that is not in the part's module")


def test_a_loss_that_is_no_scalar() -> None:
    def loss(model: nn.Module, batch: Tensor) -> Tensor:
        predicted: Tensor = model(batch)
        return predicted

    task = FunctionTask(lambda step: torch.ones(3, 2), loss)
    with pytest.raises(TrainingError, match=r"^the task: expected a scalar loss, got shape \(3, 1\); take its mean$"):
        train(task, {"model": part()}, steps=1)


def test_options_that_there_are_not() -> None:
    with pytest.raises(TrainingError, match=r"^accumulate: expected a number of pieces from 1, got 0$"):
        Options(accumulate=0)
    wrong: Any = SimpleNamespace(precision="int4", accumulate=1)  # the tests' type checker would refuse it first
    with pytest.raises(TrainingError, match=r"^precision: expected one of float32, bfloat16, float16, got 'int4'$"):
        Options.__post_init__(wrong)

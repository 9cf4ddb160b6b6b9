"""Parts trained by one call each, frozen, shared and together, against loops written by hand: equal bit for bit."""

from __future__ import annotations

import copy
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import pytest
import torch
from torch import Tensor, nn
from torch.optim import SGD, Adam, AdamW

from training import Part, Parts, Run, train, trapezoid
from training.schedules import Schedule
from training.tasks import Terms

SCHEDULE = trapezoid(warmup=2, steps=8, decay_from=0.5, floor=0.1)


@dataclass(frozen=True)
class Acting:
    """A policy's task: two named terms."""

    feeds: Sequence[str] = ("encoder", "policy")

    def batch(self, step: int, /) -> Tensor:
        return torch.randn(6, 3, generator=torch.Generator().manual_seed(step))

    def loss(self, parts: Parts, batch: Tensor, /) -> Terms:
        logits = parts["policy"](parts["encoder"](batch))
        return {"clip": -logits.log_softmax(-1)[:, 0].mean(), "entropy": 0.1 * logits.square().mean()}


@dataclass(frozen=True)
class Valuing:
    """A value function's task."""

    feeds: Sequence[str] = ("encoder", "value")

    def batch(self, step: int, /) -> Tensor:
        return torch.randn(4, 3, generator=torch.Generator().manual_seed(100 + step))

    def loss(self, parts: Parts, batch: Tensor, /) -> Terms:
        predicted: Tensor = parts["value"](parts["encoder"](batch)).squeeze(1)
        return (predicted - batch.sum(1)).square().mean()


class Agent:
    """Modules, and an optimiser for each, of different kinds."""

    def __init__(self) -> None:
        torch.manual_seed(0)
        self.modules = {"encoder": nn.Sequential(nn.Linear(3, 5), nn.Tanh()), "policy": nn.Linear(5, 2)}
        self.modules["value"] = nn.Sequential(nn.Linear(5, 5), nn.ReLU(), nn.Linear(5, 1))
        self.optimizers = {
            "encoder": SGD(self.modules["encoder"].parameters(), lr=0.1, momentum=0.9),
            "policy": Adam(self.modules["policy"].parameters(), lr=0.02),
            "value": AdamW(self.modules["value"].parameters(), lr=0.03),
        }
        self.schedules: dict[str, Schedule] = {
            "encoder": lambda step: 1.0,
            "policy": SCHEDULE,
            "value": lambda step: 1 / (1 + step),
        }

    def parts(self, **limits: float) -> dict[str, Part]:
        return {
            name: Part(module, (self.optimizers[name],), self.schedules[name], limits.get(name, float("inf")))
            for name, module in self.modules.items()
        }

    def weights(self) -> list[Tensor]:
        return [parameter for module in self.modules.values() for parameter in module.parameters()]

    def equal(self, other: Agent) -> bool:
        return all(torch.equal(a, b) for a, b in zip(self.weights(), other.weights(), strict=True))

    def by_hand(
        self, tasks: Mapping[str, Acting | Valuing], steps: int, moved: Sequence[str], limits: Mapping[str, float]
    ) -> None:
        """The same in plain torch: gradients by `torch.autograd.grad`, of what each task feeds."""
        for step in range(steps):
            for parameter in self.weights():
                parameter.grad = None
            for task in tasks.values():
                fed = [p for name in task.feeds if name in moved for p in self.modules[name].parameters()]
                if not fed:
                    continue
                terms = task.loss(self.modules, task.batch(step))
                loss = terms if isinstance(terms, Tensor) else terms["clip"] + terms["entropy"]
                for parameter, gradient in zip(fed, torch.autograd.grad(loss, fed), strict=True):
                    parameter.grad = gradient if parameter.grad is None else parameter.grad + gradient
            for name in moved:
                if name in limits:
                    nn.utils.clip_grad_norm_(self.modules[name].parameters(), limits[name])
            if "all" in limits:
                nn.utils.clip_grad_norm_([p for name in moved for p in self.modules[name].parameters()], limits["all"])
            for name in moved:
                (group,) = self.optimizers[name].param_groups
                rate = group["lr"]
                group["lr"] = rate * self.schedules[name](step)
                self.optimizers[name].step()
                group["lr"] = rate


TASKS: dict[str, Acting | Valuing] = {"act": Acting(), "value": Valuing()}
ALL = ("encoder", "policy", "value")


@pytest.mark.parametrize("limits", [{}, {"all": 0.5}, {"policy": 0.2, "value": 1.0}])
def test_parts_trained_together_with_an_encoder_that_two_tasks_feed(limits: dict[str, float]) -> None:
    ours, theirs = Agent(), Agent()
    over_all = limits.get("all", float("inf"))
    own = {name: limit for name, limit in limits.items() if name != "all"}
    run = train(TASKS, ours.parts(**own), steps=8, max_gradient_norm=over_all)
    theirs.by_hand(TASKS, 8, ALL, limits)
    assert ours.equal(theirs)
    assert set(run.losses) == {"act/clip", "act/entropy", "value"}
    assert run.loss == pytest.approx(sum(run.losses.values()))


def test_limits_of_parts_and_of_all_are_both_kept() -> None:
    agent = Agent()
    for name, module in agent.modules.items():
        agent.optimizers[name] = SGD(module.parameters(), lr=1.0)
    agent.schedules = dict.fromkeys(ALL, lambda step: 1.0)
    before = [weight.detach().clone() for weight in agent.weights()]
    parts = agent.parts(policy=0.01, value=0.02)
    train(TASKS, parts, steps=1, max_gradient_norm=0.1)
    moved = dict.fromkeys(ALL, 0.0)
    old = iter(before)
    for name, module in agent.modules.items():
        moved[name] = torch.cat([(next(old) - p).flatten() for p in module.parameters()]).norm().item()
    whole = sum(size**2 for size in moved.values()) ** 0.5
    assert whole == pytest.approx(0.1, rel=1e-3)
    assert moved["value"] / moved["policy"] == pytest.approx(2, rel=1e-3)


def test_parts_trained_by_one_call_each_and_then_together() -> None:
    ours, theirs = Agent(), Agent()
    train(TASKS, ours.parts(), steps=5, only=("value",))
    theirs.by_hand(TASKS, 5, ("value",), {})
    assert ours.equal(theirs)
    train({"act": TASKS["act"]}, ours.parts(), steps=4, only=("encoder", "policy"))
    theirs.by_hand({"act": TASKS["act"]}, 4, ("encoder", "policy"), {})
    assert ours.equal(theirs)
    train(TASKS, ours.parts(), steps=6)
    theirs.by_hand(TASKS, 6, ALL, {})
    assert ours.equal(theirs)


def test_a_task_that_does_not_feed_a_part_leaves_it_without_its_gradient() -> None:
    ours, theirs = Agent(), Agent()
    tasks: dict[str, Acting | Valuing] = {
        "act": Acting(),
        "value": Valuing(feeds=("value",)),
    }  # the encoder learns from the policy alone
    train(tasks, ours.parts(), steps=5)
    theirs.by_hand(tasks, 5, ALL, {})
    assert ours.equal(theirs)
    other = Agent()
    train(TASKS, other.parts(), steps=5)
    assert not other.equal(ours)


def test_a_task_whose_parts_are_all_frozen_is_left_out() -> None:
    @dataclass(frozen=True)
    class Never(Acting):
        def batch(self, step: int, /) -> Tensor:
            raise AssertionError("asked for a batch")

    agent = Agent()
    run = train({"act": Never(), "value": Valuing()}, agent.parts(), steps=1, only=("value",))
    assert set(run.losses) == {"value"}


def test_nothing_of_a_frozen_part_changes() -> None:
    torch.manual_seed(0)
    encoder = nn.Sequential(nn.Linear(3, 5), nn.BatchNorm1d(5), nn.Dropout(0.5))
    encoder[2].eval()  # modes may differ inside
    encoder[0].weight.requires_grad_(False)
    head = nn.Linear(5, 1)
    before = copy.deepcopy(encoder.state_dict())
    seen: list[tuple[bool, bool]] = []

    def look(run: Run) -> None:
        seen.append((encoder.training, any(p.requires_grad for p in encoder.parameters())))

    parts = {"encoder": Part(encoder), "value": Part(head, (SGD(head.parameters(), lr=0.1),))}
    train(Valuing(), parts, steps=3, callbacks=[look])
    assert all(torch.equal(before[name], value) for name, value in encoder.state_dict().items())
    assert seen == 4 * [(False, False)]
    assert [module.training for module in encoder.modules()] == [True, True, True, False]
    assert [p.requires_grad for p in encoder.parameters()] == [False, True, True, True]
    assert all(p.grad is None for p in encoder.parameters())


def test_a_frozen_part_is_as_it_was_after_an_error() -> None:
    encoder, head = nn.Linear(3, 5), nn.Linear(5, 1)

    def fail(run: Run) -> None:
        raise KeyboardInterrupt

    parts = {"encoder": Part(encoder), "value": Part(head, (SGD(head.parameters(), lr=0.1),))}
    with pytest.raises(KeyboardInterrupt):
        train(Valuing(), parts, steps=3, callbacks=[fail])
    assert encoder.training
    assert all(p.requires_grad for p in encoder.parameters())


def test_gradients_flow_through_a_frozen_part_to_what_stands_in_front() -> None:
    ours, theirs = Agent(), Agent()
    train(TASKS, ours.parts(), steps=4, only=("encoder",))
    theirs.by_hand(TASKS, 4, ("encoder",), {})
    assert ours.equal(theirs)
    assert not torch.equal(ours.weights()[0], Agent().weights()[0])

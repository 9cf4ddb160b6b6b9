"""The loop against updates written out by hand."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.optim import SGD, AdamW, Optimizer

from training import Callback, FunctionTask, Part, Run, TrainingError, constant, train, trapezoid
from training.schedules import Schedule

TARGET = torch.tensor([3.0, -1.0])


class Point(nn.Module):
    """Two parameters; the loss below is a bowl around the target, so that gradients are known."""

    def __init__(self) -> None:
        super().__init__()
        self.x = nn.Parameter(torch.tensor([1.0, 2.0]))
        self.y = nn.Parameter(torch.tensor([0.5]))


def bowl(model: Point, batch: Tensor) -> Tensor:
    """1/2 b |x - target|^2 + 2 b y^2: gradients b (x - target) and 4 b y."""
    return batch * (0.5 * (model.x - TARGET).square().sum() + 2 * model.y.square().sum())


def ones(step: int) -> Tensor:
    return torch.tensor(1.0)


def fit(
    model: Point,
    *optimizers: Optimizer,
    steps: int,
    batches: Callable[[int], Tensor] = ones,
    schedule: Schedule = constant,
    max_gradient_norm: float = math.inf,
    callbacks: Iterable[Callback] = (),
    **of_the_part: Any,
) -> Run:
    parts = {"model": Part(model, optimizers, schedule, **of_the_part)}
    task = FunctionTask(batches, bowl)
    return train(task, parts, steps=steps, max_gradient_norm=max_gradient_norm, callbacks=callbacks)


def test_one_step_equals_the_hand_written_update() -> None:
    model = Point()
    run = fit(model, SGD(model.parameters(), lr=0.1), steps=1)
    assert model.x.tolist() == pytest.approx([1 - 0.1 * (1 - 3), 2 - 0.1 * (2 + 1)])
    assert model.y.tolist() == pytest.approx([0.5 - 0.1 * 2])
    assert run.step == 1
    assert run.loss == pytest.approx(0.5 * (4 + 9) + 2 * 0.25)
    assert run.losses == {"loss": run.loss}
    assert run.gradient_norm == pytest.approx(math.sqrt(4 + 9 + 4))
    assert run.model is model


def test_gradients_do_not_pile_up_and_batches_go_by_step() -> None:
    model, seen = Point(), list[int]()

    def batches(step: int) -> Tensor:
        seen.append(step)
        return torch.tensor(float(step + 1))

    fit(model, SGD(model.parameters(), lr=0.01), batches=batches, steps=4)
    y = 0.5
    for step in range(4):
        y -= 0.01 * 4 * (step + 1) * y
    assert seen == [0, 1, 2, 3]
    assert model.y.item() == pytest.approx(y)


def test_schedule_multiplies_the_rate_of_each_group_and_leaves_the_group_its_own() -> None:
    model = Point()
    optimizer = SGD([{"params": [model.x], "lr": 0.1}, {"params": [model.y], "lr": 0.02}])
    rates: list[list[float]] = []
    fit(
        model,
        optimizer,
        steps=3,
        schedule=trapezoid(warmup=2, steps=3, decay_from=2 / 3, floor=0.0),
        callbacks=[lambda run: rates.append([group["lr"] for group in optimizer.param_groups])],
    )
    x, y = 1.0, 0.5
    for multiplier in (0.5, 1.0, 1.0):
        x -= multiplier * 0.1 * (x - 3)
        y -= multiplier * 0.02 * 4 * y
    assert model.x[0].item() == pytest.approx(x)
    assert model.y.item() == pytest.approx(y)
    assert rates == 4 * [[0.1, 0.02]]


def test_several_optimisers_each_step_their_own_parameters() -> None:
    model = Point()
    fit(model, SGD([model.x], lr=0.1), AdamW([model.y], lr=0.01, weight_decay=0.0), steps=1)
    assert model.x.tolist() == pytest.approx([1.2, 1.7])
    assert model.y.item() == pytest.approx(0.5 - 0.01)  # Adam's first step is the rate times the gradient's sign


@pytest.mark.parametrize("over_all", [True, False])
def test_gradients_are_clipped_together_and_the_norm_is_the_one_before(over_all: bool) -> None:
    model, norm = Point(), math.sqrt(4 + 9 + 4)
    limits: dict[str, Any] = {"max_gradient_norm": 1.0}
    if over_all:
        run = fit(model, SGD(model.parameters(), lr=0.1), steps=1, **limits)
    else:
        parts = {"model": Part(model, (SGD(model.parameters(), lr=0.1),), **limits)}
        run = train(FunctionTask(ones, bowl), parts, steps=1)
    assert run.gradient_norm == pytest.approx(norm)
    assert model.x.tolist() == pytest.approx([1 + 0.1 * 2 / norm, 2 - 0.1 * 3 / norm], abs=1e-6)
    assert model.y.item() == pytest.approx(0.5 - 0.1 * 2 / norm, abs=1e-6)


@pytest.mark.parametrize("limit", [4.0, 4.1231, 4.12311, 4.1232, 5.0])  # the norm is 4.12310562...
def test_clipping_is_that_of_torch_bit_for_bit(limit: float) -> None:
    model, theirs = Point(), Point()
    fit(model, SGD(model.parameters(), lr=0.1), steps=1, max_gradient_norm=limit)
    bowl(theirs, ones(0)).backward()  # type: ignore[no-untyped-call]
    nn.utils.clip_grad_norm_(theirs.parameters(), limit)
    SGD(theirs.parameters(), lr=0.1).step()
    assert torch.equal(model.x, theirs.x)
    assert torch.equal(model.y, theirs.y)


def test_callbacks_see_the_run_before_the_first_step_and_after_each_in_order() -> None:
    model, seen = Point(), list[tuple[str, int, bool]]()

    def note(name: str, run: Run) -> None:
        seen.append((name, run.step, math.isnan(run.loss)))

    callbacks = [lambda run: note("first", run), lambda run: note("second", run)]
    fit(model, SGD(model.parameters(), lr=0.1), steps=2, callbacks=iter(callbacks))
    assert seen == [(name, step, step == 0) for step in range(3) for name in ("first", "second")]


def test_a_run_that_is_complete_is_left_alone() -> None:
    model, called = Point(), list[int]()
    task, parts = FunctionTask(ones, bowl), {"model": Part(model, (SGD(model.parameters(), lr=0.1),))}
    run = Run.of(task, parts)
    run.step = 5
    train(task, parts, steps=5, callbacks=[lambda run: called.append(run.step)], run=run)
    assert model.x.tolist() == [1.0, 2.0]
    assert called == []


def test_a_callback_stops_the_run() -> None:
    model = Point()

    def stop(run: Run) -> None:
        if run.step == 3:
            run.stopped = "enough"

    run = fit(model, SGD(model.parameters(), lr=0.1), steps=9, callbacks=[stop])
    assert (run.step, run.stopped) == (3, "enough")


def test_a_run_of_other_parts_is_refused() -> None:
    task, model = FunctionTask(ones, bowl), Point()
    parts = {"model": Part(model, (SGD(model.parameters(), lr=0.1),))}
    others = {"model": Part(model, (SGD(model.parameters(), lr=0.1),))}
    with pytest.raises(TrainingError, match=r"^run: its parts \('model'\) are not those given .* the same objects"):
        train(task, others, steps=1, run=Run.of(task, parts))
    with pytest.raises(TrainingError, match=r"^run: its tasks \(''\) are not those given"):
        train(FunctionTask(ones, bowl), parts, steps=1, run=Run.of(task, parts))


def test_the_model_of_a_run_of_two_parts_is_refused() -> None:
    run = Run({"a": Part(Point()), "b": Part(Point())}, {})
    with pytest.raises(TrainingError, match=r"^run\.model: expected one part, got 'a', 'b'; take run\.parts\[name\]"):
        _ = run.model

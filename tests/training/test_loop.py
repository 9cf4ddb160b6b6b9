"""The loop against updates written out by hand."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor, nn

from training import NonFiniteLoss, Run, train, trapezoid

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


def test_one_step_equals_the_hand_written_update() -> None:
    model = Point()
    run = train(model, [torch.optim.SGD(model.parameters(), lr=0.1)], ones, bowl, steps=1)
    assert model.x.tolist() == pytest.approx([1 - 0.1 * (1 - 3), 2 - 0.1 * (2 + 1)])
    assert model.y.tolist() == pytest.approx([0.5 - 0.1 * 2])
    assert run.step == 1
    assert run.loss == pytest.approx(0.5 * (4 + 9) + 2 * 0.25)
    assert run.gradient_norm == pytest.approx(math.sqrt(4 + 9 + 4))


def test_gradients_do_not_pile_up_and_batches_go_by_step() -> None:
    model, seen = Point(), list[int]()

    def batches(step: int) -> Tensor:
        seen.append(step)
        return torch.tensor(float(step + 1))

    train(model, [torch.optim.SGD(model.parameters(), lr=0.01)], batches, bowl, steps=4)
    y = 0.5
    for step in range(4):
        y -= 0.01 * 4 * (step + 1) * y
    assert seen == [0, 1, 2, 3]
    assert model.y.item() == pytest.approx(y)


def test_schedule_multiplies_the_rate_of_each_group() -> None:
    model = Point()
    groups = [{"params": [model.x], "lr": 0.1}, {"params": [model.y], "lr": 0.02}]
    schedule = trapezoid(warmup=2, steps=3, decay_from=2 / 3, floor=0.0)
    train(model, [torch.optim.SGD(groups)], ones, bowl, steps=3, schedule=schedule)
    x, y = 1.0, 0.5
    for multiplier in (0.5, 1.0, 1.0):
        x -= multiplier * 0.1 * (x - 3)
        y -= multiplier * 0.02 * 4 * y
    assert model.x[0].item() == pytest.approx(x)
    assert model.y.item() == pytest.approx(y)


def test_several_optimisers_each_step_their_own_parameters() -> None:
    model = Point()
    optimizers = [torch.optim.SGD([model.x], lr=0.1), torch.optim.AdamW([model.y], lr=0.01, weight_decay=0.0)]
    train(model, optimizers, ones, bowl, steps=1)
    assert model.x.tolist() == pytest.approx([1.2, 1.7])
    assert model.y.item() == pytest.approx(0.5 - 0.01)  # Adam's first step is the rate times the gradient's sign


def test_gradients_are_clipped_together_and_the_norm_is_the_one_before() -> None:
    model, norm = Point(), math.sqrt(4 + 9 + 4)
    run = train(model, [torch.optim.SGD(model.parameters(), lr=0.1)], ones, bowl, steps=1, max_gradient_norm=1.0)
    assert run.gradient_norm == pytest.approx(norm)
    assert model.x.tolist() == pytest.approx([1 + 0.1 * 2 / norm, 2 - 0.1 * 3 / norm], abs=1e-6)
    assert model.y.item() == pytest.approx(0.5 - 0.1 * 2 / norm, abs=1e-6)


def test_callbacks_see_the_run_before_the_first_step_and_after_each_in_order() -> None:
    model, seen = Point(), list[tuple[str, int, bool]]()

    def note(name: str, run: Run) -> None:
        seen.append((name, run.step, math.isnan(run.loss)))

    callbacks = [lambda run: note("first", run), lambda run: note("second", run)]
    train(model, [torch.optim.SGD(model.parameters(), lr=0.1)], ones, bowl, steps=2, callbacks=iter(callbacks))
    assert seen == [(name, step, step == 0) for step in range(3) for name in ("first", "second")]


def test_a_run_that_is_complete_is_left_alone() -> None:
    model = Point()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    called: list[int] = []
    run = Run(model, (optimizer,), step=5)
    train(model, [optimizer], ones, bowl, steps=5, callbacks=[lambda run: called.append(run.step)], run=run)
    assert model.x.tolist() == [1.0, 2.0]
    assert called == []


@pytest.mark.parametrize("value", [math.nan, math.inf])
def test_non_finite_loss_names_the_step_and_leaves_the_weights(value: float) -> None:
    model = Point()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1, momentum=0.9)
    reference = Point()
    train(reference, [torch.optim.SGD(reference.parameters(), lr=0.1, momentum=0.9)], ones, bowl, steps=2)

    def batches(step: int) -> Tensor:
        return torch.tensor(value if step == 2 else 1.0)

    with pytest.raises(NonFiniteLoss, match=rf"^loss is {value} at step 2: .*batch 2, and resume"):
        train(model, [optimizer], batches, bowl, steps=5)
    assert torch.equal(model.x, reference.x)
    assert torch.equal(model.y, reference.y)


def test_non_finite_gradient_of_a_finite_loss_leaves_the_weights() -> None:
    model = Point()

    def corner(model: Point, batch: Tensor) -> Tensor:
        return (model.x - model.x.detach()).abs().sqrt().sum()

    with pytest.raises(NonFiniteLoss, match=r"^gradient norm is (nan|inf) at step 0: "):
        train(model, [torch.optim.SGD(model.parameters(), lr=0.1)], ones, corner, steps=1)
    assert model.x.tolist() == [1.0, 2.0]

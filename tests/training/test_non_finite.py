"""A loss or gradient that is not finite: the training stops, says where, and nothing is lost."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn
from torch.optim import SGD

from training import FunctionTask, NonFiniteLoss, Options, Part, Parts, Run, restore, train


def network() -> nn.Sequential:
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(2, 4), nn.BatchNorm1d(4), nn.Linear(4, 1))


def parts_of(model: nn.Module) -> dict[str, Part]:
    return {"model": Part(model, (SGD(model.parameters(), lr=0.1, momentum=0.9),))}


class Two:
    """A loss of two terms, one of which goes wrong at a step."""

    feeds = ("model",)

    def __init__(self, value: float, step: int) -> None:
        self.value, self.wrong = value, step

    def batch(self, step: int, /) -> Tensor:
        x = torch.randn(8, 2, generator=torch.Generator().manual_seed(step))
        return x * self.value if step == self.wrong else x

    def loss(self, parts: Parts, batch: Tensor, /) -> Mapping[str, Tensor]:
        *_, bias = parts["model"].parameters()
        return {"size": parts["model"](batch).square().mean(), "bias": bias.square().sum()}


@pytest.mark.parametrize("value", [math.nan, math.inf])
def test_the_error_names_step_batch_task_and_term_and_the_run_is_saved(tmp_path: Path, value: float) -> None:
    model, expected, rescue = network(), network(), tmp_path / "rescue.pt"
    undisturbed = train({"fit": Two(1.0, 0)}, parts_of(expected), steps=3)
    parts = parts_of(model)
    with pytest.raises(NonFiniteLoss) as caught:
        train({"fit": Two(value, 3)}, parts, steps=9, rescue=rescue)
    assert str(caught.value) == (
        "loss 'fit/size' is nan at step 3 (batch 3 of fit): expected a finite number; the weights are those before the "
        f"step, and the run is saved in {rescue}; lower the learning rate or look at that batch"
    )
    back = Run.of({"fit": Two(1.0, 0)}, parts_of(network()))
    restore(back, rescue)
    assert (back.step, back.loss) == (3, undisturbed.loss)
    for name, tensor in expected.state_dict().items():  # batch norm's statistics too
        assert torch.equal(model.state_dict()[name], tensor), name
        assert torch.equal(back.model.state_dict()[name], tensor), name
    train(back.tasks, back.parts, steps=9, run=back)
    train(undisturbed.tasks, undisturbed.parts, steps=9, run=undisturbed)
    assert torch.equal(back.model.state_dict()["0.weight"], expected.state_dict()["0.weight"])


def test_without_a_place_to_save_it_points_to_the_last_checkpoint() -> None:
    def loss(model: nn.Linear, batch: Tensor) -> Tensor:
        return batch * model.weight.sum()

    task, model = FunctionTask(lambda step: torch.tensor(math.nan), loss), nn.Linear(1, 1)
    with pytest.raises(
        NonFiniteLoss, match=r"^loss 'loss' is nan at step 0 \(batch 0\): .*, and resume from the last che"
    ):
        train(task, parts_of(model), steps=1)


@pytest.mark.parametrize("precision", ["float32", "float16"])
def test_a_gradient_that_is_not_finite_names_its_part(precision: str) -> None:
    class Corner:
        """|x| ** 0.5 at 0: a finite loss, and no gradient."""

        feeds = ("policy", "value")

        def batch(self, step: int, /) -> None: ...

        def loss(self, parts: Parts, batch: None, /) -> Tensor:
            weight, smooth = parts["value"].get_parameter("weight"), parts["policy"].get_parameter("weight")
            return (weight - weight.detach()).abs().sqrt().sum() + smooth.sum()

    policy, value = nn.Linear(1, 1), nn.Linear(1, 1)
    before = value.weight.item()
    parts = {name: Part(m, (SGD(m.parameters(), lr=0.1),)) for name, m in (("policy", policy), ("value", value))}
    options = Options(precision=precision)  # type: ignore[arg-type]
    with pytest.raises(NonFiniteLoss, match=r"^gradient norm of part 'value' is (nan|inf) at step \d+ \(batch \d+\): "):
        train({"": Corner()}, parts, steps=40, options=options)
    assert value.weight.item() == before


def test_the_message_is_one_line(tmp_path: Path) -> None:
    with pytest.raises(NonFiniteLoss) as caught:
        train(Two(math.nan, 0), parts_of(network()), steps=1, rescue=tmp_path / "r.pt")
    assert not re.search(r"\n", str(caught.value))

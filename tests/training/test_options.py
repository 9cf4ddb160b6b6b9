"""Precision, accumulation and compilation: each against the plain loop, or against torch's own tools by hand."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, NamedTuple

import pytest
import torch
from torch import Tensor, nn
from torch.optim import SGD, AdamW, Optimizer

from training import FunctionTask, Options, Part, Parts, Run, TrainingError, precision, train
from training.tasks import rows


def network() -> nn.Sequential:
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(6, 16), nn.Tanh(), nn.Linear(16, 1))


def batches(step: int) -> tuple[Tensor, Tensor]:
    x = torch.randn(12, 6, generator=torch.Generator().manual_seed(step))
    return x, x.sum(1).sin()


def loss(model: nn.Module, batch: tuple[Tensor, Tensor]) -> Tensor:
    predicted: Tensor = model(batch[0])
    return (predicted.squeeze(1) - batch[1]).square().mean()


TASK = FunctionTask(batches, loss)


def sgd(model: nn.Module) -> Optimizer:
    """Not Adam, which a loss of another size leaves as it is."""
    return SGD(model.parameters(), lr=0.05, momentum=0.9)


def adam(model: nn.Module) -> Optimizer:
    return AdamW(model.parameters(), lr=0.01)


def fit(
    options: Options, steps: int = 20, task: Any = TASK, make: Callable[[nn.Module], Optimizer] = sgd
) -> tuple[list[Tensor], list[float], Run]:
    model, losses = network(), list[float]()
    parts = {"model": Part(model, (make(model),))}
    run = train(task, parts, steps=steps, options=options, callbacks=[lambda run: losses.append(run.loss)])
    return [parameter.detach() for parameter in model.parameters()], losses[1:], run


def close(a: list[Tensor], b: list[Tensor], tolerance: float) -> bool:
    return all(torch.allclose(x, y, rtol=tolerance, atol=tolerance) for x, y in zip(a, b, strict=True))


@pytest.mark.parametrize("pieces", [2, 3, 12])
def test_accumulated_pieces_are_the_whole_batch(pieces: int) -> None:
    (ours, losses, _), (whole, expected, _) = fit(Options(accumulate=pieces)), fit(Options())
    assert close(ours, whole, 1e-5)
    assert losses == pytest.approx(expected, rel=1e-5)


def test_pieces_that_do_not_come_out_even_are_refused() -> None:
    with pytest.raises(
        TrainingError, match=r"^batch of shape \(12, 6\): expected rows that 5 pieces .*, got 12; choose"
    ):
        fit(Options(accumulate=5))


def test_accumulation_by_hand_bit_for_bit() -> None:
    ours, _, _ = fit(Options(accumulate=2), steps=3)
    model = network()
    optimizer = sgd(model)
    for step in range(3):
        optimizer.zero_grad()
        x, y = batches(step)
        for half in (slice(0, 6), slice(6, 12)):
            (loss(model, (x[half], y[half])) / 2).backward()  # type: ignore[no-untyped-call]
        optimizer.step()
    assert close(ours, list(model.parameters()), 0.0)


class Named(NamedTuple):
    x: Tensor
    note: str


@dataclass(frozen=True)
class Held:
    x: Tensor
    scale: float


def test_rows_of_batches_of_every_kind() -> None:
    x, scalar = torch.arange(6.0), torch.tensor(3.0)
    assert rows(x, 1, 3).tolist() == [2, 3]
    assert rows((x, [x]), 2, 3)[1][0].tolist() == [4, 5]
    pair = rows({"x": x, "scalar": scalar, "n": 3}, 0, 2)
    assert (pair["x"].tolist(), pair["scalar"], pair["n"]) == ([0, 1, 2], scalar, 3)
    named, held = rows(Named(x, "a"), 1, 2), rows(Held(x, 0.5), 1, 2)
    assert (type(named), named.x.tolist(), named.note) == (Named, [3, 4, 5], "a")
    assert (type(held), held.x.tolist(), held.scale) == (Held, [3, 4, 5], 0.5)


def test_a_task_may_cut_its_batches_itself() -> None:
    class Interleaved(FunctionTask[nn.Module, tuple[Tensor, Tensor]]):
        asked: list[tuple[int, int]] = []  # noqa: RUF012

        def shard(self, batch: tuple[Tensor, Tensor], index: int, count: int, /) -> tuple[Tensor, Tensor]:
            self.asked.append((index, count))
            return batch[0][index::count], batch[1][index::count]

    task = Interleaved(batches, loss)
    (ours, _, _), (whole, _, _) = fit(Options(accumulate=3), steps=2, task=task), fit(Options(), steps=2)
    assert close(ours, whole, 1e-5)
    assert task.asked == [(0, 3), (1, 3), (2, 3)] * 2


def test_bfloat16_is_autocast_by_hand_bit_for_bit_and_weights_stay_float32() -> None:
    ours, _, _ = fit(Options(precision="bfloat16"), steps=5)
    model = network()
    optimizer = sgd(model)
    for step in range(5):
        optimizer.zero_grad()
        with torch.autocast("cpu", torch.bfloat16):
            value = loss(model, batches(step))
        value.backward()  # type: ignore[no-untyped-call]
        optimizer.step()
    assert all(parameter.dtype == torch.float32 for parameter in ours)
    assert close(ours, list(model.parameters()), 0.0)
    assert not close(ours, fit(Options(), steps=5)[0], 0.0)


def test_float16_is_torchs_own_scaler_by_hand_bit_for_bit() -> None:
    """With losses so large that the first scales overflow, so that steps are left out."""

    def large(model: nn.Module, batch: tuple[Tensor, Tensor]) -> Tensor:
        return 3e4 * loss(model, batch)

    ours, _, run = fit(Options(precision="float16"), steps=25, task=FunctionTask(batches, large), make=adam)
    model = network()
    optimizer, scaler = adam(model), torch.amp.GradScaler("cpu", init_scale=precision.FIRST)
    for step in range(25):
        optimizer.zero_grad()
        with torch.autocast("cpu", torch.float16):
            value = large(model, batches(step))
        scaler.scale(value).backward()  # type: ignore[no-untyped-call]
        scaler.step(optimizer)
        scaler.update()
    assert run.loss_scale is not None
    assert run.loss_scale[0] == scaler.get_scale() < precision.FIRST
    assert close(ours, list(model.parameters()), 0.0)


def test_the_scale_doubles_after_many_steps_and_halves_down_to_one() -> None:
    scale = (8.0, 0)
    for _ in range(precision.STEPS_BEFORE_GROWTH):
        assert scale[0] == 8.0
        scale = precision.after_step(scale)
    assert scale == (16.0, 0)
    assert precision.after_overflow(precision.after_step(scale)) == (8.0, 0)
    assert precision.after_overflow((1.0, 3)) == (1.0, 0)


def test_a_compiled_loss_gives_the_same_curve(monkeypatch: pytest.MonkeyPatch) -> None:
    from torch._inductor import config as inductor

    compiled: list[object] = []
    torch_compile: Any = torch.compile

    def whole(function: object) -> object:
        compiled.append(function)
        return torch_compile(function, fullgraph=True)  # an error where it falls back to plain Python

    monkeypatch.setattr(torch, "compile", whole)

    class Both:
        feeds = ("model",)

        def batch(self, step: int, /) -> tuple[Tensor, Tensor]:
            return batches(step)

        def loss(self, parts: Parts, batch: tuple[Tensor, Tensor], /) -> Mapping[str, Tensor]:
            size = sum(parameter.square().sum() for parameter in parts["model"].parameters())
            return {"error": loss(parts["model"], batch), "size": 0.01 * torch.as_tensor(size)}

    (plain, expected, _) = fit(Options(), task=Both())
    assert not compiled
    with inductor.patch(compile_threads=1):  # processes that wait to compile cost more than there is to compile
        (ours, losses, run) = fit(Options(compile=True), task=Both())
    assert len(compiled) == 1
    assert close(ours, plain, 1e-4)
    assert losses == pytest.approx(expected, rel=1e-4)
    assert set(run.losses) == {"error", "size"}


def test_two_optimisers_are_left_out_together_where_one_gradient_overflows() -> None:
    class Apart:
        feeds = ("a", "b")

        def batch(self, step: int, /) -> Tensor:
            return torch.full((4, 2), 100.0 if step == 0 else 1.0)

        def loss(self, parts: Parts, batch: Tensor, /) -> Mapping[str, Tensor]:
            return {"a": parts["a"](batch).square().mean(), "b": parts["b"](batch / batch.amax()).square().mean()}

    torch.manual_seed(0)
    a, b = nn.Linear(2, 2), nn.Linear(2, 2)
    before = b.weight.detach().clone()
    parts = {name: Part(m, (SGD(m.parameters(), lr=1e-4),)) for name, m in (("a", a), ("b", b))}
    run = train(Apart(), parts, steps=1, options=Options(precision="float16"))
    assert run.loss_scale == (precision.FIRST / 2, 0)
    assert torch.equal(b.weight, before)

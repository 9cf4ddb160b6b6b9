"""The training loop: batch, loss, gradient, clip, step, callbacks.

    theta_{t+1} = theta_t - multiplier(t) * optimiser_step(grad L(theta_t; batch(t)))

The loop knows a model, optimisers, a schedule, batches and a loss, and nothing of what they mean. A batch is a
function of the step number alone, so a run that was killed and resumed sees exactly the batches that it would have
seen: resumption is exact (bit-identical on CPU) without any bookkeeping of data order.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import TypeVar

import torch
from torch import Tensor, nn
from torch.optim import Optimizer

from training.schedules import Schedule, constant

ModelT = TypeVar("ModelT", bound=nn.Module)
BatchT = TypeVar("BatchT")
Callback = Callable[["Run"], None]


class NonFiniteLoss(RuntimeError):  # noqa: N818 (what happened, not that it is an error)
    """The loss or its gradient became infinite or not a number; the weights are those before the step that failed."""


@dataclass
class Run:
    """What changes while training, and what a callback may look at.

    `step` counts completed optimiser steps. `loss` and `gradient_norm` (before clipping) are those of the last step,
    NaN before the first.
    """

    model: nn.Module
    optimizers: tuple[Optimizer, ...]
    step: int = 0
    loss: float = math.nan
    gradient_norm: float = math.nan


def train(
    model: ModelT,
    optimizers: Sequence[Optimizer],
    batches: Callable[[int], BatchT],
    loss: Callable[[ModelT, BatchT], Tensor],
    *,
    steps: int,
    schedule: Schedule = constant,
    max_gradient_norm: float = math.inf,
    callbacks: Iterable[Callback] = (),
    run: Run | None = None,
) -> Run:
    """Train until `steps` optimiser steps are complete and return the run.

    Args:
        optimizers: one or several, each over its own part of the parameters.
        batches: the batch of a step number (0-based); must depend on nothing else.
        loss: a scalar for a model and a batch.
        schedule: multiplies every parameter group's own learning rate, as a function of the step number.
        max_gradient_norm: gradients are scaled down to this 2-norm over all parameters.
        callbacks: called in order with the run, once before the first step and then after each.
        run: a run restored from a checkpoint (`training.restore`); training goes on from its step.

    Raises:
        NonFiniteLoss: naming the step, before the weights are touched by it.
    """
    run = run or Run(model, tuple(optimizers))
    callbacks = tuple(callbacks)
    groups = [group for optimizer in optimizers for group in optimizer.param_groups]
    for group in groups:
        group.setdefault("plateau_lr", group["lr"])
    if run.step == 0:
        for callback in callbacks:
            callback(run)
    while run.step < steps:
        for group in groups:
            group["lr"] = group["plateau_lr"] * schedule(run.step)
        value = loss(model, batches(run.step))
        run.loss = _finite("loss", value.detach(), run.step)
        model.zero_grad(set_to_none=True)
        value.backward()  # type: ignore[no-untyped-call]
        norm = torch.nn.utils.clip_grad_norm_(model.parameters(), max_gradient_norm)
        run.gradient_norm = _finite("gradient norm", norm, run.step)
        for optimizer in optimizers:
            optimizer.step()
        run.step += 1
        for callback in callbacks:
            callback(run)
    return run


def _finite(name: str, value: Tensor, step: int) -> float:
    number = float(value)
    if not math.isfinite(number):
        raise NonFiniteLoss(
            f"{name} is {number} at step {step}: expected a finite number; lower the learning rate or look at batch "
            f"{step}, and resume from the last checkpoint"
        )
    return number

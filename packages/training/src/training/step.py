"""One optimiser step, with everything that does not change from step to step worked out before the first."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import torch
from torch import Tensor, nn

from training import checkpoints, precision, processes
from training.clipping import clip_to, norm_of
from training.errors import NonFiniteLoss
from training.gradients import Source, backward, backward_checked, sources
from training.options import Options
from training.parts import Part
from training.run import Run
from training.wiring import Wiring


@dataclass
class Step:
    """The parameters of a call of `train`, and what is done with them in each step.

    Attributes:
        groups: of parameters whose norm is taken: the parts where one of them has a limit, otherwise all together.
        limits: the largest norm of each group.
        sizes: norm of each group's gradient in this step.
        before: copies of batch norm's statistics, from the beginning of this step.
    """

    wiring: Wiring
    sources: Sequence[Source]
    options: Options
    max_gradient_norm: float
    parameters: list[nn.Parameter]
    groups: Mapping[str, Sequence[nn.Parameter]]
    limits: list[float]
    before: list[Tensor]
    sizes: list[float] = field(default_factory=list)
    differentiate: Callable[..., dict[str, Tensor]] = backward_checked

    @classmethod
    def of(cls, wiring: Wiring, options: Options, max_gradient_norm: float) -> Step:
        parameters = [parameter for part in wiring.trained.values() for parameter in part]
        limits = [part.max_gradient_norm for part in wiring.parts.values()]
        groups = wiring.trained
        if not any(map(math.isfinite, limits)):
            limits, groups = [math.inf], {"": parameters}
        before = [tensor.clone() for tensor in wiring.statistics]
        return cls(wiring, sources(wiring, options), options, max_gradient_norm, parameters, groups, limits, before)

    @property
    def device(self) -> torch.device:
        return self.parameters[0].device

    def gradients(self, run: Run) -> dict[str, Tensor]:
        """Set the gradient of every parameter, over all tasks and processes; returns the terms of the loss."""
        if self.before:
            torch._foreach_copy_(self.before, self.wiring.statistics)
        for parameter in self.parameters:
            parameter.grad = None
        terms: dict[str, Tensor] = {}
        for source in self.sources:
            terms.update(self.differentiate(source, self.wiring.modules, run, self.options, self.device))
        self.differentiate = backward  # whether parts are reached is seen in the first step
        if run.processes > 1:
            processes.average_gradients(self.parameters)
            processes.average_statistics(self.wiring.statistics)
            terms = processes.average_terms(terms)
        if run.loss_scale is not None:
            torch._foreach_mul_([p.grad for p in self.parameters if p.grad is not None], 1 / run.loss_scale[0])
        return terms

    def measured_finite(self, run: Run, terms: Mapping[str, Tensor], rescue: Path | None) -> bool:
        """Set what the run says of this step; False if it is to be left out, since a float16 gradient overflowed.

        Raises:
            NonFiniteLoss: if the loss or its gradient is not finite.
        """
        norms = [norm_of(group) for group in self.groups.values()]
        numbers = _numbers([*terms.values(), *norms])
        losses, self.sizes = dict(zip(terms, numbers, strict=False)), numbers[len(terms) :]
        norm = self.sizes[0] if len(self.sizes) == 1 else math.hypot(*self.sizes)
        loss = sum(losses.values())
        if math.isfinite(loss) and math.isfinite(norm):
            run.losses, run.loss, run.gradient_norm = losses, loss, norm
            if run.loss_scale is not None:
                run.loss_scale = precision.after_step(run.loss_scale)
            return True
        if math.isfinite(loss) and run.loss_scale is not None and run.loss_scale[0] > precision.SMALLEST:
            run.losses, run.loss, run.gradient_norm = losses, loss, norm
            run.loss_scale = precision.after_overflow(run.loss_scale)
            return False
        raise self._not_finite(run, losses, rescue)

    def clip(self) -> None:
        """Scale gradients down to the limit of their part, then to that of all."""
        for group, size, limit in zip(self.groups.values(), self.sizes, self.limits, strict=True):
            clip_to(limit, group, size)
        clipped = map(min, self.sizes, self.limits)
        clip_to(self.max_gradient_norm, self.parameters, math.hypot(*clipped))

    def move(self, step: int) -> None:
        """Let every optimiser step at its scheduled rate. Between steps, groups have the rate that they were given."""
        for part in self.wiring.parts.values():
            _move(part, part.schedule(step))

    def _not_finite(self, run: Run, losses: Mapping[str, float], rescue: Path | None) -> NonFiniteLoss:
        """Put batch norm's statistics back, save the run, and say what happened."""
        if self.before:
            torch._foreach_copy_(self.wiring.statistics, self.before)
        bad = {f"loss {name!r}": value for name, value in losses.items() if not math.isfinite(value)} or {
            f"gradient norm of part {name!r}": float(norm_of(group))
            for name, group in self.wiring.trained.items()
            if not math.isfinite(float(norm_of(group)))
        }
        what = " and ".join(f"{name} is {value}" for name, value in bad.items())
        fed = [source.feed.name for source in self.sources if source.feed.name]
        batch = f"batch {run.step}" + (f" of {', '.join(fed)}" if fed else "")
        remedy = "resume from the last checkpoint"
        if rescue is not None:
            checkpoints.save(run, rescue)
            remedy = f"the run is saved in {rescue}"
        return NonFiniteLoss(
            f"{what} at step {run.step} ({batch}): expected a finite number; the weights are those before the step, "
            f"and {remedy}; lower the learning rate or look at that batch"
        )


def _move(part: Part, multiplier: float) -> None:
    groups = [group for optimizer in part.optimizers for group in optimizer.param_groups]
    rates = [group["lr"] for group in groups]
    try:
        for group, rate in zip(groups, rates, strict=True):
            group["lr"] = rate * multiplier
        for optimizer in part.optimizers:
            optimizer.step()
    finally:
        for group, rate in zip(groups, rates, strict=True):
            group["lr"] = rate


def _numbers(scalars: Sequence[Tensor]) -> list[float]:
    """Their values; one transfer where they are on another device."""
    if all(scalar.is_cpu for scalar in scalars):
        return [float(scalar) for scalar in scalars]
    device = next(scalar.device for scalar in scalars if not scalar.is_cpu)
    found: list[float] = torch.stack([scalar.detach().double().reshape(()).to(device) for scalar in scalars]).tolist()
    return found

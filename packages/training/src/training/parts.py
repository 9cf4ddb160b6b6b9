"""Parts: modules with optimisers and a schedule of their own, trained, frozen or shared.

An agent is a mapping of parts, say an encoder, a policy and a value function. A call of `training.train` moves the
parts that have optimisers (or those of them that `only` names) and leaves every other as it is.
"""

from __future__ import annotations

import contextlib
import math
from collections.abc import Iterable, Iterator
from dataclasses import dataclass

from torch import nn
from torch.optim import Optimizer

from training.schedules import Schedule, constant


@dataclass(frozen=True)
class Part:
    """A module, and how it is trained.

    Attributes:
        optimizers: one or several, each over its own share of the parameters; none: the part is frozen.
        schedule: multiplies the learning rate of every parameter group, as a function of the step number (0-based).
        max_gradient_norm: gradients are scaled down to this 2-norm over the part's parameters.
    """

    module: nn.Module
    optimizers: tuple[Optimizer, ...] = ()
    schedule: Schedule = constant
    max_gradient_norm: float = math.inf

    def held(self) -> list[nn.Parameter]:
        """The parameters that the optimisers move, in the module's order."""
        held = {id(p) for o in self.optimizers for group in o.param_groups for p in group["params"]}
        return [parameter for parameter in self.module.parameters() if id(parameter) in held]


@contextlib.contextmanager
def frozen(modules: Iterable[nn.Module]) -> Iterator[None]:
    """Inside, nothing of the modules changes; afterwards they are as they were.

    Their parameters need no gradient, and they are in evaluation mode: no dropout, and batch norm uses and keeps its
    running statistics. Gradients still flow through them to what stands in front.
    """
    modules = tuple(modules)
    modes = [(module, module.training) for root in modules for module in root.modules()]
    needed = [(parameter, parameter.requires_grad) for root in modules for parameter in root.parameters()]
    try:
        for root in modules:
            root.eval()
        for parameter, _ in needed:
            parameter.requires_grad_(False)
        yield
    finally:
        for module, mode in modes:
            module.training = mode
        for parameter, need in needed:
            parameter.requires_grad_(need)

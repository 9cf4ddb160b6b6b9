"""How the networks are trained: stochastic gradient descent with momentum and a rate that falls in steps.

He et al. 2016, section 4.2: batches of 128, rate 0.1, divided by 10 after 32k and 48k of 64k steps, momentum 0.9,
weight decay 0.0001 on every parameter. For 110 layers a rate of 0.1 is too large to start with: it is 0.01 until the
training error is below 80 %, and the schedule goes on from there as if nothing had happened.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

import torch
from torch import nn

from training.parts import Part
from training.run import Run
from training.schedules import Schedule
from training.vision.augmentation import Augmentation
from training.vision.classification import error
from training.vision.images import LabelledImages


@dataclass(frozen=True)
class Recipe:
    """How a network is trained; the defaults are the paper's.

    Args:
        divide_at: steps after which the rate is divided by 10.
        warm_up_error: the rate starts at a tenth until the training error is below this share; None for no warm-up.
    """

    steps: int = 64_000
    divide_at: tuple[int, ...] = (32_000, 48_000)
    batch_size: int = 128
    learning_rate: float = 0.1
    momentum: float = 0.9
    weight_decay: float = 1e-4
    augmentation: Augmentation = field(default_factory=Augmentation)
    warm_up_error: float | None = None


def recipe_for(depth: int) -> Recipe:
    """The paper's recipe: with a warm-up from 110 layers on."""
    return Recipe(warm_up_error=0.8 if depth >= 110 else None)


def divided(at: tuple[int, ...], by: float = 10.0) -> Schedule:
    """1, divided by `by` after each of the given numbers of steps."""
    return lambda step: float(by ** -sum(step >= number for number in at))


class WarmUp:
    """A small rate until the training error has fallen below a level: a schedule and the callback that ends it.

    `multiplier` is the schedule. The callback, called with the run after every step, looks at the error every
    `interval` steps on `data`. When the warm-up ended is part of checkpoints.

    Args:
        schedule: what the rate follows apart from the warm-up; it counts steps from the start, not from its end.
        data: training images to measure the error on.
        below: the error, as a share, under which the warm-up ends.
    """

    def __init__(
        self,
        schedule: Schedule,
        data: LabelledImages,
        *,
        below: float = 0.8,
        factor: float = 0.1,
        interval: int = 50,
        part: str = "model",
    ) -> None:
        self.schedule, self.data, self.below, self.factor = schedule, data, below, factor
        self.interval, self.part = interval, part
        self.ended_at: int | None = None

    def multiplier(self, step: int) -> float:
        return self.schedule(step) * (self.factor if self.ended_at is None else 1.0)

    def __call__(self, run: Run) -> None:
        if self.ended_at is not None or run.step == 0 or run.step % self.interval:
            return
        if error(run.parts[self.part].module, self.data) < self.below:
            self.ended_at = run.step

    def state_dict(self) -> dict[str, object]:
        return {"ended_at": self.ended_at}

    def load_state_dict(self, state: dict[str, object]) -> None:
        ended_at = state["ended_at"]
        self.ended_at = None if ended_at is None else int(str(ended_at))


def part(network: nn.Module, recipe: Recipe, data: LabelledImages) -> tuple[Part, tuple[Callable[[Run], None], ...]]:
    """The network as a part to train by a recipe, and the callbacks that the recipe needs.

    Args:
        data: training images that a warm-up measures its error on.
    """
    optimizer = torch.optim.SGD(
        network.parameters(), lr=recipe.learning_rate, momentum=recipe.momentum, weight_decay=recipe.weight_decay
    )
    schedule = divided(recipe.divide_at)
    if recipe.warm_up_error is None:
        return Part(network, (optimizer,), schedule), ()
    warm_up = WarmUp(schedule, data, below=recipe.warm_up_error)
    return Part(network, (optimizer,), warm_up.multiplier), (warm_up,)

"""What changes while training, and what a callback may look at."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from torch import nn

from training import notebook
from training.errors import TrainingError
from training.parts import Part
from training.tasks import Task, named

Callback = Callable[["Run"], None]


@dataclass
class Run:
    """The state of a training, which a checkpoint holds.

    Attributes:
        tasks: by name; a task that stands alone has the empty name.
        step: completed optimiser steps.
        loss: of the last step, summed over tasks and terms; NaN before the first.
        losses: the same, apart: by "task/term", or "term" where one task stands alone, or "loss".
        gradient_norm: of the last step, over all trained parts, before clipping; NaN before the first. Not finite after
            a step that was left out since a float16 gradient overflowed.
        metrics: what `training.evaluate` measured at this step; empty at others.
        stopped: the reason why a callback ended the training; None while it goes on.
        steps: where the call of `train` ends.
        callbacks: those of the call of `train`.
        restored: states of callbacks, read from a checkpoint, until `train` hands them over.
        beginning: the state before callbacks were called the first time, while they are: a checkpoint of step 0 holds
            it, since a run resumed from there calls them anew.
        loss_scale: by which a float16 loss is scaled, and for how many steps it held.
        process, processes: which of how many processes this one is (`Options.data_parallel`).
    """

    parts: Mapping[str, Part]
    tasks: Mapping[str, Task[Any]]
    step: int = 0
    loss: float = math.nan
    losses: dict[str, float] = field(default_factory=dict)
    gradient_norm: float = math.nan
    metrics: dict[str, float] = field(default_factory=dict)
    stopped: str | None = None
    steps: int = 0
    callbacks: tuple[Callback, ...] = ()
    restored: list[tuple[str, dict[str, Any]]] | None = None
    beginning: dict[str, Any] | None = None
    loss_scale: tuple[float, int] | None = None
    process: int = 0
    processes: int = 1

    @classmethod
    def of(cls, tasks: Task[Any] | Mapping[str, Task[Any]], parts: Mapping[str, Part]) -> Run:
        """A run before its first step, of what `train` takes."""
        return cls(parts, named(tasks))

    @property
    def model(self) -> nn.Module:
        """The module of the only part.

        Raises:
            TrainingError: if there are several.
        """
        if len(self.parts) != 1:
            raise TrainingError(
                f"run.model: expected one part, got {', '.join(map(repr, self.parts))}; take run.parts[name].module"
            )
        (part,) = self.parts.values()
        return part.module

    def __repr__(self) -> str:
        return notebook.run_text(self)

    def _repr_html_(self) -> str:
        return notebook.run_html(self)

"""The training loop: batches, losses, gradients, clip, step, callbacks.

    g_p      =  clip(sum over the tasks that feed part p of  d L_task(theta; batch_task(t)) / d theta_p)
    theta_p <-  theta_p - multiplier_p(t) * optimiser_step_p(g_p)

The loop knows parts, optimisers, schedules and tasks, and nothing of what they mean: a residual network that learns to
tell images apart, a language model and an agent that learns by trial are trained by it alike. A batch is a function of
the step number, or of a state that checkpoints hold, so a run that was killed and resumed is the run that it would have
been (`training.checkpoints`).
"""

from __future__ import annotations

import contextlib
import copy
import math
from collections.abc import Collection, Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

from training import checkpoints, precision, processes
from training.errors import TrainingError
from training.options import Options
from training.parts import Part, frozen
from training.run import Callback, Run
from training.stateful import Beginning, Closing, check_order, give_back, inner
from training.step import Step
from training.tasks import Restricted, Task, named
from training.wiring import wire


def train(
    tasks: Task[Any] | Mapping[str, Task[Any]],
    parts: Mapping[str, Part],
    *,
    steps: int,
    only: Collection[str] | None = None,
    max_gradient_norm: float = math.inf,
    options: Options = Options(),  # noqa: B008 (frozen)
    callbacks: Iterable[Callback] = (),
    rescue: Path | None = None,
    run: Run | None = None,
) -> Run:
    """Train until `steps` optimiser steps are complete, or a callback stops the run, and return the run.

    Args:
        tasks: one, or several by name. Where two feed a part, their gradients add up. A task that feeds no part that is
            trained here is left out.
        parts: what the tasks' losses are given, by name; those without optimisers are frozen (`training.parts`).
        only: names of the parts that this call trains; all others are frozen.
        max_gradient_norm: gradients are scaled down to this 2-norm over all trained parts together, after each part's
            own `max_gradient_norm`.
        callbacks: called in order with the run, once before the first step and then after each. `checkpoint` belongs
            behind those that keep a state or write a log.
        rescue: where the run is saved when a loss or gradient is not finite. Weights, batch norm's statistics and
            optimisers in it are those before that step; random state and states of tasks are those after its batch.
        run: a run restored from a checkpoint (`training.restore`); training goes on from its step.

    Raises:
        TrainingError: if parts, tasks and options do not fit together.
        NonFiniteLoss: naming step, batch, task and term, before the weights are touched by the step.
    """
    run = run or Run.of(tasks, parts)
    callbacks = tuple(callbacks)
    _same(run, named(tasks), parts)
    wiring = wire(run.tasks, parts, only)
    check_order(callbacks)
    for task in run.tasks.values():
        if isinstance(task, Restricted):
            task.check_options(options)
    if run.restored is not None:
        give_back(callbacks, run.restored)
    run.restored, run.callbacks, run.steps = None, callbacks, steps
    if options.data_parallel:
        run.process, run.processes = processes.join()
        processes.start_alike(part.module for part in parts.values())
    run.loss_scale = (run.loss_scale or (precision.FIRST, 0)) if options.precision == "float16" else None
    step = Step.of(wiring, options, max_gradient_norm)
    with frozen(wiring.frozen), _opened(callbacks, run):
        if run.step == 0:
            run.beginning = copy.deepcopy(checkpoints.of_process(run))
            _call(callbacks, run)
            run.beginning = None
        while run.step < steps and run.stopped is None:
            terms = step.gradients(run)
            if step.measured_finite(run, terms, rescue):
                step.clip()
                step.move(run.step)
            run.step += 1
            run.metrics.clear()
            _call(callbacks, run)
    return run


def _call(callbacks: Iterable[Callback], run: Run) -> None:
    for callback in callbacks:
        callback(run)


@contextlib.contextmanager
def _opened(callbacks: Iterable[Callback], run: Run) -> Iterator[None]:
    """Tell callbacks where the run begins, and close what they hold open, however it ends."""
    try:
        for callback in map(inner, callbacks):
            if isinstance(callback, Beginning):
                callback.begin(run)
        yield
    finally:
        for callback in map(inner, callbacks):
            if isinstance(callback, Closing):
                callback.close()


def _same(run: Run, tasks: Mapping[str, Task[Any]], parts: Mapping[str, Part]) -> None:
    """A run goes on with what it was made of."""
    pairs = ("parts", run.parts, parts), ("tasks", run.tasks, tasks)
    for what, its, given in pairs:
        if its.keys() != given.keys() or any(its[name] is not given[name] for name in its):
            raise TrainingError(
                f"run: its {what} ({', '.join(map(repr, its))}) are not those given ({', '.join(map(repr, given))}): "
                f"expected the same objects; give `train` the {what} that the run was made of"
            )

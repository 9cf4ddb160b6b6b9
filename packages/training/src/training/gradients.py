"""From tasks to gradients: the batch of a step, its loss, and where the gradient goes.

    grad theta_p += d L_task / d theta_p     for every part p that the task feeds, and for no other

Losses of several tasks add up in the parts that they share.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from training.errors import TrainingError
from training.options import Options
from training.precision import autocast
from training.run import Run
from training.tasks import Parts, Terms, piece, total
from training.wiring import Feed, Wiring


@dataclass(frozen=True)
class Source:
    """One task, ready to be differentiated."""

    feed: Feed
    loss: Callable[[Parts, Any], Terms]
    inputs: Sequence[nn.Parameter]


def sources(wiring: Wiring, options: Options) -> list[Source]:
    return [
        Source(
            feed,
            torch.compile(feed.task.loss) if options.compile else feed.task.loss,
            [parameter for parameters in feed.parameters.values() for parameter in parameters],
        )
        for feed in wiring.feeds
    ]


def backward(source: Source, modules: Parts, run: Run, options: Options, device: torch.device) -> dict[str, Tensor]:
    """Add the gradient of a task at the run's step to `.grad`, and return its terms, detached.

    What is added is this process' own: the mean over its pieces, times the scale of the loss.
    """
    feed, pieces = source.feed, options.accumulate
    batch = feed.task.batch(run.step)
    scale = (run.loss_scale[0] if run.loss_scale else 1.0) / pieces
    shared = pieces * run.processes
    found: dict[str, Tensor] = {}
    for index in range(pieces):
        part = batch if shared == 1 else piece(feed.task, batch, run.process * pieces + index, shared)
        with autocast(options.precision, device):
            terms = source.loss(modules, part)
        value = total(terms)
        _differentiable(source, value)
        if scale != 1.0:
            value = scale * (value.float() if value.dtype.itemsize < 4 else value)  # 16 bits would overflow
        value.backward(inputs=source.inputs)  # type: ignore[no-untyped-call]
        for name, term in _named(feed.name, terms).items():
            share = term.detach() if pieces == 1 else term.detach() / pieces
            found[name] = found[name] + share if name in found else share
    return found


def _named(task: str, terms: Terms) -> Mapping[str, Tensor]:
    if isinstance(terms, Tensor):
        return {task or "loss": terms}
    return {f"{task}/{name}" if task else name: term for name, term in terms.items()}


def _differentiable(source: Source, value: Tensor) -> None:
    if value.numel() != 1:
        raise TrainingError(
            f"{source.feed.described()}: expected a scalar loss, got shape {tuple(value.shape)}; take its mean"
        )
    if not value.requires_grad:
        raise _unreached(source, list(source.feed.parameters))


def _unreached(source: Source, parts: Sequence[str]) -> TrainingError:
    names = ", ".join(map(repr, parts))
    return TrainingError(
        f"the loss of {source.feed.described()} feeds {names} and gives no parameter of it a gradient: expected one; "
        "use the part in the loss, outside of torch.no_grad and without detach, or take it out of `feeds`"
    )


def backward_checked(
    source: Source, modules: Parts, run: Run, options: Options, device: torch.device
) -> dict[str, Tensor]:
    """`backward`, and see whether each part that the task feeds gets a gradient.

    Raises:
        TrainingError: naming the parts that get none.
    """
    reached: set[str] = set()
    handles = [
        parameter.register_post_accumulate_grad_hook(  # type: ignore[no-untyped-call]
            lambda _, part=part: reached.add(part)
        )
        for part, parameters in source.feed.parameters.items()
        for parameter in parameters
    ]
    try:
        found = backward(source, modules, run, options, device)
    finally:
        for handle in handles:
            handle.remove()
    missing = [part for part in source.feed.parameters if part not in reached]
    if missing:
        raise _unreached(source, missing)
    return found

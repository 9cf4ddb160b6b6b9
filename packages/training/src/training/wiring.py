"""Which task feeds which part: worked out, and checked, before the first step."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from torch import Tensor, nn

from training.errors import TrainingError
from training.parts import Part
from training.tasks import Task


@dataclass(frozen=True)
class Feed:
    """A task that is used, and the parameters that the gradient of its loss goes to."""

    name: str
    task: Task[Any]
    parameters: Mapping[str, Sequence[nn.Parameter]]  # by part

    def described(self) -> str:
        return f"task {self.name!r}" if self.name else "the task"


@dataclass(frozen=True)
class Wiring:
    """What a call of `train` moves, and by what.

    Attributes:
        trained: parameters of each trained part, in the order of its module.
        frozen: modules that stay as they are.
        statistics: what batch norm gathers in the trained parts.
    """

    modules: Mapping[str, nn.Module]
    parts: Mapping[str, Part]
    trained: Mapping[str, Sequence[nn.Parameter]]
    frozen: Sequence[nn.Module]
    feeds: Sequence[Feed]
    statistics: list[Tensor]


def wire(tasks: Mapping[str, Task[Any]], parts: Mapping[str, Part], only: Collection[str] | None) -> Wiring:
    """Raises TrainingError if a task or part is left over, or a parameter belongs to two parts."""
    chosen = _chosen(parts, only)
    for name, task in tasks.items():
        if isinstance(task.feeds, str):
            raise TrainingError(f"feeds: expected a tuple of names, got {task.feeds!r}; write ({task.feeds!r},)")
        unknown = [part for part in task.feeds if part not in parts]
        if unknown or not task.feeds:
            raise TrainingError(
                f"{f'task {name!r}' if name else 'the task'} feeds {', '.join(map(repr, unknown)) or 'nothing'}: "
                f"expected parts among {', '.join(map(repr, parts))}; correct its `feeds`, or add the part"
            )
    trained = {name: _parameters(name, parts[name]) for name in chosen}
    fed = {part for task in tasks.values() for part in task.feeds}
    for name in chosen:
        if name not in fed:
            raise TrainingError(
                f"part {name!r} is to be trained, and no task feeds it: the tasks feed "
                f"{', '.join(map(repr, sorted(fed)))}; add it to a task's `feeds`, or freeze it (without optimizers, "
                "or by `only`)"
            )
    _check_shared(parts, trained)
    feeds = [
        Feed(name, task, {part: trained[part] for part in task.feeds if part in trained})
        for name, task in tasks.items()
        if any(part in trained for part in task.feeds)
    ]
    return Wiring(
        {name: part.module for name, part in parts.items()},
        {name: parts[name] for name in chosen},
        trained,
        [part.module for name, part in parts.items() if name not in trained],
        feeds,
        [tensor for name in chosen for tensor in _statistics(parts[name].module)],
    )


def _chosen(parts: Mapping[str, Part], only: Collection[str] | None) -> list[str]:
    able = [name for name, part in parts.items() if part.optimizers]
    if only is None:
        if not able:
            raise TrainingError(f"parts {', '.join(map(repr, parts))}: expected one with optimizers, all are frozen")
        return able
    names = [only] if isinstance(only, str) else list(only)
    if not names:
        raise TrainingError(
            f"only is empty: expected names among {', '.join(map(repr, able))}, or None for all of them"
        )
    for name in names:
        if name not in able:
            why = "has no optimizers" if name in parts else "is no part"
            raise TrainingError(f"only: {name!r} {why}; expected names among {', '.join(map(repr, able))}")
    return [name for name in able if name in names]


def _parameters(name: str, part: Part) -> list[nn.Parameter]:
    """What the optimisers move and needs a gradient."""
    own = {id(parameter) for parameter in part.module.parameters()}
    for optimizer in part.optimizers:
        for group in optimizer.param_groups:
            for parameter in group["params"]:
                if id(parameter) not in own:
                    raise TrainingError(
                        f"part {name!r}: {type(optimizer).__name__} moves a parameter of shape "
                        f"{tuple(parameter.shape)} that is not in the part's module; give it this module's parameters"
                    )
    found = [parameter for parameter in part.held() if parameter.requires_grad]
    if not found:
        raise TrainingError(f"part {name!r}: expected parameters that need a gradient, found none; set requires_grad")
    return found


def _check_shared(parts: Mapping[str, Part], trained: Mapping[str, Sequence[nn.Parameter]]) -> None:
    owners: dict[int, tuple[str, str]] = {}
    for name, part in parts.items():
        for parameter_name, parameter in part.module.named_parameters():
            other, other_name = owners.setdefault(id(parameter), (name, parameter_name))
            if other != name and (name in trained or other in trained):
                raise TrainingError(
                    f"parts {other!r} and {name!r} share a parameter ({other_name!r}, {parameter_name!r}): expected "
                    "each in one part; make the shared module a part of its own, and name it in the tasks' `feeds`"
                )


def _statistics(module: nn.Module) -> list[Tensor]:
    return [
        buffer
        for child in module.modules()
        if getattr(child, "track_running_stats", False)
        for buffer in child.buffers(recurse=False)
    ]

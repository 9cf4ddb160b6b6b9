"""Whether a checkpoint is of this run: the first difference, in words, before anything is loaded."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from torch import Tensor, nn
from torch.optim import Optimizer

from training.parts import Part
from training.run import Run
from training.tasks import Stateful


def compare(run: Run, state: Mapping[str, Any]) -> None:
    """Raise ValueError at the first difference between the run and what was saved."""
    _same_names("parts", run.parts, state["parts"])
    for name, part in run.parts.items():
        _same_part(f"part {name!r}", part, state["parts"][name])
    tasks = state["processes"][0]["tasks"]
    _same_names("tasks", run.tasks, tasks)
    for name, task in run.tasks.items():
        if isinstance(task, Stateful) != (tasks[name] is not None):
            there, here = ("without state", "with one") if tasks[name] is None else ("with a state", "without one")
            raise ValueError(f"task {name!r} is {there} in the file and {here} here")


def _same_names(what: str, here: Mapping[str, object], there: Mapping[str, object]) -> None:
    if set(here) != set(there):
        raise ValueError(f"{what} {_listed(there)} in the file and {_listed(here)} here")


def _listed(names: Mapping[str, object]) -> str:
    return ", ".join(map(repr, names)) or "none"


def _same_part(where: str, part: Part, saved: Mapping[str, Any]) -> None:
    _same_weights(where, part.module, saved["module"])
    here = ", ".join(type(optimizer).__name__ for optimizer in part.optimizers) or "none"
    there = ", ".join(kind for kind, _ in saved["optimizers"]) or "none"
    if here != there:
        raise ValueError(f"{where}: optimizers are {there} in the file and {here} here")
    for optimizer, (kind, state) in zip(part.optimizers, saved["optimizers"], strict=True):
        _same_groups(f"{where}: {kind}", optimizer, state)


def _same_weights(where: str, module: nn.Module, saved: Mapping[str, Any]) -> None:
    own = module.state_dict()
    for name in (*own, *saved):
        there, here = _described(saved.get(name)), _described(own.get(name))
        if there != here:
            raise ValueError(f"{where}: {name!r} is {there} in the file and {here} here")


def _described(value: object) -> str:
    if value is None:
        return "missing"
    if not isinstance(value, Tensor):
        return type(value).__name__
    return f"{' x '.join(map(str, value.shape)) or 'a scalar'} of {str(value.dtype).removeprefix('torch.')}"


def _same_groups(where: str, optimizer: Optimizer, saved: Mapping[str, Any]) -> None:
    here = [len(group["params"]) for group in optimizer.param_groups]
    there = [len(group["params"]) for group in saved["param_groups"]]
    if here != there:
        raise ValueError(f"{where} has groups of {there} parameters in the file and of {here} here")

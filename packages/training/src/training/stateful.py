"""States of tasks and callbacks, looked up through what wraps them."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, Protocol, runtime_checkable

from training.errors import CheckpointError, TrainingError
from training.run import Run
from training.tasks import Stateful


@runtime_checkable
class Beginning(Protocol):
    """A callback that is told when a run begins, or goes on."""

    def begin(self, run: Run, /) -> None: ...


@runtime_checkable
class Closing(Protocol):
    """A callback that holds something open."""

    def close(self) -> None: ...


def inner(callback: object) -> object:
    """The callback that `every` and the like wrap."""
    while hasattr(callback, "wrapped"):
        callback = callback.wrapped
    return callback


def state_of(thing: object) -> dict[str, Any] | None:
    """Its state, or None if it keeps none."""
    return thing.state_dict() if isinstance(thing, Stateful) else None


def states_of(callbacks: Iterable[object]) -> list[tuple[str, dict[str, Any]]]:
    """Kind and state of each callback that keeps one, in order."""
    found = (inner(callback) for callback in callbacks)
    return [(type(callback).__name__, callback.state_dict()) for callback in found if isinstance(callback, Stateful)]


def give_back(callbacks: Iterable[object], saved: list[tuple[str, dict[str, Any]]]) -> None:
    """Hand the callbacks the states that a checkpoint had.

    Raises:
        CheckpointError: if they are not the callbacks that it was written with.
    """
    keeping = [callback for callback in map(inner, callbacks) if isinstance(callback, Stateful)]
    kinds, theirs = [type(callback).__name__ for callback in keeping], [kind for kind, _ in saved]
    if kinds != theirs:
        raise CheckpointError(
            f"checkpoint with the states of callbacks {', '.join(theirs) or 'none'}: expected the same here, got "
            f"{', '.join(kinds) or 'none'}; give `train` the callbacks that it was written with, in that order"
        )
    for callback, (_, state) in zip(keeping, saved, strict=True):
        callback.load_state_dict(state)


def check_order(callbacks: Iterable[object]) -> None:
    """Raise TrainingError if a callback that keeps a state or a log comes behind one that writes checkpoints."""
    writes = False
    for callback in map(inner, callbacks):
        if writes and isinstance(callback, Stateful | Beginning):
            raise TrainingError(
                f"callbacks: expected `checkpoint` behind {type(callback).__name__}, which keeps a state or a log; put "
                "it last, or a resumed run misses what this one did at the step of the checkpoint"
            )
        writes = writes or getattr(callback, "writes_checkpoints", False)

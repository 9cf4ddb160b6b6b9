"""What a task is: batches and a loss for named parts.

    L(theta_a, theta_b, ...; batch(step)) = sum of its named terms

A task says what is learnt and knows nothing of how: no optimiser, no schedule, no loop. An image classifier's task
gives labelled images and a cross entropy; that of proximal policy optimisation gives minibatches of what the policy
did and the clipped objective. The loop is the same.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping, Sequence
from functools import reduce
from operator import add
from typing import Any, Generic, Protocol, TypeVar, cast, runtime_checkable

from torch import Tensor, nn

from training.errors import TrainingError
from training.options import Options

BatchT = TypeVar("BatchT")
ModelT = TypeVar("ModelT", bound=nn.Module)
Parts = Mapping[str, nn.Module]
Terms = Tensor | Mapping[str, Tensor]


@runtime_checkable
class Task(Protocol[BatchT]):
    """Batches and a loss. The gradient of the loss goes to the parts that `feeds` names, and to no others."""

    @property
    def feeds(self) -> Sequence[str]:
        """Names of the parts that the loss trains."""

    def batch(self, step: int, /) -> BatchT:
        """The whole batch of an optimiser step (0-based). A task without state depends on nothing else."""

    def loss(self, parts: Parts, batch: BatchT, /) -> Terms:
        """A scalar, or named scalars, which are added; all parts of the run are at hand."""


@runtime_checkable
class Stateful(Protocol):
    """A task or callback that remembers something from step to step; checkpoints hold its state.

    A state consists of tensors, numbers, strings, None, lists and dictionaries: what is read without running code.
    """

    def state_dict(self) -> dict[str, Any]: ...

    def load_state_dict(self, state: dict[str, Any], /) -> None: ...


@runtime_checkable
class Sharded(Protocol):
    """A task that cuts its batches itself, for `Options.accumulate` and `Options.data_parallel`."""

    def shard(self, batch: Any, index: int, count: int, /) -> Any:
        """Piece `index` of `count` equal ones: the mean of the pieces' losses must be the loss of the batch."""


@runtime_checkable
class Restricted(Protocol):
    """A task that some options do not fit."""

    def check_options(self, options: Options, /) -> None:
        """Raises TrainingError if these do not; asked before anything is trained."""


class FunctionTask(Generic[ModelT, BatchT]):
    """The simple case: two functions, and one part.

    Args:
        batches: the batch of a step number (0-based); must depend on nothing else.
        loss: a scalar (or named scalars) for the part's module and a batch.
        feeds: the part's name.
    """

    def __init__(
        self,
        batches: Callable[[int], BatchT],
        loss: Callable[[ModelT, BatchT], Terms],
        feeds: tuple[str] = ("model",),
    ) -> None:
        self.feeds = feeds
        self._batches, self._loss = batches, loss

    def batch(self, step: int, /) -> BatchT:
        return self._batches(step)

    def loss(self, parts: Parts, batch: BatchT, /) -> Terms:
        return self._loss(cast(ModelT, parts[self.feeds[0]]), batch)


def named(tasks: Task[Any] | Mapping[str, Task[Any]]) -> Mapping[str, Task[Any]]:
    """Tasks by name; a task that stands alone has the empty name."""
    return tasks if isinstance(tasks, Mapping) else {"": tasks}


def piece(task: Task[Any], batch: Any, index: int, count: int) -> Any:
    """Piece `index` of `count` of a task's batch."""
    return task.shard(batch, index, count) if isinstance(task, Sharded) else rows(batch, index, count)


def rows(batch: Any, index: int, count: int) -> Any:
    """The rows of piece `index` of `count` equal ones, along the first dimension of every tensor in the batch.

    Tensors may stand in tuples, lists, dictionaries and dataclasses; scalars and what is no tensor go to every piece.

    Raises:
        TrainingError: if the rows of a tensor cannot be shared out equally.
    """
    if isinstance(batch, Tensor):
        if batch.ndim == 0:
            return batch
        size, rest = divmod(len(batch), count)
        if rest or not size:
            raise TrainingError(
                f"batch of shape {tuple(batch.shape)}: expected rows that {count} pieces (accumulate x processes) "
                f"share equally, got {len(batch)}; choose another batch size, or give the task a `shard` of its own"
            )
        return batch[index * size : (index + 1) * size]
    if isinstance(batch, Mapping):
        return {name: rows(value, index, count) for name, value in batch.items()}
    if isinstance(batch, tuple | list):
        values = [rows(value, index, count) for value in batch]
        return type(batch)(*values) if hasattr(batch, "_fields") else type(batch)(values)
    if dataclasses.is_dataclass(batch) and not isinstance(batch, type):
        fields = {f.name: rows(getattr(batch, f.name), index, count) for f in dataclasses.fields(batch) if f.init}
        return dataclasses.replace(batch, **fields)
    return batch


def total(terms: Terms) -> Tensor:
    """The loss that is differentiated."""
    if isinstance(terms, Tensor):
        return terms
    return reduce(add, terms.values())

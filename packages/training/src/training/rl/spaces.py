"""What an agent may do and see: the action and observation spaces that are supported, as plain data."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any


class UnsupportedEnvironment(ValueError):  # noqa: N818 (what it is, not that it is an error)
    """An environment that does not exist, cannot be made, or has a space that nothing here can deal with."""


@dataclass(frozen=True)
class Discrete:
    """One of `n` actions, numbered from 0."""

    n: int

    @property
    def columns(self) -> int:
        """Numbers that one action takes: 1."""
        return 1


@dataclass(frozen=True)
class MultiDiscrete:
    """One action of each of several sets at once; `sizes` are the sizes of the sets."""

    sizes: tuple[int, ...]

    @property
    def columns(self) -> int:
        """Numbers that one action takes: one for each set."""
        return len(self.sizes)


@dataclass(frozen=True)
class Box:
    """A vector of real numbers within bounds (which may be infinite)."""

    low: tuple[float, ...]
    high: tuple[float, ...]

    @property
    def columns(self) -> int:
        """Numbers that one action takes."""
        return len(self.low)


ActionSpace = Discrete | MultiDiscrete | Box


def read_action_space(space: Any, where: str) -> ActionSpace:
    """A Gymnasium action space as one of ours.

    Raises:
        UnsupportedEnvironment: naming the space.
    """
    kind = type(space).__name__
    if kind == "Discrete" and int(space.start) == 0:
        return Discrete(int(space.n))
    if kind == "MultiDiscrete" and space.nvec.ndim == 1 and not space.start.any():
        return MultiDiscrete(tuple(int(size) for size in space.nvec))
    if kind == "Box" and len(space.shape) == 1 and space.dtype.kind == "f":
        return Box(tuple(map(float, space.low)), tuple(map(float, space.high)))
    raise UnsupportedEnvironment(
        f"{where}: expected actions from Discrete or MultiDiscrete (from 0) or a Box of one dimension, got {space}; "
        "wrap the environment so that its action space is one of them"
    )


def read_observation_size(space: Any, where: str) -> int:
    """The length of the vectors of a Gymnasium observation space.

    Raises:
        UnsupportedEnvironment: naming the space, unless it is a Box of one dimension.
    """
    if type(space).__name__ == "Box" and len(space.shape) == 1:
        return int(space.shape[0])
    remedy = "flatten them with a wrapper (gymnasium.wrappers.FlattenObservation)"
    if _shows_images(space):
        remedy = "images are taken by make_environments(..., wrappers=AtariOptions())"
    raise UnsupportedEnvironment(f"{where}: expected observations from a Box of one dimension, got {space}; {remedy}")


def read_image_shape(space: Any, where: str) -> tuple[int, int, int]:
    """Rows, columns and channels (1 or 3) of the images of a Gymnasium observation space.

    Raises:
        UnsupportedEnvironment: naming the space, unless it is a Box of bytes (row, column) or (row, column, 1 or 3).
    """
    if _shows_images(space):
        rows, columns, *channels = map(int, space.shape)
        return rows, columns, channels[0] if channels else 1
    raise UnsupportedEnvironment(
        f"{where}: expected images, as a Box of uint8 (row, column) or (row, column, 1 or 3), got {space}; leave out "
        "`wrappers`, or let the environment show images"
    )


def _shows_images(space: Any) -> bool:
    if type(space).__name__ != "Box" or space.dtype.kind != "u" or space.dtype.itemsize != 1:
        return False
    return len(space.shape) == 2 or (len(space.shape) == 3 and space.shape[2] in (1, 3))

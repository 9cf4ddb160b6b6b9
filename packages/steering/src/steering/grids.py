"""Grids of layer and coefficient: a vector in one layer at a time, whatever is measured in each cell."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TypeVar

import torch
from torch import Tensor

from steering.errors import SteeringError
from steering.intervals import Quotient
from steering.positions import Everywhere, Positions
from steering.steering import Operation, Steer
from steering.vectors import SteeringVector

EVERYWHERE = Everywhere()
Progress = Callable[[int, int], None]
T = TypeVar("T")
Cells = tuple[tuple[T, ...], ...]


def steers_of(
    vector: SteeringVector,
    layers: Sequence[int] | None,
    coefficients: Sequence[float],
    positions: Positions,
    operation: Operation,
) -> Cells[Steer]:
    """The steer of each cell; all of the vector's layers by default.

    Raises:
        SteeringError: no layers or coefficients, or one of them twice; a layer that the vector does not have, or a
            coefficient that is not finite.
    """
    layers = vector.layers if layers is None else layers
    for name, chosen in (("layers", layers), ("coefficients", coefficients)):
        if not chosen or len(set(chosen)) != len(chosen):
            raise SteeringError(f"{vector.name}: {name} {list(chosen)}: expected at least one, each once")
    return tuple(
        tuple(Steer(vector, coefficient, layer, positions, operation) for coefficient in coefficients)
        for layer in layers
    )


def run_cells(run: Callable[[tuple[Steer, ...]], T], steers: Cells[Steer], progress: Progress) -> tuple[T, Cells[T]]:
    """What `run` gives without a vector, and in each cell; `progress` gets how many of them are done, and how many
    there are."""
    total, done = 1 + sum(map(len, steers)), 0

    def told(*some: Steer) -> T:
        nonlocal done
        found = run(some)
        done += 1
        progress(done, total)
        return found

    plain = told()
    return plain, tuple(tuple(told(steer) for steer in row) for row in steers)


def stacked(quotients: Sequence[Sequence[Quotient]]) -> Quotient:
    """Quotients of cells as one of [unit, layer, coefficient]."""

    def together(parts: list[list[Tensor]]) -> Tensor:
        return torch.stack([torch.stack(row, dim=1) for row in parts], dim=1)

    return Quotient(
        together([[cell.numerator for cell in row] for row in quotients]),
        together([[cell.denominator for cell in row] for row in quotients]),
    )

"""Rows of tokens in batches of like length, and steers for the rows of a batch."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

import torch

from steering.errors import SteeringError
from steering.steering import Steer


@dataclass(frozen=True)
class Batch:
    """Which rows are run together, and how many columns of the padding of all rows they do without."""

    rows: tuple[int, ...]
    without: int

    def of(self, steer: Steer) -> Steer:
        """The steer for these rows: what its positions know of each row, or of the columns of all, goes with them."""
        return replace(steer, positions=steer.positions.of_rows(torch.tensor(self.rows), self.without))


def in_batches(rows: Sequence[Sequence[int]], size: int) -> Iterator[Batch]:
    """Batches of rows that are padded on the left, the shortest first, so that little padding is run.

    Raises:
        SteeringError: batches of no row.
    """
    if size < 1:
        raise SteeringError(f"batch_size={size}: expected at least 1 row at a time")
    longest = max(map(len, rows), default=0)
    order = sorted(range(len(rows)), key=lambda row: len(rows[row]))
    for first in range(0, len(order), size):
        batch = tuple(order[first : first + size])
        yield Batch(batch, longest - len(rows[batch[-1]]))

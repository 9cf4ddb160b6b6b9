"""How a step is computed, which leaves open what is learnt."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, get_args

from training.errors import TrainingError

Precision = Literal["float32", "bfloat16", "float16"]


@dataclass(frozen=True)
class Options:
    """Each changes the numbers by rounding alone, batch norm, dropout and `precision` aside.

    Attributes:
        precision: of the products inside the loss (autocast); weights, gradients and optimisers keep their own dtype.
            With float16 the loss is scaled up against underflow (`training.precision`).
        accumulate: the batch is cut into so many pieces, whose gradients add up: less memory, the same step for a loss
            that is a mean over rows. Batch norm sees one piece at a time.
        compile: `torch.compile` of the loss. It draws other random numbers than the plain one (dropout).
        data_parallel: share every batch out among the processes that torch's launcher started
            (`training.processes`).
    """

    precision: Precision = "float32"
    accumulate: int = 1
    compile: bool = False
    data_parallel: bool = False

    def __post_init__(self) -> None:
        if self.precision not in get_args(Precision):
            known = ", ".join(get_args(Precision))
            raise TrainingError(f"precision: expected one of {known}, got {self.precision!r}")
        if self.accumulate < 1:
            raise TrainingError(f"accumulate: expected a number of pieces from 1, got {self.accumulate}")

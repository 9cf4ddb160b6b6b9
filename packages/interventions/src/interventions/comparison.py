"""How far an approximate sweep agrees with the exact one, over cells, by their mean effects over prompts."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import product

import torch
from jaxtyping import Float
from torch import Tensor

from interventions.results import SweepResult

Cell = dict[str, int]


@dataclass(frozen=True)
class Comparison:
    """Correlations are NaN where one of the results is the same in all cells.

    rank        Spearman's correlation: Pearson's of the ranks, ties at their mean rank
    pearson     Pearson's correlation
    sign        share of the cells with the same sign, of those whose exact effect is not 0
    misses      (cell, exact, approximate), by the size of their difference, largest first
    """

    rank: float
    pearson: float
    sign: float
    misses: tuple[tuple[Cell, float, float], ...]


def agreement(exact: SweepResult, approximate: SweepResult, *, misses: int = 10) -> Comparison:
    """Compare the mean effects of two sweeps over the same cells.

    Raises:
        ValueError: the results have other axes, coordinates, component or metric.
    """
    for name in ("axes", "coordinates", "component", "metric"):
        expected, received = getattr(exact, name), getattr(approximate, name)
        if expected != received:
            raise ValueError(f"{name} of the approximate result: expected {expected}, as the exact one, got {received}")
    x, y = exact.mean().flatten().double(), approximate.mean().flatten().double()
    cells = [
        dict(zip(exact.axes, at, strict=True)) for at in product(*(exact.coordinates[axis] for axis in exact.axes))
    ]
    worst = (x - y).abs().argsort(descending=True)[:misses].tolist()
    real = x != 0
    return Comparison(
        rank=_pearson(_ranks(x), _ranks(y)),
        pearson=_pearson(x, y),
        sign=float((x.sign() == y.sign())[real].double().mean()),
        misses=tuple((cells[cell], float(x[cell]), float(y[cell])) for cell in worst),
    )


def _ranks(x: Float[Tensor, " cell"]) -> Float[Tensor, " cell"]:
    """0 for the smallest; equal numbers share the mean of their ranks."""
    _, group, sizes = torch.unique(x, return_inverse=True, return_counts=True)
    last = sizes.cumsum(dim=0) - 1
    ranks: Tensor = (last - (sizes - 1) / 2).double()[group]
    return ranks


def _pearson(x: Float[Tensor, " cell"], y: Float[Tensor, " cell"]) -> float:
    x, y = x - x.mean(), y - y.mean()
    return float((x @ y) / (x.norm() * y.norm()))

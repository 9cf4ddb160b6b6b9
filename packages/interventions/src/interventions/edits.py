"""Edits: what takes the place of an activation.

    Replace(by)        the activation of other prompts of the same length, at the same site        (activation patching)
    Zero()             0
    Mean(over)         the mean of the activation over prompts, position by position
    Resample(by, seed) the activation of another of these prompts, drawn without fixed points
    Add(vector)        x + vector
    ProjectOut(basis)  x without its part in the span of the vectors
    Apply(function)    any function of the activation

    Given(values)      activations that are at hand, by layer

Replace, Zero, Mean, Resample and Given do not depend on the activation that they replace. A pattern is replaced as it
is: an edited row need not sum to 1, and may look where the model's own mask would not let it.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from interventions.prompts import Prompts


@dataclass(frozen=True)
class Replace:
    """The activation of `by` at the same site and position, counted from the end; a prompt for each, or one for all.

    Every edited position must be a real token of the source prompt wherever it is one of the prompt.
    """

    by: Prompts


@dataclass(frozen=True)
class Given:
    """Given activations by layer, [prompt or 1, pos or 1, ...] as `hooks` shows the component."""

    values: dict[int, Tensor]


@dataclass(frozen=True)
class Zero:
    """0."""


@dataclass(frozen=True)
class Mean:
    """The mean over prompts of the activation; at every position its own, or with `pooled` one over all positions.

    Positions count from the end; those that are edited must be real tokens of all prompts of `over`.
    """

    over: Prompts
    pooled: bool = False


@dataclass(frozen=True)
class Resample:
    """The activation of another of the prompts `by`, each prompt's donor drawn by a seeded derangement."""

    by: Prompts
    seed: int


@dataclass(frozen=True)
class Add:
    """x + vector, e.g. a steering vector [d_model] times its coefficient."""

    vector: Float[Tensor, " d"]


@dataclass(frozen=True)
class ProjectOut:
    """x without its part in the span of the rows of `vectors`."""

    vectors: Float[Tensor, "k d"]


@dataclass(frozen=True)
class Apply:
    """function(x), of the same shape; sees [batch, n, d], n edited places (positions and heads of any cells) at once.

    The n places must be treated alike and apart: which of them come together depends on the sweep's budget.
    """

    function: Callable[[Tensor], Tensor]


Edit = Replace | Given | Zero | Mean | Resample | Add | ProjectOut | Apply
Source = Replace | Mean | Resample
"""Edits that first run other prompts."""


def as_function(edit: Add | ProjectOut | Apply | Zero) -> Callable[[Tensor], Tensor]:
    """The edit of an activation that needs no other run."""
    match edit:
        case Zero():
            return torch.zeros_like
        case Add(vector):
            return lambda x: x + vector.to(x)
        case ProjectOut(vectors):
            basis = _span(vectors)
            return lambda x: x - (x.double() @ basis.to(x.device) @ basis.mT.to(x.device)).to(x)
        case Apply(function):
            return function


def _span(vectors: Float[Tensor, "k d"]) -> Float[Tensor, "d rank"]:
    """An orthonormal basis of the span of the rows, also where they depend on each other."""
    _, sizes, directions = torch.linalg.svd(vectors.double(), full_matrices=False)
    basis: Tensor = directions[sizes > sizes.max() * max(vectors.shape) * torch.finfo(torch.float32).eps].mT
    return basis


def derangement(n: int, *, seed: int) -> Tensor:
    """A uniformly random permutation of 0..n-1 without fixed points.

    Raises:
        ValueError: n is below 2: there is none.
    """
    if n < 2:
        raise ValueError(f"{n} prompt: expected at least 2, so that each can get another one's activations")
    generator = torch.Generator().manual_seed(seed)
    while True:
        permutation = torch.randperm(n, generator=generator)
        if not (permutation == torch.arange(n)).any():
            return permutation

"""Gradient norms, and gradients scaled down to a largest norm (Pascanu et al. 2013).

    g <- g min(1, c / (|g| + 1e-6))

First each part's gradient by its own norm, then all of them together.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn.utils import clip_grads_with_norm_, get_total_norm

EPSILON = 1e-6  # torch's


def norm_of(parameters: Sequence[nn.Parameter]) -> Float[Tensor, ""]:
    """The 2-norm of all their gradients; 0 where there are none."""
    return get_total_norm([parameter.grad for parameter in parameters if parameter.grad is not None])


def clip_to(largest: float, parameters: Sequence[nn.Parameter], norm: float) -> None:
    """Scale gradients of the 2-norm `norm` down to `largest`."""
    if norm + EPSILON > 0.999 * largest:  # otherwise the factor is 1, however it is rounded
        clip_grads_with_norm_(parameters, largest, torch.tensor(norm))

"""Matrices kept as a product of two thin ones, M = A B.

    W_OV = W_V W_O,    W_QK = W_Q W_K^T,    W_E W_V W_O W_U, ...      (Elhage et al. 2021, "Virtual Weights")

The class is TransformerLens's `FactoredMatrix`, imported on first use.
"""

from __future__ import annotations

from typing import Any, TypeAlias

from jaxtyping import Float
from torch import Tensor

FactoredMatrix: TypeAlias = Any
"""A `transformer_lens.FactoredMatrix`; an alias, because importing TransformerLens is slow."""


def factored(A: Float[Tensor, "*batch left inner"], B: Float[Tensor, "*batch inner right"]) -> FactoredMatrix:
    """A B as a TransformerLens `FactoredMatrix`, not multiplied out."""
    from transformer_lens import FactoredMatrix as Factored

    return Factored(A, B)

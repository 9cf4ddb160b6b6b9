"""Matrices kept as a product of two thin ones, M = A B.

    W_OV = W_V W_O,    W_QK = W_Q W_K^T,    W_E W_V W_O W_U, ...      (Elhage et al. 2021, "Virtual Weights")

With A = Q_A R_A and B^T = Q_B R_B (QR, Q with orthonormal columns) and R_A R_B^T = U' S V'^T:

    M = (Q_A U') S (Q_B V')^T        ||M||_F = ||R_A R_B^T||_F        tr M = tr BA        M_ij = A_i. B_.j

All are exact and form nothing larger than the factors (Golub and Van Loan, "Matrix Computations", 4th ed., section 5.2,
for the QR; the trace is cyclic). The class is TransformerLens's `FactoredMatrix`, imported on first use; its `@` (which
keeps the smaller inner dimension), indexing, `.T`, `.AB` and `.eigenvalues` (those of BA) are used as they are. What
stands here is what it lacks, or what it does less well:

- `svd`: theirs takes two SVDs of the factors where QR does, slower, and its small singular values are less accurate;
- `frobenius_norm`: theirs goes through that SVD. The Gram matrices, ||M||^2 = tr(A^T A B B^T), would be faster still,
  but square the factors: in float32 nothing is left of the norm where A and B nearly cancel;
- `corner`: theirs cuts the leading dimensions too;
- half precision: theirs multiplies BA and other products in the dtype of the factors. `factored` and every function
  here raise 16-bit factors to float32; float64 stays float64.

Matrices may have any leading dimensions, shown as `*batch`; each is a matrix of its own.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import reduce
from itertools import pairwise
from operator import matmul
from typing import Any, NamedTuple, TypeAlias

import torch
from jaxtyping import Float, Int
from torch import Tensor

FactoredMatrix: TypeAlias = Any
"""A `transformer_lens.FactoredMatrix`; an alias, because importing TransformerLens is slow."""


class SVD(NamedTuple):
    """M = U diag(S) V^T, with rank = min(left, inner, right) columns, orthonormal, and S >= 0 descending."""

    U: Float[Tensor, "*batch left rank"]
    S: Float[Tensor, "*batch rank"]
    V: Float[Tensor, "*batch right rank"]


def factored(A: Float[Tensor, "*#batch left inner"], B: Float[Tensor, "*#batch inner right"]) -> FactoredMatrix:
    """A B as a TransformerLens `FactoredMatrix`, not multiplied out; 16-bit factors become float32."""
    from transformer_lens import FactoredMatrix as Factored

    return Factored(_raised(A), _raised(B))


def product(*matrices: FactoredMatrix) -> FactoredMatrix:
    """M_1 M_2 ... M_n, factored with the smallest of their inner dimensions (or of those between them, if smaller).

    Raises:
        ValueError: there is no matrix, or one does not fit the next.
    """
    if not matrices:
        raise ValueError("product of 0 matrices: expected at least 1 FactoredMatrix")
    for place, (left, right) in enumerate(pairwise(matrices)):
        if left.shape[-1] != right.shape[-2]:
            raise ValueError(
                f"matrices {place} and {place + 1} have shapes {tuple(left.shape)} and {tuple(right.shape)}: expected "
                f"as many columns as the next has rows; transpose one with .T or change the order"
            )
    return reduce(matmul, (factored(m.A, m.B) for m in matrices))


def svd(m: FactoredMatrix) -> SVD:
    """Singular value decomposition; U is [*batch, left, rank] and V (not transposed) [*batch, right, rank].

    Signs, and directions of equal singular values, are as LAPACK leaves them.
    """
    A, B = _factors(m)
    Q_A, R_A = torch.linalg.qr(A)
    Q_B, R_B = torch.linalg.qr(B.mT)
    U, S, V_transposed = torch.linalg.svd(R_A @ R_B.mT, full_matrices=False)
    return SVD(Q_A @ U, S, Q_B @ V_transposed.mT)


def frobenius_norm(m: FactoredMatrix) -> Float[Tensor, "*batch"]:
    """||M||_F = sqrt(sum_ij M_ij^2); its error is that of float32 relative to ||A|| ||B||."""
    A, B = _factors(m)
    R_A, R_B = (torch.linalg.qr(factor, mode="r").R for factor in (A, B.mT))
    norm: Tensor = torch.linalg.matrix_norm(R_A @ R_B.mT)
    return norm


def trace(m: FactoredMatrix) -> Float[Tensor, "*batch"]:
    """sum_i M_ii, as tr BA.

    Raises:
        ValueError: M is not square.
    """
    A, B = _factors(m)
    if A.shape[-2] != B.shape[-1]:
        raise ValueError(
            f"the matrix has shape {tuple(m.shape)}: expected a square one for a trace; take its diagonal_entries(m)"
        )
    return (B @ A).diagonal(dim1=-2, dim2=-1).sum(-1)


def diagonal_entries(m: FactoredMatrix) -> Float[Tensor, "*batch diagonal"]:
    """M_ii for i up to the smaller side of M."""
    A, B = _factors(m)
    length = min(A.shape[-2], B.shape[-1])
    return (A[..., :length, :] * B[..., :, :length].mT).sum(-1)


def rows(m: FactoredMatrix, index: Int[Tensor, " row"] | Sequence[int]) -> Float[Tensor, "*batch row right"]:
    """The rows M_i. for i in `index`, dense, in that order; e.g. a circuit's logits for some source tokens.

    Raises:
        ValueError: a row does not exist.
    """
    A, B = _factors(m)
    chosen = torch.as_tensor(index, dtype=torch.int64, device=A.device)
    outside = chosen[(chosen < 0) | (chosen >= A.shape[-2])]
    if len(outside):
        raise ValueError(
            f"row {int(outside[0])} does not exist: expected 0 to {A.shape[-2] - 1}, the rows of a matrix of shape "
            f"{tuple(m.shape)}; index columns with rows(m.T, ...)"
        )
    return A[..., chosen, :] @ B


def corner(m: FactoredMatrix, k: int) -> Float[Tensor, "*batch row column"]:
    """The first k rows and columns, dense, of every matrix; all there are, where there are fewer.

    Raises:
        ValueError: k is below 1.
    """
    if k < 1:
        raise ValueError(f"k is {k}: expected at least 1 row and column of a matrix of shape {tuple(m.shape)}")
    A, B = _factors(m)
    return A[..., :k, :] @ B[..., :, :k]


def _factors(m: FactoredMatrix) -> tuple[Float[Tensor, "*batch left inner"], Float[Tensor, "*batch inner right"]]:
    return _raised(m.A), _raised(m.B)


def _raised(factor: Float[Tensor, "*shape"]) -> Float[Tensor, "*shape"]:
    return factor.to(torch.promote_types(factor.dtype, torch.float32))

"""The diagonal of a square factored matrix M = A B against the rest of its rows, without forming M.

    rank_i = #{j != i : M_ij > M_ii},    M_ij = A_i . B_j

(Copying in Elhage et al. 2021, "A Mathematical Framework for Transformer Circuits", "Copying / Primitive In-context
Learning": a head copies token i if row i of its full OV circuit is largest at i; the same question is put to the full
K-composition circuit.) For a bounded rank most rows of a matrix without a marked diagonal are decided by a few columns:
columns are visited in blocks, those with the largest norm ||B_j|| first, and a row drops out once enough of its entries
have exceeded the diagonal one. That is exact, as every entry is compared that could still change an answer; M has
d_vocab^2 of them and none is kept. Ties do not count against the diagonal. Entries are float32 sums: those that differ
from the diagonal one by less than rounding (duplicate columns, say) may fall on either side.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from circuits.bridge import chunks
from circuits.factored import FactoredMatrix

FIRST_BLOCK = 256  # columns: most rows drop out in the first block, so it is small


def diagonal_in_top(
    m: FactoredMatrix, k: Sequence[int] = (1, 5), *, rows: Int[Tensor, " n"] | None = None, chunk: int = 2048
) -> Bool[Tensor, "n len_k"]:
    """Whether fewer than k entries of row i exceed its diagonal entry, for each row and each k; on the device of `m`.

    Holds about chunk^2 numbers with their comparison, 21 MB at 2048, and a copy of B (and of the chosen rows of A).

    Args:
        m: square, of two-dimensional factors; half precision is upcast to float32.
        rows: which rows, by number; all of them by default. Entries are compared with the whole row all the same.
        chunk: rows and columns multiplied at once.

    Raises:
        ValueError: `m` is not one square matrix, a k is not 1 to its size, or there is no such row.

    Source: Elhage et al. 2021, "Copying / Primitive In-context Learning".
    """
    A, columns, at = _factors(m, rows)
    if not k or not all(1 <= one <= len(columns) for one in k):
        raise ValueError(
            f"k={tuple(k)}: expected at least one number, each 1 to {len(columns)}, the size of the matrix"
        )
    greater = _greater_than_diagonal(A, columns, at, limit=max(k), chunk=chunk)
    return torch.stack([greater < one for one in k], dim=1)


def diagonal_ranks(m: FactoredMatrix, *, rows: Int[Tensor, " n"] | None = None, chunk: int = 2048) -> Int[Tensor, " n"]:
    """Number of entries of row i that exceed its diagonal entry: 0 where that is the largest; int64.

    Multiplies all n x d_vocab entries out, chunk^2 of them at a time. Arguments and errors as in `diagonal_in_top`.

    Raises:
        ValueError: `m` is not one square matrix, or there is no such row.

    Source: Elhage et al. 2021, "Copying / Primitive In-context Learning".
    """
    A, columns, at = _factors(m, rows)
    return _greater_than_diagonal(A, columns, at, limit=len(columns), chunk=chunk)


def diagonal_share(m: FactoredMatrix, *, rows: Int[Tensor, " n"] | None = None) -> float:
    """Share of rows, 0 to 1, whose maximum lies on the diagonal (ties included); chance is about 1 / d_vocab.

    Raises:
        ValueError: as `diagonal_in_top`; there are no rows.

    Source: Elhage et al. 2021, "Copying / Primitive In-context Learning".
    """
    top = diagonal_in_top(m, (1,), rows=rows)
    if not len(top):
        raise ValueError("rows are empty: expected at least one row, to take a share of")
    return float(top.float().mean())


def check_indices(name: str, indices: Tensor, n: int) -> None:
    """Refuse anything but a vector of integers 0 to n-1.

    Raises:
        ValueError: naming what is wrong.
    """
    if indices.ndim != 1 or indices.is_floating_point() or indices.is_complex() or indices.dtype == torch.bool:
        raise ValueError(
            f"{name} are {indices.dtype} of shape {tuple(indices.shape)}: expected a vector of integers; turn a mask "
            f"into numbers with mask.nonzero().flatten()"
        )
    outside = indices[(indices < 0) | (indices >= n)]
    if len(outside):
        raise ValueError(f"{name} hold {int(outside[0])}: expected 0 to {n - 1}")


def _factors(
    m: FactoredMatrix, rows: Int[Tensor, " n"] | None
) -> tuple[Float[Tensor, "n inner"], Float[Tensor, "size inner"], Int[Tensor, " n"]]:
    """The chosen rows of A, all columns of B as rows, and the numbers of the chosen rows."""
    A, B = (factor.to(torch.promote_types(factor.dtype, torch.float32)) for factor in (m.A, m.B))
    if A.ndim != 2 or B.ndim != 2 or len(A) != B.shape[1]:
        raise ValueError(
            f"the matrix has shape {(*A.shape[:-1], B.shape[-1])}: expected one square matrix, whose row i and column "
            f"i belong to the same token; index leading dimensions away, or choose columns of the second factor"
        )
    columns = B.mT.contiguous()  # they are visited in another order, which takes them apart
    if rows is None:
        return A, columns, torch.arange(len(A), device=A.device)
    check_indices("rows", rows, len(A))
    rows = rows.long().to(A.device)
    return A[rows], columns, rows


def _greater_than_diagonal(
    A: Float[Tensor, "n inner"], columns: Float[Tensor, "size inner"], at: Int[Tensor, " n"], *, limit: int, chunk: int
) -> Int[Tensor, " n"]:
    """#{j != at_i : A_i . columns_j > A_i . columns_at_i}; rows where it reaches `limit` stop being counted."""
    diagonal = torch.cat([(A[some] * columns[at[some]]).sum(dim=1) for some in chunks(len(A), chunk)] or [A[:, 0]])
    order: Tensor = torch.linalg.vector_norm(columns, dim=1).argsort(descending=True)
    place = torch.empty_like(order)  # of a column in that order
    place[order] = torch.arange(len(order), device=order.device)
    greater = torch.zeros_like(at)
    undecided = torch.arange(len(at), device=at.device)
    for block in _growing(len(columns), chunk):
        visited = columns[order[block]].mT
        for some in chunks(len(undecided), chunk):
            now = undecided[some]
            entries = A[now] @ visited
            own = place[at[now]] - block.start  # rounding would compare the diagonal entry with itself
            inside = (own >= 0) & (own < visited.shape[1])
            entries[inside, own[inside]] = -torch.inf
            greater[now] += (entries > diagonal[now, None]).sum(dim=1)
        undecided = undecided[greater[undecided] < limit]
        if not len(undecided):
            break
    return greater


def _growing(n: int, largest: int) -> Iterator[slice]:
    """Slices that cover 0..n in order, each twice as long as the one before until they have `largest` columns."""
    start, length = 0, min(FIRST_BLOCK, largest)
    while start < n:
        yield slice(start, min(start + length, n))
        start, length = start + length, min(2 * length, largest)

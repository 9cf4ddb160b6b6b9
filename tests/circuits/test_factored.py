"""Factored matrices: theorems of linear algebra, against dense float64."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor

from circuits.factored import corner, diagonal_entries, factored, frobenius_norm, product, rows, svd, trace
from circuits.weights import read_weights

from .conftest import Case

SHAPES = {
    "tall": ((40, 5), (5, 40)),
    "wide": ((9, 5), (5, 40)),
    "batched": ((2, 3, 30, 4), (2, 3, 4, 20)),
    "broadcast": ((3, 30, 4), (2, 1, 4, 30)),
    "inner largest": ((6, 11), (11, 7)),
}


def random(shape: tuple[int, ...], seed: int) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


@pytest.fixture(params=SHAPES)
def m(request: pytest.FixtureRequest) -> Any:
    left, right = SHAPES[request.param]
    return factored(random(left, 0), random(right, 1))


def dense(m: Any) -> Tensor:
    out: Tensor = m.A.double() @ m.B.double()
    return out


def close(actual: Tensor, expected: Tensor, share: float = 3e-6) -> None:
    torch.testing.assert_close(actual.double(), expected, rtol=0, atol=share * float(expected.abs().max()))


def eye_like(gram: Tensor) -> Tensor:
    return torch.eye(gram.shape[-1], dtype=gram.dtype).expand_as(gram)


def test_svd_has_the_dense_singular_values_and_orthonormal_vectors(m: Any) -> None:
    U, S, V = svd(m)
    rank = min(m.ldim, m.mdim, m.rdim)
    expected = torch.linalg.svdvals(dense(m))
    assert (expected[..., rank:] < 1e-12).all()
    close(S, expected[..., :rank])
    for vectors in (U, V):
        gram = vectors.double().mT @ vectors.double()
        close(gram, eye_like(gram))
    close(U * S[..., None, :] @ V.mT, dense(m))


def test_left_singular_vectors_of_a_product_are_those_of_a_times_those_of_the_core(m: Any) -> None:
    """With A = U_A S_A V_A^T and B = U_B S_B V_B^T, U' from the SVD of S_A V_A^T U_B S_B gives U = U_A U'."""
    U_A, S_A, V_A = torch.linalg.svd(m.A.double(), full_matrices=False)
    U_B, S_B, _ = torch.linalg.svd(m.B.double(), full_matrices=False)
    core_U, core_S, _ = torch.linalg.svd(S_A[..., :, None] * (V_A @ U_B) * S_B[..., None, :], full_matrices=False)
    expected = U_A @ core_U
    U, S, _ = svd(m)
    close(S, core_S)
    overlap = (U.double() * expected[..., : U.shape[-1]]).sum(-2).abs()  # up to the sign of each vector
    close(overlap, torch.ones_like(overlap), 1e-4)


def test_small_singular_values_keep_their_digits() -> None:
    m = factored(random((200, 12), 0) * torch.logspace(0, -5, 12), random((12, 200), 1))
    expected = torch.linalg.svdvals(dense(m))[:12]
    assert float((svd(m).S / expected - 1).abs().max()) < 1e-3


def test_squared_norm_is_the_sum_of_squared_singular_values(m: Any) -> None:
    close(frobenius_norm(m), torch.linalg.matrix_norm(dense(m)))
    close(frobenius_norm(m) ** 2, svd(m).S.double().pow(2).sum(-1))


def test_norm_survives_factors_that_nearly_cancel() -> None:
    """A is large where B is small: the Gram matrices in float32 are wrong by tens of per cent here."""
    Q = torch.linalg.qr(random((32, 32), 2)).Q
    fall = torch.logspace(0, -5, 32)
    m = factored((random((2000, 32), 0) * fall) @ Q.mT, (Q * fall.flip(0)) @ random((32, 2000), 1))
    exact = torch.linalg.matrix_norm(dense(m))
    gram = ((m.A.mT @ m.A) * (m.B @ m.B.mT).mT).sum().clamp(min=0).sqrt()
    assert abs(float(frobenius_norm(m) / exact) - 1) < 1e-4
    assert abs(float(gram / exact) - 1) > 1e-2


def test_trace_is_cyclic_and_eigenvalues_are_those_of_b_a() -> None:
    A, B = random((3, 30, 4), 0), random((3, 4, 30), 1)
    m = factored(A, B)
    dense_trace = dense(m).diagonal(dim1=-2, dim2=-1).sum(-1)
    close(trace(m), dense_trace)
    close(trace(factored(B, A)), dense_trace)
    of_AB = torch.linalg.eigvals(dense(m))
    largest = of_AB.gather(-1, of_AB.abs().argsort(-1, descending=True))  # the other 26 are zero
    distances = (m.eigenvalues.to(largest.dtype)[..., :, None] - largest[..., None, :4]).abs()
    assert float(distances.amin(-1).max()) < 1e-4
    assert float(distances.amin(-2).max()) < 1e-4
    assert float(largest[..., 4:].abs().max()) < 1e-6


def test_diagonal_rows_and_corner_are_entries_of_the_dense_matrix(m: Any) -> None:
    M = dense(m)
    close(diagonal_entries(m), M.diagonal(dim1=-2, dim2=-1))
    close(rows(m, [4, 0, 4]), M[..., [4, 0, 4], :])
    close(rows(m, torch.tensor([1])), M[..., [1], :])
    close(rows(m.T, [2]), M[..., :, [2]].mT)
    close(corner(m, 3), M[..., :3, :3])
    close(corner(m, 1000), M)


@pytest.mark.parametrize("inner", [(4, 6, 5), (6, 4, 5), (6, 5, 4), (4,), (30, 6), (9, 9)])
def test_product_keeps_the_smallest_inner_dimension(inner: tuple[int, ...]) -> None:
    sides = [20, 8, 25, 22]
    ms = [
        factored(random((2, left, k), k), random((k, right), k + 1))
        for k, left, right in zip(inner, sides, sides[1:], strict=False)
    ]
    expected = dense(ms[0])
    for other in ms[1:]:
        expected = expected @ dense(other)
    result = product(*ms)
    assert result.mdim == min(*inner, *([sides[1]] if len(inner) > 1 else [inner[0]]))
    close(result.AB, expected)
    if result.ldim == result.rdim:
        close(trace(result), expected.diagonal(dim1=-2, dim2=-1).sum(-1))


def test_trace_of_a_product_is_cyclic() -> None:
    first, second = factored(random((20, 4), 0), random((4, 15), 1)), factored(random((15, 6), 2), random((6, 20), 3))
    close(trace(product(first, second)), (dense(first) @ dense(second)).trace())
    close(trace(product(second, first)), (dense(first) @ dense(second)).trace())


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32, torch.float64])
def test_half_precision_factors_are_raised_to_float32(dtype: torch.dtype) -> None:
    from transformer_lens import FactoredMatrix as Factored

    m = Factored(random((30, 4), 0).to(dtype), random((4, 30), 1).to(dtype))
    M = dense(m)
    expected_dtype = torch.float64 if dtype == torch.float64 else torch.float32
    for value, expected in [
        (svd(m).S, torch.linalg.svdvals(M)[:4]),
        (frobenius_norm(m), torch.linalg.matrix_norm(M)),
        (trace(m), M.trace()),
        (diagonal_entries(m), M.diagonal()),
        (rows(m, [3]), M[[3]]),
        (corner(m, 2), M[:2, :2]),
        (product(m, m).AB, M @ M),
    ]:
        assert value.dtype == expected_dtype
        close(value, expected)
    assert factored(m.A, m.B).eigenvalues.real.dtype == expected_dtype


def test_circuits_of_a_model(case: Case) -> None:
    weights = read_weights(case.bridge)
    OV = factored(weights.W_V, weights.W_O)
    copying = product(factored(weights.W_E, torch.eye(weights.W_E.shape[1])), OV, factored(weights.W_U, torch.eye(29)))
    M = weights.W_E.double() @ weights.W_V.double() @ weights.W_O.double() @ weights.W_U.double()
    assert copying.mdim == weights.d_head
    close(copying.AB, M)
    close(trace(copying), torch.linalg.eigvals(M).sum(-1).real)
    close(frobenius_norm(copying), torch.linalg.matrix_norm(M))
    close(svd(OV).S, torch.linalg.svdvals(weights.W_V.double() @ weights.W_O.double())[..., : weights.d_head])


def test_circuits_of_a_trained_model(shipped: Any) -> None:
    weights = read_weights(shipped("attn-only-2l"))
    QK = factored(weights.W_Q, weights.W_K.mT)
    M = weights.W_Q.double() @ weights.W_K.double().mT
    close(svd(QK).S, torch.linalg.svdvals(M)[..., :16])
    close(frobenius_norm(QK), torch.linalg.matrix_norm(M))
    close(trace(QK), M.diagonal(dim1=-2, dim2=-1).sum(-1))


def test_bad_input() -> None:
    m = factored(random((6, 3), 0), random((3, 4), 1))
    with pytest.raises(ValueError, match=r"shape \(6, 4\): expected a square one for a trace"):
        trace(m)
    with pytest.raises(ValueError, match=r"row 6 does not exist: expected 0 to 5.*\(6, 4\)"):
        rows(m, [0, 6])
    with pytest.raises(ValueError, match=r"row -1 does not exist"):
        rows(m, torch.tensor([-1]))
    with pytest.raises(ValueError, match=r"k is 0: expected at least 1 row and column"):
        corner(m, 0)
    with pytest.raises(ValueError, match=r"product of 0 matrices"):
        product()
    with pytest.raises(ValueError, match=r"matrices 1 and 2 have shapes \(4, 6\) and \(4, 6\).*transpose one with \.T"):
        product(m, m.T, m.T)

"""Principal components and projections: the theorems they satisfy, and a covariance eigendecomposition in float64."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor

from circuits.autoencoders import reconstruction_error
from circuits.bridge import record
from circuits.subspaces import fit_pca, orthonormal_basis, project_onto, project_out_of

N, D = 200, 12


def random(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


@pytest.fixture
def x() -> Tensor:
    return random(N, D) @ random(D, D, seed=1) + 3 * random(D, seed=2)


def close(actual: Tensor, expected: Tensor, atol: float = 1e-4) -> None:
    torch.testing.assert_close(actual.double(), expected.double(), rtol=0, atol=atol)


@pytest.mark.parametrize("k", [1, 4, D])
def test_components_and_variances_are_those_of_the_covariance(x: Tensor, k: int) -> None:
    pca = fit_pca(x, k)
    values, vectors = torch.linalg.eigh(torch.cov(x.double().T, correction=0))
    values, vectors = values.flip(0), vectors.flip(1).T
    close(pca.mean, x.double().mean(0))
    torch.testing.assert_close(pca.variances.double(), values[:k], rtol=1e-4, atol=1e-5)
    assert pca.total_variance == pytest.approx(float(values.sum()), rel=1e-5)
    close((pca.components.double() * vectors[:k]).sum(1).abs(), torch.ones(k))
    close(pca.components @ pca.components.T, torch.eye(k), 1e-5)


@pytest.mark.parametrize("k", [1, 4, 11])
def test_eckart_young(x: Tensor, k: int) -> None:
    """The error is the sum of the discarded variances, and no other subspace through the mean has a smaller one."""
    pca = fit_pca(x, k)
    error = float(reconstruction_error(pca.reconstruct(x), x))
    discarded = float(fit_pca(x, D).variances[k:].sum())
    assert error == pytest.approx(discarded, rel=1e-4)
    assert error + float(pca.variances.sum()) == pytest.approx(pca.total_variance, rel=1e-5)
    for seed in range(50):
        near = pca.components + (10 if seed % 2 else 0.3) * random(k, D, seed=seed)  # far from the best, and near it
        other = pca.mean + project_onto(x - pca.mean, near)
        assert float(reconstruction_error(other, x)) > error


def test_codes_are_uncorrelated_and_decoding_inverts_encoding(x: Tensor) -> None:
    pca = fit_pca(x, 4)
    code = pca.encode(x)
    close(torch.cov(code.T, correction=0), torch.diag(pca.variances), 1e-4 * float(pca.variances[0]))
    close(pca.encode(pca.decode(code)), code)
    close(pca.reconstruct(x), pca.mean + project_onto(x - pca.mean, pca.components))
    close(pca.encode(x.view(2, -1, D)), code.view(2, -1, 4), 1e-5)


def test_pca_of_few_samples_or_half_precision(x: Tensor) -> None:
    few = x[:5]
    close(fit_pca(few, 4).reconstruct(few), few)  # 5 points lie in 4 dimensions
    half = fit_pca(x.bfloat16(), 2)
    assert half.components.dtype == half.encode(x.bfloat16()).dtype == torch.float32
    close(half.components, fit_pca(x.bfloat16().float(), 2).components)


def test_signs_do_not_depend_on_the_data_s_order_or_scale(x: Tensor) -> None:
    components = fit_pca(x, 5).components
    close(fit_pca(x.flip(0) * 7, 5).components, components, 1e-3)
    close(fit_pca(-x, 5).components, components, 1e-3)
    assert (components.gather(1, components.abs().argmax(1, keepdim=True)) > 0).all()


def test_basis_spans_the_vectors_and_drops_dependent_ones() -> None:
    vectors = random(4, D)
    scales = torch.tensor([1.0, 1e-25, 1e25, 3.0, 1.0, 1.0])[:, None]  # short and long vectors count alike
    redundant = scales * torch.cat([vectors, vectors[:1] + 2 * vectors[1:2], torch.zeros(1, D)])
    Q = orthonormal_basis(redundant)
    assert Q.shape == (4, D)
    close(Q @ Q.T, torch.eye(4), 1e-5)
    exact = torch.linalg.qr(vectors.double().T).Q
    close(Q.T @ Q, exact @ exact.T, 1e-5)


def test_tolerance_decides_what_is_dependent() -> None:
    vectors = torch.stack([random(D), random(D) + 1e-3 * random(D, seed=1)])
    assert len(orthonormal_basis(vectors)) == 2
    assert len(orthonormal_basis(vectors, tolerance=1e-2)) == 1
    dense, sparse = torch.ones(D), torch.zeros(D)
    sparse[0], sparse[1] = 1, -1  # orthogonal to `dense`, so both singular values are 1 at unit length
    assert len(orthonormal_basis(torch.stack([dense, sparse]), tolerance=0.9)) == 2


def test_no_vectors_and_zero_vectors_span_nothing() -> None:
    x = random(3, D)
    for vectors in (torch.zeros(0, D), torch.zeros(2, D)):
        assert orthonormal_basis(vectors).shape == (0, D)
        assert torch.equal(project_onto(x, vectors), torch.zeros(3, D))
        assert torch.equal(project_out_of(x, vectors), x)


@pytest.mark.parametrize("n_vectors", [1, 4, D, D + 5])
def test_projection_is_the_least_squares_fit(x: Tensor, n_vectors: int) -> None:
    vectors = random(n_vectors, D, seed=5)
    V = vectors.double()
    expected = x.double() @ torch.linalg.pinv(V) @ V
    close(project_onto(x, vectors), expected)
    close(project_out_of(x, vectors), x.double() - expected)


def test_projections_are_idempotent_symmetric_and_complementary(x: Tensor) -> None:
    vectors = random(3, D, seed=5) * torch.tensor([[1.0], [100.0], [0.01]])
    onto, out_of = project_onto(x, vectors), project_out_of(x, vectors)
    P = project_onto(torch.eye(D), vectors)
    close(P, P.T, 1e-5)
    close(P @ P, P, 1e-5)
    close(x @ P, onto)
    close(project_onto(onto, vectors), onto)
    close(project_out_of(out_of, vectors), out_of)
    close(onto + out_of, x)
    close(project_onto(vectors, vectors) / vectors, torch.ones_like(vectors), 1e-2)
    close(out_of @ (vectors / vectors.norm(dim=1, keepdim=True)).T, torch.zeros(N, 3))
    close(onto.pow(2).sum(1) + out_of.pow(2).sum(1), x.pow(2).sum(1), 1e-3)
    close(project_onto(x[0], vectors), onto[0], 1e-5)
    close(project_onto(x.view(2, -1, D), vectors), onto.view(2, -1, D), 1e-5)


def test_eckart_young_on_a_residual_stream(shipped: Any) -> None:
    model = shipped("attn-only-2l")
    tokens = torch.randint(1, 1024, (8, 64), generator=torch.Generator().manual_seed(0))
    x = record(model, tokens, ["blocks.1.hook_resid_pre"])["blocks.1.hook_resid_pre"].flatten(0, 1)
    spectrum = torch.linalg.eigvalsh(torch.cov(x.double().T, correction=0)).flip(0)
    for k in (1, 16, 128):
        pca = fit_pca(x, k)
        assert float(reconstruction_error(pca.reconstruct(x), x)) == pytest.approx(float(spectrum[k:].sum()), rel=1e-3)


def test_bad_input(x: Tensor) -> None:
    for k in (0, D + 1):
        with pytest.raises(ValueError, match=rf"k is {k}: expected 1 to 12 components, for 200 samples in 12 dim"):
            fit_pca(x, k)
    with pytest.raises(ValueError, match="expected 1 to 5 components, for 5 samples"):
        fit_pca(x[:5], 6)
    x[7, 3] = torch.nan
    with pytest.raises(ValueError, match=r"x\[7, 3\] is nan: expected finite numbers; drop or repair that row"):
        fit_pca(x, 2)
    with pytest.raises(ValueError, match=r"vectors\[7, 3\] is nan: expected finite numbers"):
        project_out_of(x[:2], x)
    with pytest.raises(ValueError, match=r"tolerance is 1\.0: expected 0 to below 1"):
        orthonormal_basis(x[:2], tolerance=1.0)

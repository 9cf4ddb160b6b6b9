"""Subspaces: principal components, and projection onto and out of a span.

    PCA         x ~ mean + (x - mean) C^T C,    C = the k directions of largest variance, as orthonormal rows
    projection  onto(x) = x Q^T Q,    out_of(x) = x - x Q^T Q,    Q = an orthonormal basis of the span, as rows

Vectors stand on the left, as rows. C are the first k right singular vectors of the centred data; no other
k-dimensional affine subspace has a smaller squared error (Eckart and Young 1936), which is

    mean over samples of ||x - reconstruct(x)||^2 = sum of the d - k discarded variances.

Variances divide by n, so this holds as it stands on the data of the fit. The spans of `project_onto` go through the
origin; vectors that are not orthonormal are orthonormalised. Everything is exact to float32, to which inputs are cast.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor


@dataclass(frozen=True)
class PCA:
    """Principal components of a data set; see `fit_pca`. Its methods take and return float32."""

    mean: Float[Tensor, " d"]
    components: Float[Tensor, "k d"]  # orthonormal rows, by falling variance
    variances: Float[Tensor, " k"]  # of the data along each component, in squared units of the data
    total_variance: float  # of the data along all d directions

    def encode(self, x: Float[Tensor, "*batch d"]) -> Float[Tensor, "*batch k"]:
        """(x - mean) C^T, the coordinates along the components."""
        return (x.float() - self.mean) @ self.components.mT

    def decode(self, code: Float[Tensor, "*batch k"]) -> Float[Tensor, "*batch d"]:
        """mean + code C."""
        return self.mean + code.float() @ self.components

    def reconstruct(self, x: Float[Tensor, "*batch d"]) -> Float[Tensor, "*batch d"]:
        """decode(encode(x)), the nearest point of the mean plus the span of the components."""
        return self.decode(self.encode(x))


def fit_pca(x: Float[Tensor, "n d"], k: int) -> PCA:
    """The first k principal components of the rows of `x`; float32, on its device.

    By a singular value decomposition of the centred data, which, unlike an eigendecomposition of the covariance, does
    not square it. The entry of largest magnitude of each component is positive, so equal data gives equal signs.

    Raises:
        ValueError: k is not between 1 and min(n, d); `x` holds a number that is not finite.
    """
    n, d = x.shape
    if not 1 <= k <= min(n, d):
        raise ValueError(
            f"k is {k}: expected 1 to {min(n, d)} components, for {n} samples in {d} dimensions; give more samples or "
            f"ask for fewer components"
        )
    _check_finite("x", x)
    x = x.float()
    mean = x.mean(dim=0)
    _, S, C = torch.linalg.svd(x - mean, full_matrices=False)
    variances = S**2 / n
    return PCA(mean, _signed(C[:k]), variances[:k], total_variance=float(variances.sum()))


def orthonormal_basis(vectors: Float[Tensor, "k d"], *, tolerance: float = 1e-5) -> Float[Tensor, "rank d"]:
    """Orthonormal rows that span what `vectors` span; float32, on their device.

    The vectors are first scaled to unit length, so that a short one counts like a long one, and zero vectors are
    dropped. Then the right singular vectors are kept whose singular values exceed `tolerance` times the largest.

    Raises:
        ValueError: `tolerance` is not between 0 and 1; `vectors` hold a number that is not finite.
    """
    if not 0 <= tolerance < 1:
        raise ValueError(f"tolerance is {tolerance}: expected 0 to below 1, a share of the largest singular value")
    _check_finite("vectors", vectors)
    vectors = vectors.float()
    largest = vectors.abs().amax(dim=1, keepdim=True)
    present = (largest > 0).squeeze(1)
    if not present.any():
        return vectors[:0]
    scaled = vectors[present] / largest[present]  # so that the squares in the norm neither overflow nor vanish
    S: Tensor
    V_transposed: Tensor
    _, S, V_transposed = torch.linalg.svd(torch.nn.functional.normalize(scaled, dim=1), full_matrices=False)
    return V_transposed[S / S[0] > tolerance]


def project_onto(x: Float[Tensor, "*batch d"], vectors: Float[Tensor, "k d"]) -> Float[Tensor, "*batch d"]:
    """The part of `x` in the span of `vectors`, which need not be orthonormal or independent: x Q^T Q; float32.

    Q is `orthonormal_basis(vectors)`. No vectors, or zero vectors, span the zero vector alone.

    Raises:
        ValueError: `vectors` hold a number that is not finite.
    """
    Q = orthonormal_basis(vectors)
    return x.float() @ Q.mT @ Q


def project_out_of(x: Float[Tensor, "*batch d"], vectors: Float[Tensor, "k d"]) -> Float[Tensor, "*batch d"]:
    """x - project_onto(x, vectors), which is orthogonal to each of `vectors`; float32. Raises as there."""
    return x.float() - project_onto(x, vectors)


def _signed(C: Float[Tensor, "k d"]) -> Float[Tensor, "k d"]:
    return C * C.gather(1, C.abs().argmax(dim=1, keepdim=True)).sign()


def _check_finite(name: str, x: Float[Tensor, "n d"]) -> None:
    bad = (~x.isfinite()).nonzero()
    if len(bad):
        row, column = bad[0].tolist()
        raise ValueError(
            f"{name}[{row}, {column}] is {float(x[row, column])}: expected finite numbers; drop or repair that row"
        )

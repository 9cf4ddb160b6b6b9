"""Directions between two classes of activations, from pairs that come a batch at a time.

With x+ and x- the activations of a pair's texts at a layer, and d = x+ - x-:

    mean_difference   mean d
    pca               the first axis of  mean d d'                      unit length
    pca_centred       the first axis of  mean d d' - (mean d)(mean d)'  unit length
    logistic          w of  P(positive | x) = sigmoid(w . x + b)        unit length

Both PCA axes are turned so that positives project higher on average: mean d . v > 0. `pca` is PCA of x+ and x-, each
less its pair's middle: repeng's method "pca_center" and steering-vectors' `pca_aggregator`. `pca_centred` is PCA of the
differences, which sklearn centres: repeng's method "pca_diff", its default. Centring takes out what all pairs share, so
that it finds along what they differ most from each other; with few pairs that may have little to do with the contrast.

What they keep is a sum [d_model] a layer for the means, a matrix [d_model, d_model] for PCA, both in double precision,
and for logistic regression a file with all activations: memory does not grow with the number of pairs, but for a label
and a loss a text.

Logistic regression is scikit-learn's, with its intercept, C = 1, lbfgs to a tolerance of 1e-6 in at most 1,000 steps,
on activations that are centred and divided by one number a layer, their root mean square, so that C means the same
everywhere.
"""

from __future__ import annotations

import warnings
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import BinaryIO, Literal, Protocol, get_args

import numpy as np
import torch
from jaxtyping import Float, Float64
from torch import Tensor

from steering.errors import SteeringError, check_choice

Estimator = Literal["mean_difference", "pca", "pca_centred", "logistic"]
_BLOCK = 64  # differences that go into the matrices at once: a product instead of many passes over them
_ROWS = 4096  # rows of a file that are read at once
_STEPS = 1000
_TOLERANCE = 1e-11  # of an axis: |M v - (v . M v) v| against v . M v

Classes = Float[Tensor, "pair layer d_model"]


class Direction(Protocol):
    """Takes pairs, a batch at a time, then gives a direction a layer."""

    def add(self, positive: Classes, negative: Classes) -> None: ...

    def found(self) -> Float[Tensor, "layer d_model"]:
        """The directions, float32.

        Raises:
            SteeringError: the pairs do not determine them.
        """


@contextmanager
def estimating(estimator: Estimator, *, seed: int) -> Iterator[Direction]:
    """The estimator; its files, if it writes some, are gone afterwards.

    Raises:
        SteeringError: there is none of that name.
    """
    check_choice("estimator", estimator, get_args(Estimator))
    if estimator == "mean_difference":
        yield MeanDifference()
    elif estimator == "logistic":
        with TemporaryDirectory() as folder, ExitStack() as files:
            yield Logistic(Path(folder), files)
    else:
        yield PrincipalAxis(centred=estimator == "pca_centred", seed=seed)


class Sum:
    """The mean of one class."""

    def __init__(self) -> None:
        self.n = 0
        self.total: Tensor | None = None

    def add(self, x: Float[Tensor, "row layer d_model"]) -> None:
        part = x.double().sum(dim=0)
        self.total = part if self.total is None else self.total + part
        self.n += len(x)

    def mean(self) -> Float64[Tensor, "layer d_model"]:
        assert self.total is not None
        return self.total / self.n


class MeanDifference:
    """mean d."""

    def __init__(self) -> None:
        self.sum = Sum()

    def add(self, positive: Classes, negative: Classes) -> None:
        self.sum.add(positive.double() - negative.double())

    def found(self) -> Float[Tensor, "layer d_model"]:
        return self.sum.mean().float()


class PrincipalAxis:
    """The first axis of the differences, about 0 or about their mean."""

    def __init__(self, *, centred: bool, seed: int) -> None:
        self.centred, self.seed = centred, seed
        self.sum = Sum()
        self.waiting: list[Tensor] = []
        self.moments: Tensor | None = None

    def add(self, positive: Classes, negative: Classes) -> None:
        difference = positive.double() - negative.double()
        self.sum.add(difference)
        self.waiting.extend(difference)
        while len(self.waiting) >= _BLOCK:
            self._take(self.waiting[:_BLOCK])
            del self.waiting[:_BLOCK]

    def found(self) -> Float[Tensor, "layer d_model"]:
        if self.centred and self.sum.n < 2:
            raise SteeringError("pca_centred of 1 pair: expected at least 2, so that there are differences; use pca")
        if self.waiting:
            self._take(self.waiting)
            self.waiting = []
        assert self.moments is not None
        mean = self.sum.mean()
        axes = []
        for moment, middle in zip(self.moments, mean, strict=True):
            about = moment / self.sum.n - (torch.outer(middle, middle) if self.centred else 0.0)
            axis = leading_axis(about, seed=self.seed)
            axes.append(-axis if axis @ middle < 0 else axis)
        return torch.stack(axes).float()

    def _take(self, differences: Sequence[Tensor]) -> None:
        block = torch.stack(list(differences)).transpose(0, 1)  # [layer, pair, d_model]
        if self.moments is None:
            self.moments = block.mT @ block
        else:
            self.moments.baddbmm_(block.mT, block)


class Logistic:
    """The normal of the plane that tells the classes apart; activations wait in a file for each layer."""

    def __init__(self, folder: Path, files: ExitStack) -> None:
        self.folder, self.stack = folder, files
        self.files: list[BinaryIO] = []
        self.n, self.d_model = 0, 0
        self.sum = Sum()
        self.differ: Tensor | None = None

    def add(self, positive: Classes, negative: Classes) -> None:
        differ = (positive != negative).any(dim=2).any(dim=0)
        self.differ = differ if self.differ is None else self.differ | differ
        both = torch.stack([positive, negative], dim=1).flatten(0, 1).double()  # a positive row, then its negative one
        self.n, self.d_model = self.n + len(both), both.shape[-1]
        self.sum.add(both)
        if not self.files:
            self.files = [self.stack.enter_context(self._path(at).open("wb")) for at in range(both.shape[1])]
        for file, of_layer in zip(self.files, both.unbind(dim=1), strict=True):
            file.write(of_layer.cpu().numpy().tobytes())

    def found(self) -> Float[Tensor, "layer d_model"]:
        assert self.differ is not None
        means = self.sum.mean().cpu()
        for file in self.files:
            file.flush()
        zero = torch.zeros(self.d_model)  # where no pair differs: a regression would make a direction of rounding
        layers = enumerate(zip(means, self.differ.tolist(), strict=True))
        return torch.stack([self._of_layer(at, mean) if differ else zero for at, (mean, differ) in layers])

    def _path(self, layer: int) -> Path:
        return self.folder / f"{layer}.float64"

    def _of_layer(self, layer: int, mean: Float64[Tensor, " d_model"]) -> Float[Tensor, " d_model"]:
        from sklearn.exceptions import ConvergenceWarning
        from sklearn.linear_model import LogisticRegression

        x = np.memmap(self._path(layer), dtype=np.float64, mode="r+", shape=(self.n, self.d_model))
        squares = 0.0
        for first in range(0, self.n, _ROWS):
            rows = x[first : first + _ROWS]
            rows -= mean.numpy()
            squares += float(np.vdot(rows, rows))
        scale = np.sqrt(squares / x.size)
        for first in range(0, self.n, _ROWS):
            x[first : first + _ROWS] /= scale
        labels = np.tile([1, 0], self.n // 2)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", ConvergenceWarning)  # an error below
            fitted = LogisticRegression(C=1.0, solver="lbfgs", tol=1e-6, max_iter=_STEPS).fit(x, labels)
        if int(fitted.n_iter_[0]) >= _STEPS:
            raise SteeringError(
                f"logistic regression on {self.n} texts has not converged in {_STEPS} steps; use mean_difference or pca"
            )
        weights: Tensor = torch.from_numpy(fitted.coef_[0])
        unit: Tensor = weights / weights.norm()
        return unit.float()


def leading_axis(matrix: Float64[Tensor, "d_model d_model"], *, seed: int) -> Float64[Tensor, " d_model"]:
    """The unit eigenvector of the largest eigenvalue of a symmetric matrix without negative ones; 0 of the zero matrix.

    By Lanczos' method from a random start, restarted from the best vector so far: a few dozen products with the matrix
    where a full decomposition costs several d_model of them.

    Raises:
        SteeringError: it is not found in 100 restarts.
    """
    d = len(matrix)
    if not bool(matrix.any()):
        return torch.zeros_like(matrix[0])
    start = torch.randn(d, generator=torch.Generator().manual_seed(seed), dtype=torch.float64).to(matrix.device)
    axis: Tensor = start / start.norm()
    for _ in range(100):
        basis, projected = [axis], []
        while True:
            product = matrix @ basis[-1]
            projected.append(product)
            span = torch.stack(basis)
            for _ in range(2):  # twice: once leaves what rounding put in
                product = product - span.T @ (span @ product)
            norm = product.norm()
            if len(basis) == min(d, 48) or float(norm) <= 1e-13 * float(projected[-1].norm()):
                break
            basis.append(product / norm)
        small = span @ torch.stack(projected).T
        _, vectors = torch.linalg.eigh((small + small.T) / 2)
        axis = span.T @ vectors[:, -1]
        axis = axis / axis.norm()
        product = matrix @ axis
        value = axis @ product
        if float((product - value * axis).norm()) <= _TOLERANCE * float(value):
            return axis
    raise SteeringError(
        "no first principal axis found: the largest two are as good as equal; use mean_difference, or more pairs"
    )

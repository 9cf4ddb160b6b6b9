"""Each estimator against numpy and scikit-learn on all the data at once."""

from __future__ import annotations

import tracemalloc
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from sklearn.decomposition import PCA
from sklearn.linear_model import LogisticRegression
from torch import Tensor

from steering.errors import SteeringError, check_choice
from steering.estimators import estimating, leading_axis

N, LAYERS, D = 150, 2, 12


def classes(n: int = N, seed: int = 0, d: int = D) -> tuple[Tensor, Tensor]:
    """Pairs [pair, layer, d_model] with much in common, whose difference has a mean, and a larger spread elsewhere."""
    generator = torch.Generator().manual_seed(seed)
    common = 5 * torch.randn(n, LAYERS, d, generator=generator) + 3.0
    spread = torch.randn(n, LAYERS, 1, generator=generator) * torch.linspace(0.5, 3.0, d)
    mean = torch.linspace(6.0, -3.0, d)
    noise = torch.randn(n, LAYERS, d, generator=generator)
    return common + mean + spread + noise, common


def found(estimator: Any, positive: Tensor, negative: Tensor, *, batch: int = 8, seed: int = 0) -> Tensor:
    with estimating(estimator, seed=seed) as direction:
        for first in range(0, len(positive), batch):
            direction.add(positive[first : first + batch], negative[first : first + batch])
        return direction.found()


def test_the_mean_difference_is_numpys() -> None:
    positive, negative = classes()
    expected = np.mean(positive.double().numpy() - negative.double().numpy(), axis=0)
    assert found("mean_difference", positive, negative).numpy() == pytest.approx(expected, abs=1e-6)


def test_pca_is_that_of_the_classes_each_less_its_pairs_middle() -> None:
    """repeng's "pca_center", by scikit-learn on all at once."""
    positive, negative = classes()
    axes = found("pca", positive, negative).numpy()
    for layer in range(LAYERS):
        p, n = positive[:, layer].double().numpy(), negative[:, layer].double().numpy()
        both = np.concatenate([p - (p + n) / 2, n - (p + n) / 2])
        expected = PCA(n_components=1).fit(both).components_[0]
        assert abs(axes[layer] @ expected) == pytest.approx(1.0, abs=1e-6)
        assert ((p - n) @ axes[layer]).mean() > 0


def test_centred_pca_is_that_of_the_differences() -> None:
    """repeng's "pca_diff", by scikit-learn on all at once."""
    positive, negative = classes()
    axes = found("pca_centred", positive, negative).numpy()
    for layer in range(LAYERS):
        difference = (positive - negative)[:, layer].double().numpy()
        expected = PCA(n_components=1).fit(difference).components_[0]
        assert abs(axes[layer] @ expected) == pytest.approx(1.0, abs=1e-6)
        assert (difference @ axes[layer]).mean() > 0
    assert (found("pca", positive, negative) * torch.from_numpy(axes)).sum(dim=1).abs().max() < 0.99


def test_axes_turn_with_the_classes() -> None:
    positive, negative = classes()
    for estimator in ("pca", "pca_centred", "mean_difference", "logistic"):
        one, other = found(estimator, positive, negative), found(estimator, negative, positive)
        torch.testing.assert_close(one, -other, atol=1e-4, rtol=0)
        if estimator != "mean_difference":
            torch.testing.assert_close(one.norm(dim=1), torch.ones(LAYERS))


def test_logistic_regression_is_scikit_learns() -> None:
    positive, negative = classes(seed=1)
    directions = found("logistic", positive, negative).numpy()
    for layer in range(LAYERS):
        x = torch.cat([positive[:, layer], negative[:, layer]]).double().numpy()
        x = x - x.mean(axis=0)
        x = x / np.sqrt(np.mean(x**2))
        fitted = LogisticRegression(C=1.0, tol=1e-10, max_iter=10_000).fit(x, [1] * N + [0] * N)
        expected = fitted.coef_[0] / np.linalg.norm(fitted.coef_[0])
        assert directions[layer] == pytest.approx(expected, abs=1e-3)
        assert fitted.score(x, [1] * N + [0] * N) > 0.7  # it tells them apart at all


@pytest.mark.parametrize("estimator", ["mean_difference", "pca", "pca_centred", "logistic"])
def test_the_same_pairs_give_the_same_bits(estimator: str) -> None:
    positive, negative = classes()
    one = found(estimator, positive, negative)
    assert torch.equal(one, found(estimator, positive, negative))
    assert torch.equal(found(estimator, positive, negative, batch=7), found(estimator, positive, negative, batch=7))
    torch.testing.assert_close(one, found(estimator, positive, negative, batch=50, seed=3), atol=1e-5, rtol=0)


def test_the_seed_starts_the_search_and_no_more() -> None:
    matrix = torch.diag(torch.tensor([1.0, 2.0, 2.0, 0.5], dtype=torch.float64))
    one, other = leading_axis(matrix, seed=0), leading_axis(matrix, seed=1)
    assert torch.equal(one, leading_axis(matrix, seed=0))
    for axis in (one, other):  # any vector of the plane is right
        torch.testing.assert_close(matrix @ axis, 2.0 * axis)
    assert abs(float(one @ other)) < 0.999


@pytest.mark.parametrize("d", [1, 2, 5, 60, 200])
def test_the_leading_axis_is_that_of_a_full_decomposition(d: int) -> None:
    x = torch.randn(2 * d + 1, d, generator=torch.Generator().manual_seed(d), dtype=torch.float64)
    matrix = x.T @ x
    axis = leading_axis(matrix, seed=0)
    values, vectors = torch.linalg.eigh(matrix)
    assert float(axis @ matrix @ axis) == pytest.approx(float(values[-1]), rel=1e-12)
    assert abs(float(axis @ vectors[:, -1])) == pytest.approx(1.0, abs=1e-9)
    one = torch.zeros(d, d, dtype=torch.float64)
    assert torch.equal(leading_axis(one, seed=0), one[0])


@pytest.mark.parametrize("estimator", ["mean_difference", "pca", "logistic"])
def test_memory_does_not_grow_with_the_pairs(estimator: str) -> None:
    """The most that Python and numpy hold, and the tensors that the estimator holds, per pair that is added."""
    d, few, many = 64, 400, 4000

    def most(n: int) -> int:
        batches = [classes(100, seed=step, d=d) for step in range(4)]
        tracemalloc.start()
        with estimating(estimator, seed=0) as direction:  # type: ignore[arg-type]
            for step in range(n // 100):
                direction.add(*batches[step % 4])
            held = sum(_tensors(direction))
            direction.found()
        peak = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
        return peak + held

    most(few)  # imports
    growth = (most(many) - most(few)) / (many - few)
    assert (
        growth < 150
    )  # a pair's activations are 2 * 2 * 64 * 4 = 1024 bytes; the regression has a label and a loss each


def _tensors(value: Any, depth: int = 3) -> list[int]:
    """Bytes of the tensors that an object holds."""
    if isinstance(value, Tensor):
        return [value.nbytes]
    if depth == 0:
        return []
    parts = value if isinstance(value, (list, tuple)) else getattr(value, "__dict__", {}).values()
    return [size for part in parts for size in _tensors(part, depth - 1)]


def test_files_are_gone_afterwards(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    with estimating("logistic", seed=0) as direction:
        direction.add(*classes())
        assert len(list(tmp_path.rglob("*.float64"))) == LAYERS
    assert not list(tmp_path.iterdir())
    with pytest.raises(AssertionError), estimating("logistic", seed=0) as direction:
        direction.found()
    assert not list(tmp_path.iterdir())


def test_pairs_that_say_nothing() -> None:
    positive, negative = classes(1)
    with pytest.raises(SteeringError, match="pca_centred of 1 pair: expected at least 2"):
        found("pca_centred", positive, negative)
    assert found("pca", positive, negative).isfinite().all()
    for estimator in ("mean_difference", "pca", "pca_centred", "logistic"):
        assert not found(estimator, classes()[0], classes()[0]).any()
    with pytest.raises(SteeringError, match="estimator 'median': expected one of mean, pca"):
        check_choice("estimator", "median", ["mean", "pca"])  # the type says it under test, this to a user


def test_a_regression_that_does_not_converge_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("steering.estimators._STEPS", 2)
    with pytest.raises(SteeringError, match="has not converged in 2 steps; use mean_difference or pca"):
        found("logistic", *classes())

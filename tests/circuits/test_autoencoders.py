"""Autoencoders against the theorem that bounds the linear ones (PCA), and against curved data of known noise."""

from __future__ import annotations

from typing import Any

import jaxtyping
import pytest
import torch
from torch import Tensor

from circuits.autoencoders import Autoencoder, curved_data, fit_autoencoder, reconstruction_error
from circuits.bridge import record
from circuits.subspaces import fit_pca

NOISE = 0.05


def random(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


@pytest.fixture
def x() -> Tensor:
    return 5 * random(400, 8) @ random(8, 8, seed=1) + 3


def fit(x: Tensor, code_size: int = 2, **changes: Any) -> Autoencoder:
    settings: dict[str, Any] = {"hidden": None, "steps": 400, "learning_rate": 0.05, "seed": 0, **changes}
    return fit_autoencoder(x, code_size, **settings)


def error(model: Any, x: Tensor) -> float:
    """In float64, so that two errors can be compared to 1e-6."""
    reconstruction = model(x) if isinstance(model, Autoencoder) else model.reconstruct(x)
    return float((reconstruction.double() - x.double()).pow(2).sum(1).mean())


@pytest.mark.parametrize("code_size", [1, 2, 5])
@pytest.mark.parametrize("seed", [0, 1])
def test_a_linear_autoencoder_approaches_pca_from_above(x: Tensor, code_size: int, seed: int) -> None:
    best = error(fit_pca(x, code_size), x)
    untrained = error(fit(x, code_size, steps=1, learning_rate=1e-9, seed=seed), x)
    trained = error(fit(x, code_size, seed=seed), x)
    assert best * (1 - 1e-6) <= trained < best * 1.03
    assert trained < untrained


def test_a_linear_autoencoder_spans_the_principal_components(x: Tensor) -> None:
    """The columns that the decoder adds lie in the span of the components (Baldi and Hornik 1989)."""
    decoder: Any = fit(x, 2).decoder
    components = fit_pca(x, 2).components
    directions = decoder[0].weight.T
    outside = directions - directions @ components.T @ components
    assert float(outside.norm() / directions.norm()) < 0.05


def test_a_nonlinear_autoencoder_beats_pca_on_a_curve_on_held_out_rows() -> None:
    x = curved_data(1500, 10, NOISE, seed=0)
    fitted, held_out = x[:1000], x[1000:]
    pca = error(fit_pca(fitted, 1), held_out)
    linear = error(fit(fitted, 1), held_out)
    nonlinear = error(fit(fitted, 1, hidden=64, steps=500, learning_rate=0.02, seed=3), held_out)
    assert linear == pytest.approx(pca, rel=0.03)
    assert nonlinear < 0.2 * pca
    assert nonlinear > 0.9 * NOISE**2 * 9  # the noise across the curve cannot be coded


def test_a_curve_has_three_linear_dimensions_and_the_noise_asked_for() -> None:
    x = curved_data(4000, 10, NOISE, seed=1)
    variances = fit_pca(x, 10).variances
    torch.testing.assert_close(variances[3:], torch.full((7,), NOISE**2), rtol=0.2, atol=0)
    assert float(variances[2]) > 20 * NOISE**2
    clean = curved_data(4000, 10, 0.0, seed=1)
    assert fit_pca(clean, 10).total_variance == pytest.approx(1 + 1 / 3, rel=0.05)  # of cos, sin and t / pi
    radius = clean.pow(2).sum(1)  # 1 + (t / pi)^2 about the origin
    assert float(radius.min()) >= 1 - 1e-5
    assert float(radius.max()) <= 2 + 1e-5
    assert torch.equal(x, curved_data(4000, 10, NOISE, seed=1))
    assert not torch.equal(x, curved_data(4000, 10, NOISE, seed=2))


@pytest.mark.parametrize("changes", [{}, {"hidden": 6}, {"hidden": 6, "batch_size": 32}])
def test_a_seed_decides_everything_and_the_global_state_is_left_alone(x: Tensor, changes: dict[str, Any]) -> None:
    torch.manual_seed(11)
    before = torch.get_rng_state()
    first = fit(x, steps=20, **changes)
    assert torch.equal(torch.get_rng_state(), before)
    torch.manual_seed(12)
    second, third = fit(x, steps=20, **changes), fit(x, steps=20, **{**changes, "seed": 1})
    assert torch.equal(first(x), second(x))
    assert not torch.equal(first(x), third(x))


def test_minibatches_learn_too(x: Tensor) -> None:
    assert error(fit(x, 2, batch_size=64), x) < 1.1 * error(fit_pca(x, 2), x)


@pytest.mark.parametrize("hidden", [None, 6])
def test_reconstruction_is_decoder_of_encoder_and_inputs_are_standardised_by_one_scale(
    x: Tensor, hidden: int | None
) -> None:
    model = fit(x, 2, hidden=hidden, steps=5)
    code = model.encode(x)
    assert code.shape == (400, 2)
    assert torch.equal(model.decode(code), model(x))
    torch.testing.assert_close(model.mean, x.mean(0))
    torch.testing.assert_close(model.scale, (x - x.mean(0)).pow(2).mean().sqrt())
    torch.testing.assert_close(model.decode(torch.zeros(2)), x.mean(0) + model.scale * model.decoder(torch.zeros(2)))
    torch.testing.assert_close(model(x.view(4, 100, 8)), model(x).view(4, 100, 8))
    layers = [type(layer).__name__ for layer in model.encoder.children()]
    assert layers == (["Linear"] if hidden is None else ["Linear", "GELU", "Linear"])


def test_errors_scale_with_the_data(x: Tensor) -> None:
    """One scalar scale: data in other units gives the same fit in these units."""
    assert error(fit(100 * x - 7), 100 * x - 7) == pytest.approx(1e4 * error(fit(x), x), rel=1e-2)


def test_a_fit_needs_no_gradient_mode_and_leaves_none_behind(x: Tensor) -> None:
    with torch.no_grad():
        model = fit(x.bfloat16(), 2, steps=50)
    assert error(model, x) < error(fit(x, 2, steps=1), x)
    assert not model.training
    assert not any(parameter.requires_grad for parameter in model.parameters())
    assert model(x.bfloat16()).dtype == torch.float32
    assert not model(x).requires_grad


def test_reconstruction_error_is_the_mean_squared_distance() -> None:
    a, b = random(7, 3), random(7, 3, seed=1)
    expected = sum(float(((a[i] - b[i]) ** 2).sum()) for i in range(7)) / 7
    assert float(reconstruction_error(a, b)) == pytest.approx(expected, rel=1e-6)


def test_linear_autoencoders_of_a_residual_stream_never_beat_pca(shipped: Any) -> None:
    model = shipped("attn-only-2l")
    tokens = torch.randint(1, 1024, (8, 64), generator=torch.Generator().manual_seed(0))
    x = record(model, tokens, ["blocks.1.hook_resid_pre"])["blocks.1.hook_resid_pre"].flatten(0, 1)
    for code_size in (1, 8):
        best = error(fit_pca(x, code_size), x)
        for seed in (0, 1):
            linear = error(fit(x, code_size, steps=200, learning_rate=0.01, seed=seed), x)
            assert best * (1 - 1e-6) <= linear < 1.1 * best


def test_bad_input(x: Tensor, monkeypatch: pytest.MonkeyPatch) -> None:
    bad: list[tuple[dict[str, Any], str]] = [
        ({"code_size": 0}, "code_size is 0: expected 1 to 8"),
        ({"code_size": 9}, "code_size is 9: expected 1 to 8, the dimensions of x"),
        ({"hidden": 0}, "hidden is 0: expected at least 1 unit, or None"),
        ({"steps": 0}, "steps=0, learning_rate=0.05: expected at least 1 step"),
        ({"learning_rate": 0.0}, "a rate above 0"),
        ({"batch_size": 401}, "batch_size is 401: expected 1 to 400, the rows of x"),
    ]
    for changes, message in bad:
        with pytest.raises(ValueError, match=message):
            fit(x, **changes)
    for unusable in (torch.ones(5, 8), torch.full((5, 8), torch.inf)):
        with pytest.raises(ValueError, match=r"root mean square .* about its mean: expected a finite number above 0"):
            fit(unusable)
    with pytest.raises(ValueError, match=r"n=5, d=2, noise=0\.1: expected at least 1 point, 3 dimensions"):
        curved_data(5, 2, 0.1, seed=0)
    monkeypatch.setattr(jaxtyping.config, "jaxtyping_disable", True)
    with pytest.raises(ValueError, match=r"reconstruction has shape \(1, 8\): expected \(400, 8\), that of x"):
        reconstruction_error(x[:1], x)

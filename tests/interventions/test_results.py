"""Errors, intervals and largest cells of a result, against naive computations."""

from __future__ import annotations

import statistics

import pytest
import torch

from interventions.results import SweepResult


def result(values: torch.Tensor, clean: torch.Tensor | None = None) -> SweepResult:
    coordinates = {"layer": (4, 7), "position": (-3, -2, -1)}
    clean = torch.zeros(len(values)) if clean is None else clean
    return SweepResult(values, clean, ("layer", "position"), coordinates, component="resid_pre", metric="logit")


def random_result(n: int, seed: int = 0) -> SweepResult:
    generator = torch.Generator().manual_seed(seed)
    return result(torch.randn(n, 2, 3, generator=generator) + 1, torch.randn(n, generator=generator))


def test_mean_and_standard_error_are_over_prompts() -> None:
    sweep = random_result(5)
    mean, error = sweep.mean(), sweep.standard_error()
    for layer in range(2):
        for position in range(3):
            effects = [float(sweep.values[i, layer, position] - sweep.clean[i]) for i in range(5)]
            assert float(mean[layer, position]) == pytest.approx(statistics.mean(effects), abs=1e-6)
            assert float(error[layer, position]) == pytest.approx(statistics.stdev(effects) / 5**0.5, abs=1e-6)


def test_the_interval_is_the_naive_bootstrap_with_the_same_draws() -> None:
    sweep = random_result(6)
    low, high = sweep.interval(seed=3, level=0.8, resamples=50)
    draws = torch.randint(6, (50, 6), generator=torch.Generator().manual_seed(3))
    for layer in range(2):
        for position in range(3):
            effects = (sweep.values[:, layer, position] - sweep.clean).double()
            means = sorted(float(effects[draw].mean()) for draw in draws)
            for end, q in ((low, 0.1), (high, 0.9)):
                below = int(q * 49)
                part = q * 49 - below
                want = means[below] * (1 - part) + means[below + 1] * part
                assert float(end[layer, position]) == pytest.approx(want, abs=1e-5)


def test_the_interval_covers_the_true_mean_about_as_often_as_it_says() -> None:
    """200 results of 40 prompts: 6 cells each with true effect 1; 95% nominal, percentile bootstrap a little less."""
    inside = 0
    for seed in range(200):
        generator = torch.Generator().manual_seed(seed)
        low, high = result(torch.randn(40, 2, 3, generator=generator) + 1).interval(seed=seed, resamples=300)
        inside += int(((low < 1) & (high > 1)).sum())
    assert 0.90 < inside / 1200 < 0.97


def test_many_cells_and_prompts_fit() -> None:
    """More numbers than torch.quantile takes at once, in the same intervals as a part of them."""
    values = torch.randn(4, 20000, generator=torch.Generator().manual_seed(0))
    many = SweepResult(values, torch.zeros(4), ("layer",), {"layer": tuple(range(20000))}, "z", "logit")
    few = SweepResult(values[:, -5:], torch.zeros(4), ("layer",), {"layer": tuple(range(5))}, "z", "logit")
    for whole, part in zip(many.interval(seed=0), few.interval(seed=0), strict=True):
        torch.testing.assert_close(whole[-5:], part, atol=1e-6, rtol=1e-6)


def test_top_names_the_largest_cells_by_their_coordinates() -> None:
    values = torch.tensor([[[0.0, 1.0, -5.0], [2.0, 0.5, 3.0]]])
    assert result(values).top(3) == [
        ({"layer": 4, "position": -1}, -5.0),
        ({"layer": 7, "position": -1}, 3.0),
        ({"layer": 7, "position": -3}, 2.0),
    ]


def test_a_single_prompt_has_no_error() -> None:
    assert random_result(1).standard_error().isnan().all()
    low, high = random_result(1).interval(seed=0)
    torch.testing.assert_close(low, high)


@pytest.mark.parametrize(("level", "resamples"), [(0.0, 10), (95.0, 10), (0.9, 0)])
def test_impossible_intervals_are_refused(level: float, resamples: int) -> None:
    with pytest.raises(ValueError, match="expected a level between 0 and 1, at least one resample"):
        random_result(3).interval(seed=0, level=level, resamples=resamples)

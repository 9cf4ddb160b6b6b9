"""Bootstraps against plain loops over the same draws, and against what is known of them."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch

from steering.errors import SteeringError
from steering.intervals import Interval, Quotient, difference

from .measure_models import bootstrap_means

GENERATOR = torch.Generator().manual_seed(5)
LOSSES = torch.rand(7, generator=GENERATOR, dtype=torch.float64)
TOKENS = torch.tensor([3.0, 0.0, 5.0, 1.0, 2.0, 9.0, 4.0], dtype=torch.float64)


def draws(n: int, *, seed: int, resamples: int) -> torch.Tensor:
    return torch.randint(n, (resamples, n), generator=torch.Generator().manual_seed(seed))


def test_an_interval_is_the_quantiles_of_resampled_quotients() -> None:
    found = Quotient(LOSSES, TOKENS).interval(seed=3, level=0.8, resamples=200, transform=torch.exp)
    expected = bootstrap_means(LOSSES, TOKENS, draws(7, seed=3, resamples=200)).exp().numpy()
    low, high = np.nanquantile(expected, [0.1, 0.9])
    assert found.estimate == pytest.approx(math.exp(float(LOSSES.sum() / TOKENS.sum())))
    assert (found.low, found.high) == pytest.approx((low, high))
    assert found.low < found.estimate < found.high
    assert found.n == 6, "a unit without tokens measures nothing"


def test_cells_are_resampled_together_and_give_what_each_gives_alone() -> None:
    values = torch.randn(5, 2, 3, generator=GENERATOR, dtype=torch.float64)
    values[1, 0, 2] = torch.nan
    whole = Quotient.mean(values)
    low, high = whole.ends(seed=1, resamples=50)
    assert low.shape == (2, 3)
    for row in range(2):
        for column in range(3):
            alone = Quotient.mean(values[:, row, column]).interval(seed=1, resamples=50)
            found = (whole.estimate()[row, column], low[row, column], high[row, column])
            assert [float(x) for x in found] == pytest.approx([alone.estimate, alone.low, alone.high])


def test_nan_does_not_count() -> None:
    found = Quotient.mean(torch.tensor([1.0, torch.nan, 3.0]))
    assert float(found.estimate()) == 2.0
    assert found.counted == 2
    nothing = Quotient.mean(torch.tensor([torch.nan, torch.nan])).interval(seed=0)
    assert math.isnan(nothing.estimate)
    assert nothing.n == 0


def test_the_interval_of_a_mean_is_as_wide_as_its_standard_error_says() -> None:
    values = torch.randn(400, generator=GENERATOR)
    found = Quotient.mean(values).interval(seed=0, resamples=2000)
    width = 2 * 1.96 * float(values.std()) / 20
    assert found.high - found.low == pytest.approx(width, rel=0.1)


def test_differences_keep_their_pairing_unless_told_otherwise() -> None:
    one = torch.randn(30, generator=GENERATOR, dtype=torch.float64)
    pair = Quotient.mean(one + 0.25), Quotient.mean(one)
    paired = difference(*pair, seed=2)
    assert (paired.estimate, paired.low, paired.high) == pytest.approx((0.25, 0.25, 0.25))
    apart = difference(*pair, seed=2, paired=False)
    assert apart.estimate == pytest.approx(0.25)
    assert apart.high - apart.low > 0.5
    assert difference(pair[0], Quotient.mean(one[:9]), seed=2, paired=False).n == 9


def test_an_interval_says_itself_in_three_digits() -> None:
    assert str(Interval(0.12345, 0.1, 0.5, 8)) == "0.123 [0.1, 0.5]"


def test_what_means_nothing_is_refused() -> None:
    with pytest.raises(SteeringError, match=r"level 1.0, 5 resamples: expected a level between 0 and 1"):
        Quotient.mean(LOSSES).ends(seed=0, level=1.0, resamples=5)
    with pytest.raises(SteeringError, match=r"numerators \(7, 1\), denominators \(7,\): expected one shape"):
        Quotient(LOSSES[:, None], TOKENS)
    with pytest.raises(SteeringError, match="at least one unit"):
        Quotient.mean(torch.empty(0))
    with pytest.raises(SteeringError, match=r"cells \(2,\): expected none"):
        Quotient.mean(torch.ones(3, 2)).interval(seed=0)
    with pytest.raises(SteeringError, match=r"units \(7,\) and \(3,\): expected the same"):
        difference(Quotient.mean(LOSSES), Quotient.mean(LOSSES[:3]), seed=0)

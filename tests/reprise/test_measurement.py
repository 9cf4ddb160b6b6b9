"""Intervals cover what they say, and verdicts follow from intervals alone."""

from __future__ import annotations

import numpy as np
import pytest

from reprise import Accept, Measurement, bootstrap, judge


def measured(low: float, high: float) -> Measurement:
    return Measurement(estimate=(low + high) / 2, low=low, high=high, n=10, over="prompts")


def test_the_interval_covers_the_mean_of_a_normal_about_95_times_in_100() -> None:
    generator = np.random.default_rng(0)
    repetitions, covered = 300, 0
    for repetition in range(repetitions):
        sample = generator.normal(3.0, 2.0, size=200)
        interval = bootstrap(np.mean, sample, over="draws", seed=repetition, resamples=200)
        covered += interval.low <= 3.0 <= interval.high
    # Few resamples and 200 draws cost a percentile interval about .01 of its .95; three standard errors are .04.
    assert 0.90 <= covered / repetitions <= 0.98


def test_the_interval_of_a_mean_is_the_normal_one() -> None:
    sample = np.random.default_rng(1).normal(size=400)
    interval = bootstrap(np.mean, sample, over="draws", seed=0, resamples=4000)
    half = 1.96 * sample.std() / np.sqrt(len(sample))
    assert interval.estimate == sample.mean()
    assert interval.low == pytest.approx(sample.mean() - half, abs=0.01)
    assert interval.high == pytest.approx(sample.mean() + half, abs=0.01)
    assert (interval.n, interval.over) == (400, "draws")


def test_samples_are_resampled_together() -> None:
    base = np.random.default_rng(2).normal(0.0, 100.0, size=50)
    interval = bootstrap(lambda a, b: (b - a).mean(), base, base + 1.0, over="prompts", seed=0, resamples=100)
    assert interval.low == pytest.approx(1.0)
    assert interval.high == pytest.approx(1.0)


def test_units_are_rows() -> None:
    rows = np.arange(20.0).reshape(10, 2)
    interval = bootstrap(lambda a: float((a[:, 1] - a[:, 0]).mean()), rows, over="rows", seed=0, resamples=20)
    assert (interval.n, interval.low, interval.high) == (10, 1.0, 1.0)


def test_a_seed_gives_one_interval() -> None:
    sample = np.random.default_rng(3).normal(size=30)
    first, again, other = (bootstrap(np.mean, sample, over="x", seed=seed, resamples=50) for seed in (7, 7, 8))
    assert first == again
    assert first != other


@pytest.mark.parametrize(
    "samples", [(np.zeros(1),), (np.zeros(3), np.zeros(4)), ()], ids=["one unit", "unequal", "none"]
)
def test_samples_that_cannot_be_resampled(samples: tuple[np.ndarray[tuple[int], np.dtype[np.float64]], ...]) -> None:
    with pytest.raises(ValueError, match="bootstrap over prompts: expected samples with one shared first axis"):
        bootstrap(lambda *_: 0.0, *samples, over="prompts", seed=0)


@pytest.mark.parametrize(
    ("low", "high", "verdict"),
    [
        (0.5, 0.6, "supported"),
        (0.4, 0.6, "supported"),  # both ends are accepted
        (0.4, 0.4, "supported"),
        (0.6, 0.6, "supported"),
        (0.3, 0.5, "inconclusive"),
        (0.5, 0.7, "inconclusive"),
        (0.3, 0.7, "inconclusive"),
        (0.3, 0.4, "inconclusive"),  # touches the accepted range
        (0.6, 0.7, "inconclusive"),
        (0.1, 0.39, "refuted"),
        (0.61, 0.9, "refuted"),
    ],
)
def test_verdicts(low: float, high: float, verdict: str) -> None:
    assert judge(measured(low, high), Accept(0.4, 0.6)) == verdict


def test_verdicts_of_open_ranges_and_of_nothing() -> None:
    assert judge(measured(1e9, 2e9), Accept(at_least=0.0)) == "supported"
    assert judge(measured(-2, -1), Accept(at_least=0.0)) == "refuted"
    assert judge(measured(-2, -1), Accept(at_most=0.0)) == "supported"
    assert judge(measured(-1, 1), Accept(at_most=0.0)) == "inconclusive"
    assert judge(None, Accept(at_most=0.0)) == "not run"


@pytest.mark.parametrize("value", [float("nan"), float("inf"), float("-inf")])
def test_numbers_that_cannot_be_judged_are_refused(value: float) -> None:
    for estimate, low, high in ((value, 0.0, 1.0), (0.5, value, 1.0), (0.5, 0.0, value)):
        with pytest.raises(ValueError, match="expected finite numbers"):
            Measurement(estimate=estimate, low=low, high=high, n=2, over="prompts")


def test_a_sample_with_nan_gives_no_measurement() -> None:
    with pytest.raises(ValueError, match="expected finite numbers"):
        bootstrap(np.mean, np.array([1.0, np.nan, 2.0]), over="prompts", seed=0, resamples=10)


def test_reversed_intervals_are_refused() -> None:
    with pytest.raises(ValueError, match="the low end exceeds the high end"):
        measured(1.0, 0.0)

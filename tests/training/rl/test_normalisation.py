"""Running statistics against those of all numbers at once, and against Gymnasium's wrappers."""

from __future__ import annotations

from typing import Any

import gymnasium as gym
import numpy as np
import pytest

from training.rl.normalisation import ObservationNormaliser, RewardScaler

RNG = np.random.default_rng(0)


@pytest.mark.parametrize("batch", [1, 3])
def test_observation_statistics_are_those_of_all_observations(batch: int) -> None:
    observations = RNG.normal(size=(50, batch, 4)) * [1, 10, 0.1, 3] + [0, 5, -2, 1]
    normaliser = ObservationNormaliser(4)
    for row in observations:
        normaliser.update(row)
    together = observations.reshape(-1, 4)
    weight = 1e-4 + len(together)  # of them, and of the mean 0 and variance 1 at first
    mean = together.sum(axis=0) / weight
    variance = (1e-4 * (1 + mean**2) + np.square(together - mean).sum(axis=0)) / weight
    np.testing.assert_allclose(normaliser.mean, mean, rtol=1e-9)
    np.testing.assert_allclose(normaliser.variance, variance, rtol=1e-9)


@pytest.mark.parametrize("batch", [1, 4])
def test_observation_statistics_are_gymnasiums(batch: int) -> None:
    theirs, ours = gym.wrappers.utils.RunningMeanStd(shape=(3,)), ObservationNormaliser(3)
    for row in RNG.normal(size=(30, batch, 3)):
        theirs.update(row)
        ours.update(row)
        np.testing.assert_allclose(ours.mean, theirs.mean, rtol=1e-10)
        np.testing.assert_allclose(ours.variance, theirs.var, rtol=1e-10)


def test_observations_are_scaled_and_clipped_and_the_statistics_stay() -> None:
    normaliser = ObservationNormaliser(2, clip=1.5)
    normaliser.mean, normaliser.variance = np.array([1.0, 0.0]), np.array([4.0, 1.0])
    found = normaliser(np.array([[2.0, -3.0], [9.0, 0.5]]))
    np.testing.assert_allclose(found, [[0.5, -1.5], [1.5, 0.5]], atol=1e-6)
    assert normaliser.mean.tolist() == [1.0, 0.0]


def slow_scaling(rewards: Any, ended: Any, gamma: float, clip: float) -> Any:
    """One number after the other: all discounted returns so far, with a first 0 +- 1 of weight 1e-4."""
    steps, n = rewards.shape
    running, seen, found = [0.0] * n, list[float](), np.empty((steps, n))
    for t in range(steps):
        for i in range(n):
            running[i] = gamma * running[i] + rewards[t, i]
            seen.append(running[i])
        weight = 1e-4 + len(seen)
        mean = sum(seen) / weight
        variance = (1e-4 * (1 + mean**2) + sum((value - mean) ** 2 for value in seen)) / weight
        for i in range(n):
            found[t, i] = min(max(rewards[t, i] / (variance + 1e-8) ** 0.5, -clip), clip)
            running[i] = 0.0 if ended[t, i] else running[i]
    return found


@pytest.mark.parametrize("n", [1, 3])
def test_rewards_are_scaled_by_the_returns_so_far(n: int) -> None:
    rewards, ended = RNG.normal(size=(40, n)) * 5 + 1, RNG.random((40, n)) < 0.2
    scaler = RewardScaler(n, gamma=0.9, clip=1.2)
    found = np.concatenate([scaler(rewards[:15], ended[:15]), scaler(rewards[15:], ended[15:])])
    expected = slow_scaling(rewards, ended, 0.9, 1.2)
    np.testing.assert_allclose(found, expected, rtol=1e-6)
    assert (np.abs(expected) == 1.2).any()


def test_states_go_on_where_they_were() -> None:
    rewards, ended = RNG.normal(size=(20, 2)), RNG.random((20, 2)) < 0.3
    one, other = RewardScaler(2, gamma=0.9), RewardScaler(2, gamma=0.9)
    one(rewards[:10], ended[:10])
    other.load_state_dict(one.state_dict())
    np.testing.assert_array_equal(one(rewards[10:], ended[10:]), other(rewards[10:], ended[10:]))
    observations = RNG.normal(size=(6, 2, 3))
    seen, copy = ObservationNormaliser(3), ObservationNormaliser(3)
    seen.update(observations[0])
    copy.load_state_dict(seen.state_dict())
    for row in observations[1:]:
        seen.update(row)
        copy.update(row)
        np.testing.assert_array_equal(seen(row), copy(row))

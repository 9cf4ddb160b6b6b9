"""Generalised advantages against their definition as a sum, episode by episode."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from training.rl.advantages import generalised_advantages

RNG = np.random.default_rng(0)


def by_definition(
    rewards: Any, values: Any, following: Any, terminated: Any, ended: Any, gamma: float, lam: float
) -> Any:
    """A_t = sum over k of (gamma lambda)^k delta_{t+k}, up to the end of the episode: O(T^2)."""
    steps, n = rewards.shape
    advantages = np.zeros((steps, n))
    for i in range(n):
        for t in range(steps):
            for k in range(t, steps):
                after = 0.0 if terminated[k, i] else following[k, i]
                delta = rewards[k, i] + gamma * after - values[k, i]
                advantages[t, i] += (gamma * lam) ** (k - t) * delta
                if ended[k, i]:
                    break
    return advantages


@pytest.mark.parametrize(("gamma", "lam"), [(0.99, 0.95), (0.9, 1.0), (0.8, 0.0), (1.0, 1.0)])
def test_against_the_definition(gamma: float, lam: float) -> None:
    rewards, values, following = RNG.normal(size=(3, 30, 4))
    terminated = RNG.random((30, 4)) < 0.1
    ended = terminated | (RNG.random((30, 4)) < 0.1)
    assert (ended & ~terminated).any()
    found = generalised_advantages(rewards, values, following, terminated, ended, gamma=gamma, gae_lambda=lam)
    expected = by_definition(rewards, values, following, terminated, ended, gamma, lam)
    np.testing.assert_allclose(found, expected, rtol=1e-9, atol=1e-9)


def test_lambda_1_is_the_discounted_return_minus_the_value() -> None:
    rewards, values = RNG.normal(size=(2, 5, 1))
    following = np.vstack([values[1:], [[3.0]]])
    none = np.zeros((5, 1), dtype=bool)
    found = generalised_advantages(rewards, values, following, none, none, gamma=0.9, gae_lambda=1.0)
    discounted = sum(0.9**k * rewards[k, 0] for k in range(5)) + 0.9**5 * 3.0
    assert found[0, 0] == pytest.approx(discounted - values[0, 0])

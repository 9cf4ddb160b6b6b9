"""Running means and variances of observations, and of discounted returns for the scale of rewards.

A batch of n numbers with mean b and variance w joins N earlier ones with mean m and variance v (Chan et al. 1979):

    m' = m + (b - m) n / (N + n),     v' = (v N + w n + (b - m)^2 N n / (N + n)) / (N + n)

Observations become (o - m) / sqrt(v + 1e-8), clipped, with the statistics that include them. Rewards are divided by
the standard deviation of a running discounted return R <- gamma R + r, which starts anew with each episode; no mean is
taken off, as that would change what the agent is paid for. (`VecNormalize` of OpenAI's baselines; Engstrom et al. 2020,
Implementation Matters in Deep Policy Gradients, section 3; details 6 to 9 for continuous actions in Huang et al. 2022.)
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import torch
from jaxtyping import Bool, Float
from numpy import ndarray

_EPSILON = 1e-8
_FIRST_COUNT = 1e-4  # the weight of the mean 0 and variance 1 before the first observation


class ObservationNormaliser:
    """Statistics of each number of the observations, in float64."""

    def __init__(self, shape: int | tuple[int, ...], *, clip: float = 10.0) -> None:
        self.mean, self.variance, self.count = np.zeros(shape), np.ones(shape), _FIRST_COUNT
        self.clip = clip

    def update(self, observations: Float[ndarray, " batch *shape"]) -> None:
        """Take a batch into the statistics."""
        n = len(observations)
        total = self.count + n
        if n == 1:  # the variance of one number is 0, and this is what a single environment calls at every step
            difference = observations[0] - self.mean
            self.variance = (self.variance + np.square(difference) / total) * (self.count / total)
        else:
            difference = observations.mean(axis=0) - self.mean
            spread = observations.var(axis=0) * n + np.square(difference) * (self.count * n / total)
            self.variance = (self.variance * self.count + spread) / total
        self.mean = self.mean + difference * (n / total)
        self.count = total

    def __call__(self, observations: Float[ndarray, " batch *shape"]) -> Float[ndarray, " batch *shape"]:
        """Normalised and clipped; the statistics are not changed."""
        scaled = (observations - self.mean) / np.sqrt(self.variance + _EPSILON)
        return np.minimum(np.maximum(scaled, -self.clip), self.clip)

    def state_dict(self) -> dict[str, Any]:
        """The statistics."""
        mean, variance = torch.from_numpy(self.mean.copy()), torch.from_numpy(self.variance.copy())
        return {"mean": mean, "variance": variance, "count": self.count}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Take over saved statistics."""
        self.mean, self.variance = state["mean"].numpy().copy(), state["variance"].numpy().copy()
        self.count = float(state["count"])


class RewardScaler:
    """The running discounted return of each environment, and the mean and variance of all of them."""

    def __init__(self, environments: int, *, gamma: float, clip: float = 10.0) -> None:
        self.gamma, self.clip = gamma, clip
        self.returns = np.zeros(environments)
        self.mean, self.variance, self.count = 0.0, 1.0, _FIRST_COUNT

    def __call__(
        self, rewards: Float[ndarray, "step env"], ended: Bool[ndarray, "step env"]
    ) -> Float[ndarray, "step env"]:
        """Scaled and clipped rewards of a stretch of steps, each with the statistics up to it.

        Args:
            ended: whether the episode ended with that step.
        """
        running = np.empty(rewards.shape)
        for t, reward in enumerate(rewards):
            running[t] = self.returns * self.gamma + reward
            self.returns = np.where(ended[t], 0.0, running[t])
        n, deviations = rewards.shape[1], list[float]()
        means, variances = running.mean(axis=1).tolist(), running.var(axis=1).tolist()
        for mean, variance in zip(means, variances, strict=True):
            total, difference = self.count + n, mean - self.mean
            spread = self.variance * self.count + variance * n + difference**2 * self.count * n / total
            self.mean, self.variance, self.count = self.mean + difference * n / total, spread / total, total
            deviations.append((self.variance + _EPSILON) ** 0.5)
        scaled: ndarray = np.clip(rewards / np.array(deviations)[:, None], -self.clip, self.clip)
        return scaled

    def state_dict(self) -> dict[str, Any]:
        """The statistics, and the returns of the running episodes."""
        statistics = {"mean": self.mean, "variance": self.variance, "count": self.count}
        return {"returns": torch.from_numpy(self.returns.copy()), **statistics}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Take over saved statistics."""
        self.returns = state["returns"].numpy().copy()
        self.mean, self.variance, self.count = float(state["mean"]), float(state["variance"]), float(state["count"])

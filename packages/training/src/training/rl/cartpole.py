"""CartPole (Barto, Sutton and Anderson 1983) for all copies at once, bit for bit as Gymnasium's.

    temp     = (F + m_p l theta'^2 sin theta) / m
    theta''  = (g sin theta - cos theta temp) / (l (4/3 - m_p cos^2 theta / m))
    x''      = temp - m_p l theta'' cos theta / m            F = +-10 N, Euler steps of 0.02 s

An episode ends when |x| > 2.4 m or |theta| > 12 degrees, and is truncated after 500 steps (200 in v0). The reward is 1
at every step. The order of the operations is that of `gymnasium.envs.classic_control.cartpole`, whose numbers depend
on it in the last bit; the tests compare.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import torch
from jaxtyping import Float, Shaped
from numpy import ndarray

from training.rl.environments import Environments, Episode, Step, copies_rng
from training.rl.spaces import Discrete

TIME_LIMITS = {"CartPole-v0": 200, "CartPole-v1": 500}  # steps; of the ids that this module serves
X_LIMIT = 2.4
THETA_LIMIT = 12 * 2 * np.pi / 360
_GRAVITY, _CART, _POLE, _LENGTH, _FORCE, _TAU = 9.8, 1.0, 0.1, 0.5, 10.0, 0.02
_TOTAL = _POLE + _CART
_POLE_LENGTH = _POLE * _LENGTH


class CartPoles(Environments):
    """`n` carts; `state` is (x, x', theta, theta') of each, in metres, radians and seconds."""

    def __init__(self, id: str, n: int, *, seed: int) -> None:
        self.id, self.n, self.action, self.exact = id, n, Discrete(2), True
        self.observation_shape, self.observation_dtype = (4,), np.dtype(np.float32)
        self.state = np.zeros((4, n))
        self._rng = copies_rng(n, seed)
        self._elapsed = np.zeros(n, dtype=np.int64)
        self._limit = TIME_LIMITS[id]
        self._none = np.zeros(n, dtype=bool)

    def fresh(self, n: int, seed: int) -> CartPoles:
        """New carts under the same time limit."""
        return CartPoles(self.id, n, seed=seed)

    def reset(self) -> Float[ndarray, "env 4"]:
        """Put every cart near the middle, upright."""
        for i in range(self.n):
            self._reset_one(i)
        return self._observations()

    def step(self, actions: Shaped[ndarray, " env"]) -> Step:
        """Push every cart left (0) or right (1)."""
        x, x_dot, theta, theta_dot = self.state
        force = np.where(actions == 1, _FORCE, -_FORCE)
        cos, sin = np.cos(theta), np.sin(theta)
        temp = (force + _POLE_LENGTH * np.square(theta_dot) * sin) / _TOTAL
        theta_acc = (_GRAVITY * sin - cos * temp) / (_LENGTH * (4.0 / 3.0 - _POLE * np.square(cos) / _TOTAL))
        x_acc = temp - _POLE_LENGTH * theta_acc * cos / _TOTAL
        moved = np.empty_like(self.state)
        moved[0] = x + _TAU * x_dot
        moved[1] = x_dot + _TAU * x_acc
        moved[2] = theta + _TAU * theta_dot
        moved[3] = theta_dot + _TAU * theta_acc
        self.state = moved
        self._elapsed += 1
        terminated = (np.abs(moved[0]) > X_LIMIT) | (np.abs(moved[2]) > THETA_LIMIT)
        truncated = self._elapsed >= self._limit
        rewards = np.ones(self.n)
        if not (terminated.any() or truncated.any()):
            return Step(self._observations(), rewards, terminated, truncated, None, ())
        final, episodes = self._observations(), list[Episode]()
        for i in np.flatnonzero(terminated | truncated).tolist():
            length = int(self._elapsed[i])
            episodes.append(Episode(i, float(length), length))
            self._reset_one(i)
        return Step(self._observations(), rewards, terminated, truncated, final, tuple(episodes))

    def get_state(self) -> dict[str, Any]:
        """State, time and generator of each cart."""
        return {
            "state": torch.from_numpy(self.state.copy()),
            "elapsed": torch.from_numpy(self._elapsed.copy()),
            "rng": [generator.bit_generator.state for generator in self._rng],
        }

    def set_state(self, state: Mapping[str, Any]) -> None:
        """Go back to a captured state."""
        self.state, self._elapsed = state["state"].numpy().copy(), state["elapsed"].numpy().copy()
        for generator, saved in zip(self._rng, state["rng"], strict=True):
            generator.bit_generator.state = saved

    def _reset_one(self, i: int) -> None:
        self.state[:, i] = self._rng[i].uniform(low=-0.05, high=0.05, size=(4,))
        self._elapsed[i] = 0

    def _observations(self) -> Float[ndarray, "env 4"]:
        return self.state.T.astype(np.float32)

"""Several copies of one environment, stepped together: arrays in, arrays out, and no further layers.

Autoreset is same-step, as in the vectorised environments that PPO was published with: the step that ends an episode
returns its last reward, and, in place of the last observation, the first one of the next episode. The last observation
itself is in `final_observations`, for a bootstrap from its value. `terminated` means that the environment ended the
episode (the value of what follows is 0), `truncated` that the time limit did (what follows has a value, which was not
seen; Pardo et al. 2018, Time Limits in Reinforcement Learning).

Copy i starts from seed + i, as in Gymnasium's SyncVectorEnv, and draws its later episodes from the same generator.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Mapping
from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Bool, Float, Shaped
from numpy import ndarray

from training.rl.games import AtariOptions
from training.rl.spaces import ActionSpace, UnsupportedEnvironment


class Episode(NamedTuple):
    """A finished episode: which copy, the sum of its raw rewards, its steps."""

    environment: int
    total: float
    length: int


class Step(NamedTuple):
    """What one step of all copies gave; see the module for what stands where an episode ended.

    `final_observations` is None where no episode ended, and else holds the observations before the resets.
    """

    observations: Shaped[ndarray, " env *observation"]
    rewards: Float[ndarray, " env"]
    terminated: Bool[ndarray, " env"]
    truncated: Bool[ndarray, " env"]
    final_observations: Shaped[ndarray, " env *observation"] | None
    episodes: tuple[Episode, ...]


class Environments(ABC):
    """`n` copies of an environment.

    Observations have `observation_shape` and `observation_dtype`: vectors of real numbers, or images of bytes with the
    channels (frames) first. `exact` says whether `get_state` captures all that the copies are; where it is False a
    restored run starts new episodes, and is not the run that was killed.
    """

    id: str
    n: int
    observation_shape: tuple[int, ...]
    observation_dtype: np.dtype[Any]
    action: ActionSpace
    exact: bool

    @property
    def observation_size(self) -> int:
        """Numbers that one observation consists of."""
        return math.prod(self.observation_shape)

    @property
    def images(self) -> bool:
        """Whether observations are images."""
        return len(self.observation_shape) == 3

    @abstractmethod
    def reset(self) -> Shaped[ndarray, " env *observation"]:
        """Begin an episode in every copy; the first call starts from the seed."""

    @abstractmethod
    def step(self, actions: Shaped[ndarray, " env *columns"]) -> Step:
        """One step; integers (env,) for Discrete and (env, set) for MultiDiscrete, numbers (env, column) for a Box."""

    @abstractmethod
    def fresh(self, n: int, seed: int) -> Environments:
        """New copies of the same environment; these here are left alone."""

    @abstractmethod
    def get_state(self) -> dict[str, Any]:
        """All that the copies are, as tensors, numbers, strings, lists and dictionaries."""

    @abstractmethod
    def set_state(self, state: Mapping[str, Any]) -> Shaped[ndarray, " env *observation"] | None:
        """Go back to a captured state.

        Returns:
            None, or where the environment cannot be captured (`exact` is False) the first observations of new episodes.
        """


def make_environments(id: str, n: int, *, seed: int, wrappers: AtariOptions | None = None) -> Environments:
    """`n` copies of a Gymnasium environment: the fastest form of it that steps exactly as Gymnasium's own.

    Args:
        wrappers: for environments that show images: how a game is presented to the agent.

    Raises:
        UnsupportedEnvironment: if there is no such environment, or one of its spaces is not supported.
        ImportError: if Gymnasium, MuJoCo or the Arcade Learning Environment is missing, with what to install.
    """
    from training.rl.atari_environments import AtariEnvironments
    from training.rl.cartpole import TIME_LIMITS, CartPoles
    from training.rl.gymnasium_environments import GymnasiumEnvironments

    if n < 1:
        raise UnsupportedEnvironment(f"{id}: expected at least one copy of the environment, got {n}")
    if wrappers is not None:
        return AtariEnvironments(id, n, seed=seed, options=wrappers)
    return CartPoles(id, n, seed=seed) if id in TIME_LIMITS else GymnasiumEnvironments(id, n, seed=seed)


def copies_rng(n: int, seed: int) -> list[np.random.Generator]:
    """The generators of `n` copies, as `gymnasium.Env.reset(seed=seed + i)` makes them."""
    return [np.random.default_rng(seed + i) for i in range(n)]

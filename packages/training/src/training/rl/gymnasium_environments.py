"""Copies of any Gymnasium environment with vectors as observations, with few Python layers around each.

`gymnasium.make` puts a checker, an order check and a time limit around an environment. Here the environment itself is
stepped and the time limit counted, unless its specification asks for further wrappers. With MuJoCo that leaves the
simulator and the environment's own reward: about 27 us a step of HalfCheetah, of which 23 are the simulator's.
Environments that show images are made by `training.rl.atari_environments`.
"""

from __future__ import annotations

import importlib
import re
import sys
import warnings
from collections.abc import Mapping
from typing import Any

import numpy as np
from jaxtyping import Shaped
from numpy import ndarray

from training.rl import capture
from training.rl.environments import Environments, Episode, Step
from training.rl.spaces import Discrete, MultiDiscrete, UnsupportedEnvironment, read_action_space, read_observation_size

INSTALL = "pip install 'reprise-training[rl]'"
INSTALL_ATARI = "pip install 'reprise-training[rl,atari]'"
_ATARI = re.compile(r"^ALE/|NoFrameskip-v\d+$")


class GymnasiumEnvironments(Environments):
    """`n` environments of a Gymnasium id, stepped one after the other.

    `members` are the environments that are stepped, without Gymnasium's wrappers where that is possible.
    """

    members: list[Any]
    _seeds: list[int | None]

    def __init__(self, id: str, n: int, *, seed: int) -> None:
        made = [make(id) for _ in range(n)]
        specification = made[0].spec
        wrapped = bool(specification.additional_wrappers)
        self.members = made if wrapped else [environment.unwrapped for environment in made]
        self.id, self.n = id, n
        self.observation_shape = (read_observation_size(made[0].observation_space, id),)
        self.observation_dtype = np.dtype(made[0].observation_space.dtype)
        self.action = read_action_space(made[0].action_space, id)
        self.exact = not wrapped and capture.can_capture(self.members[0])
        limit = specification.max_episode_steps
        self._begin(seed, limit=sys.maxsize if wrapped or limit is None else int(limit))

    def fresh(self, n: int, seed: int) -> GymnasiumEnvironments:
        """New environments of the same id."""
        return GymnasiumEnvironments(self.id, n, seed=seed)

    def reset(self) -> Shaped[ndarray, " env *observation"]:
        """Begin an episode in every environment."""
        return np.stack([self._reset_one(i) for i in range(self.n)])

    def step(self, actions: Shaped[ndarray, " env *columns"]) -> Step:
        """Step every environment; a Box action goes in as it is (clip it before)."""
        rows: Any = actions.tolist() if isinstance(self.action, Discrete) else actions
        if isinstance(self.action, MultiDiscrete):
            rows = actions.astype(np.int64)
        observations, rewards, final, episodes = [], [], None, list[Episode]()
        terminated, truncated = np.zeros(self.n, dtype=bool), np.zeros(self.n, dtype=bool)
        for i, member in enumerate(self.members):
            observation, reward, ended, cut, _ = member.step(rows[i])
            self._elapsed[i] += 1
            self._totals[i] += float(reward)
            if ended or cut or self._elapsed[i] >= self._limit:
                terminated[i], truncated[i] = ended, cut or self._elapsed[i] >= self._limit
                final = final or {}
                final[i] = observation
                episodes += self._finished(i)
                observation = self._reset_one(i)
            observations.append(observation)
            rewards.append(reward)
        stacked, last = np.array(observations), None
        if final is not None:
            last = stacked.copy()
            for i, observation in final.items():
                last[i] = observation
        return Step(stacked, np.array(rewards, dtype=np.float64), terminated, truncated, last, tuple(episodes))

    def get_state(self) -> dict[str, Any]:
        """Captured environments where they can be (`exact`), and else nothing."""
        if not self.exact:
            return {"members": [], "elapsed": [], "totals": []}
        return {
            "members": [self._capture(i) for i in range(self.n)],
            "elapsed": list(self._elapsed),
            "totals": list(self._totals),
        }

    def set_state(self, state: Mapping[str, Any]) -> Shaped[ndarray, " env *observation"] | None:
        """Go back to a captured state; where there is none, begin new episodes and return their observations."""
        if not self.exact:
            return self.reset()
        for i, saved in zip(range(self.n), state["members"], strict=True):
            self._restore(i, saved)
        self._seeds = [None] * self.n
        self._elapsed, self._totals = list(state["elapsed"]), list(state["totals"])
        return None

    def _begin(self, seed: int, *, limit: int) -> None:
        """Seeds and counts before the first step; `limit` is that of an episode's steps."""
        self._limit = limit
        self._seeds = [seed + i for i in range(self.n)]
        self._elapsed, self._totals = [0] * self.n, [0.0] * self.n

    def _finished(self, i: int) -> list[Episode]:
        """What is reported where the episode of environment i has ended."""
        return [Episode(i, self._totals[i], self._elapsed[i])]

    def _capture(self, i: int) -> dict[str, Any]:
        return capture.capture(self.members[i])

    def _restore(self, i: int, state: Mapping[str, Any]) -> None:
        self.members[i].reset(seed=self._seeds[i])  # an environment refuses to step that was never reset
        capture.restore(self.members[i], state)

    def _reset_one(self, i: int) -> Shaped[ndarray, " *observation"]:
        seed, self._seeds[i] = self._seeds[i], None
        self._elapsed[i], self._totals[i] = 0, 0.0
        observation: ndarray = self.members[i].reset(seed=seed)[0]
        return observation


def make(id: str) -> Any:
    """One environment as Gymnasium makes it; raises as `make_environments`."""
    try:
        import gymnasium
    except ImportError as error:
        raise ImportError(f"{id}: environments need Gymnasium, which is not installed; {INSTALL}") from error
    if _ATARI.search(id):
        try:
            importlib.import_module("ale_py")  # it registers its games
        except ImportError as error:
            raise ImportError(f"{id}: Atari games need ale-py, which is not installed; {INSTALL_ATARI}") from error
    try:
        with capture.quiet_mujoco(), warnings.catch_warnings():
            # which version of an environment is meant, the caller has said: papers are reproduced on older ones too
            warnings.filterwarnings("ignore", message=r".*The environment \S+ is out of date")
            return gymnasium.make(id, disable_env_checker=True)
    except (gymnasium.error.DependencyNotInstalled, ImportError) as error:
        if not capture.has_mujoco():
            raise ImportError(f"{id}: MuJoCo is not installed ({_line(error)}); {INSTALL}") from error
        raise UnsupportedEnvironment(f"{id}: cannot be made: {_line(error)}; install that, or take another") from error
    except gymnasium.error.Error as error:
        raise UnsupportedEnvironment(
            f"{id}: no such environment ({_line(error)}); gymnasium.pprint_registry() lists those that there are"
        ) from error


def _line(error: Exception) -> str:
    return " ".join(str(error).split()).rstrip(".")

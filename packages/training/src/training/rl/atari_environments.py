"""Copies of an environment that shows images, each presented as `training.rl.games` has it.

An episode in `Step.episodes` is a whole game with its raw score; `terminated` says when a life has ended, where those
are the agent's episodes.
"""

from __future__ import annotations

import sys
from collections.abc import Mapping
from typing import Any

import numpy as np
from jaxtyping import UInt8
from numpy import ndarray

from training.rl import capture
from training.rl.environments import Episode
from training.rl.games import AtariOptions, Game
from training.rl.gymnasium_environments import GymnasiumEnvironments, make
from training.rl.spaces import read_action_space


class AtariEnvironments(GymnasiumEnvironments):
    """`n` games of a Gymnasium id; `members` are `Game`s."""

    members: list[Game]

    def __init__(self, id: str, n: int, *, seed: int, options: AtariOptions) -> None:
        made = [make(id) for _ in range(n)]
        specification = made[0].spec
        wrapped = bool(specification.additional_wrappers)
        limit = sys.maxsize
        if not wrapped and specification.max_episode_steps is not None:
            limit = int(specification.max_episode_steps)
        below = made if wrapped else [environment.unwrapped for environment in made]
        self.options = options
        self.members = [Game(environment, options, limit=limit, where=id) for environment in below]
        self.id, self.n = id, n
        self.observation_shape, self.observation_dtype = self.members[0].shape, np.dtype(np.uint8)
        self.action = read_action_space(made[0].action_space, id)
        self.exact = not wrapped and capture.can_capture(below[0])
        self._begin(seed, limit=sys.maxsize)  # a game counts its frames itself

    def fresh(self, n: int, seed: int) -> AtariEnvironments:
        """New games of the same id."""
        return AtariEnvironments(self.id, n, seed=seed, options=self.options)

    def reset(self) -> UInt8[ndarray, "env frame row column"]:
        """Begin a new game in every copy."""
        for game in self.members:
            game.abandon()
        return super().reset()

    def _finished(self, i: int) -> list[Episode]:
        games, self.members[i].finished = self.members[i].finished, []
        return [Episode(i, score, steps) for score, steps in games]

    def _capture(self, i: int) -> dict[str, Any]:
        return self.members[i].get_state()

    def _restore(self, i: int, state: Mapping[str, Any]) -> None:
        self.members[i].set_state(state)

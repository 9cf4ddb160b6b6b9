"""Small environments that show images, for the tests: a game whose every frame is known, and a task that needs eyes.

`Flicker` counts its frames t from 1 and draws into four pixels of its first row: t, a light that is on only where t is
3 more than a multiple of 4, the last action, and the lives that are left (t is red, the others grey).
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import gymnasium as gym
import numpy as np
from gymnasium import spaces


class Flicker(gym.Env[Any, Any]):  # type: ignore[misc]
    """Loses a life at each of the frames `lost` (an action may be needed for that), and ends at frame `end`."""

    action_space = spaces.Discrete(4)
    rows, columns = 6, 8
    played: list[list[int]]  # the actions of each game so far, frame by frame; of the last environment that was made

    def __init__(
        self,
        lives: int = 1,
        lost: tuple[int, ...] = (),
        end: int = 10_000,
        rewards: Mapping[int, float] | None = None,
        ends_with: int | None = None,
        meanings: tuple[str, ...] = ("NOOP", "FIRE", "RIGHT", "LEFT"),
    ) -> None:
        self.all_lives, self.lost, self.end, self.rewards = lives, lost, end, rewards or {}
        self.ends_with, self.meanings = ends_with, meanings
        self.games: list[list[int]] = []
        type(self).played = self.games
        self.observation_space = spaces.Box(0, 255, (self.rows, self.columns, 3), np.uint8)

    def get_action_meanings(self) -> list[str]:
        return list(self.meanings)

    def reset(self, *, seed: int | None = None, options: Any = None) -> tuple[Any, dict[str, Any]]:
        super().reset(seed=seed)
        self.t, self.lives = 0, self.all_lives
        self.games.append([])
        return self._draw(0), {"lives": self.lives}

    def step(self, action: int) -> tuple[Any, float, bool, bool, dict[str, Any]]:
        self.t += 1
        self.games[-1].append(int(action))
        self.lives -= self.t in self.lost
        over = self.t >= self.end or action == self.ends_with
        return self._draw(action), self.rewards.get(self.t, 0.0), over, False, {"lives": self.lives}

    def _draw(self, action: int) -> Any:
        frame = np.zeros((self.rows, self.columns, 3), np.uint8)
        frame[0, 0, 0] = self.t
        frame[0, 1:4] = np.array([[200 * (self.t % 4 == 3)], [action], [self.lives]])
        return frame


class Captured(Flicker):
    """The same, and its state can be captured; where a life is lost is drawn."""

    def step(self, action: int) -> tuple[Any, float, bool, bool, dict[str, Any]]:
        self.lost = (self.t + 1,) if self.np_random.random() < 0.1 else ()
        observation, _, _, cut, info = super().step(action)
        return observation, float(self.np_random.normal()), self.lives == 0, cut, info

    def capture_state(self) -> dict[str, Any]:
        return {"t": self.t, "lives": self.lives}

    def restore_state(self, state: Mapping[str, Any]) -> None:
        self.t, self.lives = state["t"], state["lives"]


class Moving(gym.Env[Any, Any]):  # type: ignore[misc]
    """A bright bar goes round to the left (right answer: 0) or right (1): two images show it, and one shows nothing."""

    action_space = spaces.Discrete(2)
    observation_space = spaces.Box(0, 255, (36, 36), np.uint8)

    def reset(self, *, seed: int | None = None, options: Any = None) -> tuple[Any, dict[str, Any]]:
        super().reset(seed=seed)
        self.at, self.right, self.seen = int(self.np_random.integers(36)), int(self.np_random.integers(2)), 1
        return self._draw(), {}

    def step(self, action: int) -> tuple[Any, float, bool, bool, dict[str, Any]]:
        reward = float(action == self.right) if self.seen == 2 else 0.0
        self.at, self.seen = (self.at + (6 if self.right else -6)) % 36, self.seen + 1
        return self._draw(), reward, self.seen == 3, False, {}

    def _draw(self) -> Any:
        frame = np.zeros((36, 36), np.uint8)
        frame[:, (self.at + np.arange(6)) % 36] = 255
        return frame

    def capture_state(self) -> dict[str, Any]:
        return {"at": self.at, "right": self.right, "seen": self.seen}

    def restore_state(self, state: Mapping[str, Any]) -> None:
        self.at, self.right, self.seen = state["at"], state["right"], state["seen"]


@contextmanager
def registered(kind: type[gym.Env[Any, Any]], *, limit: int | None = None, **arguments: Any) -> Iterator[str]:
    """The id of an environment while it is in Gymnasium's registry."""
    id = f"{kind.__name__}Small-v0"
    gym.register(id, entry_point=kind, kwargs=arguments, max_episode_steps=limit, disable_env_checker=True)
    try:
        yield id
    finally:
        del gym.registry[id]

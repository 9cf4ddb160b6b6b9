"""A game as an agent sees it: the details of PPO for Atari, each an option (Huang et al. 2022, Atari details 1 to 7).

    a step of the agent    the action is repeated for 4 frames; shown is the maximum of the last two, as sprites of the
                           Atari 2600 flicker; grey, 84 x 84, stacked on the three that were shown before
    its reward             the sign of the 4 frames' rewards together
    its episode            one life; the game goes on from there, and is reset when all lives are lost
    a reset                up to 30 frames without an action, whose number is drawn; then FIRE, where a game waits for
                           it, and the action behind it; the stack is filled with the first frame

They are those of `atari_wrappers.py` in OpenAI's baselines (Mnih et al. 2015 have most of them; Machado et al. 2018,
Revisiting the Arcade Learning Environment, advise against episodes of one life), in the order in which that has them:
lives are looked at after the 4 frames, and the next life begins with one step of no action. Two things differ. The
maximum of a step that ends early is that of its own last two frames. And where the steps of a reset end the game, the
next observation is that of the new game (baselines return the old one).

Gymnasium's `AtariPreprocessing` ends a game with its first life, has the maximum of grey frames, and needs the emulator
itself; without episodes of one life the frames agree. The score of an episode is that of the whole game, over all
lives, of all frames, and not by sign.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from jaxtyping import UInt8
from numpy import ndarray

from training.rl import capture
from training.rl.images import grey, resize
from training.rl.spaces import UnsupportedEnvironment, read_image_shape

_NOOP = 0


@dataclass(frozen=True)
class AtariOptions:
    """How a game is presented; the defaults are those of the paper and `ppo2`.

    Attributes:
        noops: at most so many frames without an action at the beginning of a game, at least 1; 0: none (Atari 1).
        skip: frames for which an action is repeated (Atari 2).
        maximum: show the maximum of the last two of them, or the last (Atari 2).
        life_episodes: end an episode with each life, as `lives` in the environment's information has them (Atari 3).
        fire: press FIRE at a reset, in games that have it (Atari 4).
        grey: drop the colours (Atari 5).
        size: rows and columns that are shown; None: as they are (Atari 5).
        sign_rewards: give the reward's sign (Atari 6).
        stack: frames that are shown together (Atari 7).
    """

    noops: int = 30
    skip: int = 4
    maximum: bool = True
    life_episodes: bool = True
    fire: bool = True
    grey: bool = True
    size: tuple[int, int] | None = (84, 84)
    sign_rewards: bool = True
    stack: int = 4

    def __post_init__(self) -> None:
        for name, least in (("noops", 0), ("skip", 1), ("stack", 1)):
            if getattr(self, name) < least:
                raise ValueError(
                    f"AtariOptions.{name}: expected a whole number from {least}, got {getattr(self, name)}"
                )


class Game:
    """One game; `reset` and `step` as Gymnasium's, but a reset begins the next life where the game goes on.

    Args:
        environment: shows single frames, as bytes.
        limit: frames after which a game is truncated.
        where: its name, for errors.

    Attributes:
        shape: of observations, (frame, row, column); a frame in colour counts three.
        finished: score and steps of each game that has ended since the list was emptied.

    Raises:
        UnsupportedEnvironment: if the environment lacks what the options need.
    """

    def __init__(self, environment: Any, options: AtariOptions, *, limit: int, where: str) -> None:
        self.environment, self.options, self._limit, self._where = environment, options, limit, where
        rows, columns, channels = read_image_shape(environment.observation_space, where)
        _check_size(options, rows, columns, where)
        self._channels = 1 if options.grey else channels
        size = options.size or (rows, columns)
        self.shape = (options.stack * self._channels, *size)
        meanings = list(getattr(environment.unwrapped, "get_action_meanings", list)())
        _check_actions(environment.unwrapped, options, meanings, where)
        self._opening = (meanings.index("FIRE"), 2)[: len(meanings) - 1] if options.fire and "FIRE" in meanings else ()
        self.finished: list[tuple[float, int]] = []
        self._stack: UInt8[ndarray, "frame row column"] = np.zeros(self.shape, dtype=np.uint8)
        self._over, self._lives, self._frames, self._score, self._steps = True, 0, 0, 0.0, 0

    def reset(self, *, seed: int | None = None) -> tuple[UInt8[ndarray, "frame row column"], dict[str, Any]]:
        """Begin the next life, or a new game where the last is over or a seed is given."""
        first = self._begin(seed) if self._over or seed is not None else self._next_life()
        for action in self._opening:
            first, lost = self._advance(action)[0], self._lost()
            if self._over:
                first = self._begin(None)
            elif lost:
                first = self._next_life()
        self._stack = np.concatenate([first] * self.options.stack)
        return self._stack, {}

    def step(self, action: int) -> tuple[UInt8[ndarray, "frame row column"], float, bool, bool, dict[str, Any]]:
        """Observation, reward, whether game or life has ended, whether the game was cut short, and nothing further."""
        self._steps += 1
        image, reward, ended, cut = self._advance(action)
        ended = self._lost() or ended
        self._stack = np.concatenate([self._stack[self._channels :], image])
        return self._stack, float(np.sign(reward)) if self.options.sign_rewards else reward, ended, cut, {}

    def abandon(self) -> None:
        """Let the next reset begin a new game."""
        self._over, self._score, self._steps = True, 0.0, 0

    def get_state(self) -> dict[str, Any]:
        """All that the game is; the environment below must be one that can be captured."""
        return {
            "environment": capture.capture(self.environment),
            "stack": torch.from_numpy(self._stack.copy()),
            "numbers": [self._over, self._lives, self._frames, self._score, self._steps],
            "finished": [list(game) for game in self.finished],
        }

    def set_state(self, state: Mapping[str, Any]) -> None:
        """Go back to a captured state."""
        self.environment.reset()  # an environment refuses to step that was never reset
        capture.restore(self.environment, state["environment"])
        self._stack = state["stack"].numpy().copy()
        self._over, self._lives, self._frames, self._score, self._steps = state["numbers"]
        self.finished = [(float(score), int(steps)) for score, steps in state["finished"]]

    def _begin(self, seed: int | None) -> UInt8[ndarray, "channel row column"]:
        """A new game, and its frames without an action."""
        raw, info = self._reset_environment(seed)
        if self.options.noops:
            for _ in range(int(self.environment.np_random.integers(1, self.options.noops + 1))):
                raw, reward, ended, cut, info = self.environment.step(_NOOP)
                self._frames += 1
                self._score += float(reward)
                if ended or cut:
                    raw, info = self._reset_environment(None)
        self._lives = self._count_lives(info)
        return self._see(raw)

    def _reset_environment(self, seed: int | None) -> tuple[ndarray, Mapping[str, Any]]:
        self._over, self._frames, self._score, self._steps = False, 0, 0.0, 0
        raw, info = self.environment.reset(seed=seed)
        return raw, info

    def _next_life(self) -> UInt8[ndarray, "channel row column"]:
        image = self._advance(_NOOP)[0]
        self._lost()
        return self._begin(None) if self._over else image

    def _advance(self, action: int) -> tuple[UInt8[ndarray, "channel row column"], float, bool, bool]:
        """Repeat an action; what is shown, the frames' rewards, whether the game ended, and whether it was cut."""
        reward, before, last = 0.0, None, None
        for _ in range(self.options.skip):
            raw, got, ended, cut, info = self.environment.step(action)
            self._frames += 1
            reward += float(got)
            cut = cut or self._frames >= self._limit
            before, last = last, np.array(raw)
            if ended or cut:
                break
        assert last is not None
        self._score += reward
        self._now = self._count_lives(info)
        self._over = ended or cut
        if self._over and self._steps:
            self.finished.append((self._score, self._steps))
        pooled = last if before is None or not self.options.maximum else np.maximum(before, last)
        return self._see(pooled), reward, bool(ended), bool(cut)

    def _lost(self) -> bool:
        """Whether the last frames cost a life that was not the last one.

        At 0 lives some games show a few more frames before they end (Qbert); until then the episode goes on.
        """
        lost = 0 < self._now < self._lives
        self._lives = self._now
        return lost

    def _count_lives(self, info: Mapping[str, Any]) -> int:
        if not self.options.life_episodes:
            return 0
        if "lives" not in info:
            raise UnsupportedEnvironment(
                f"{self._where}: expected `lives` in the environment's information, got {', '.join(info) or 'nothing'};"
                " without lives take AtariOptions(life_episodes=False)"
            )
        return int(info["lives"])

    def _see(self, raw: ndarray) -> UInt8[ndarray, "channel row column"]:
        """A frame as the agent gets it."""
        image = raw if raw.ndim == 3 else raw[:, :, None]
        if self.options.grey and image.shape[2] == 3:
            image = grey(image)[:, :, None]
        size = self.options.size or image.shape[:2]
        return np.stack([resize(image[:, :, channel], size) for channel in range(image.shape[2])])


def _check_size(options: AtariOptions, rows: int, columns: int, where: str) -> None:
    if options.size is not None and (options.size[0] > rows or options.size[1] > columns):
        raise UnsupportedEnvironment(
            f"{where}: expected frames of at least {options.size[0]} x {options.size[1]} (AtariOptions.size), got "
            f"{rows} x {columns}; take a smaller size, or None for frames as they are"
        )


def _check_actions(environment: Any, options: AtariOptions, meanings: list[str], where: str) -> None:
    own = getattr(environment, "_frameskip", 1)  # of the Arcade Learning Environment
    if options.skip > 1 and own != 1:
        raise UnsupportedEnvironment(
            f"{where}: expected an environment that shows every frame, got one that skips {own} by itself; take its "
            "form NoFrameskip-v4, or AtariOptions(skip=1)"
        )
    needs = options.noops > 0 or options.life_episodes
    if needs and meanings[:1] != ["NOOP"]:
        raise UnsupportedEnvironment(
            f"{where}: expected the action 0 to be NOOP in get_action_meanings(), got {meanings[:1] or 'no meanings'}; "
            "without it take AtariOptions(noops=0, life_episodes=False)"
        )

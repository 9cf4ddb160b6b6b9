"""Collecting a rollout: T steps of N environments under the policy as it is.

Only what an action needs is computed at each step: the normalised observation, the policy's output, a draw. Values and
log-probabilities are those of the whole rollout at once afterwards, by networks that have not changed in between, and
rewards are scaled afterwards too, each with the statistics up to it. The numbers are those of a step-by-step program.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from jaxtyping import Bool, Float, Int
from numpy import ndarray
from torch import nn

from training.rl.acting import Actor
from training.rl.environments import Environments, Step
from training.rl.normalisation import ObservationNormaliser, RewardScaler
from training.rl.settings import Settings
from training.rl.spaces import Box


@dataclass(frozen=True)
class Rollout:
    """What was seen, done and got; observations and rewards are normalised, where that is wanted.

    `observations` has one row more than the rest: what the last step led to. `cut_observations` are the last
    observations of episodes that the time limit ended, and `cut_at` (step, environment) of each.
    """

    observations: Float[ndarray, "step_and_1 env observation"]
    actions: Float[ndarray, "step env column"]
    rewards: Float[ndarray, "step env"]
    terminated: Bool[ndarray, "step env"]
    ended: Bool[ndarray, "step env"]
    cut_observations: Float[ndarray, "cut observation"]
    cut_at: Int[ndarray, "cut 2"]


@dataclass(frozen=True)
class EpisodeLog:
    """Finished episodes in order: the step (of all environments together) at which each ended, raw return, length."""

    environment_steps: Int[ndarray, " episode"]
    returns: Float[ndarray, " episode"]
    lengths: Int[ndarray, " episode"]


class Collector:
    """The environments, and what goes on from rollout to rollout: normalisers, random numbers, the log of episodes."""

    def __init__(
        self, environments: Environments, modules: Mapping[str, nn.Module], settings: Settings, *, seed: int
    ) -> None:
        self.environments, self.settings = environments, settings
        self.actor = Actor(modules, environments.action)
        self.steps = 0
        columns, n = environments.observation_size, environments.n
        clip = settings.clip_observations
        self.normaliser = ObservationNormaliser(columns, clip=clip) if settings.normalise_observations else None
        scaler = RewardScaler(n, gamma=settings.gamma, clip=settings.clip_rewards)
        self._scaler = scaler if settings.scale_rewards else None
        self.rng = np.random.default_rng(seed)
        self._current: Float[ndarray, "env observation"] | None = None
        self._log: tuple[list[int], list[float], list[int]] = ([], [], [])

    def collect(self) -> Rollout:
        """The next rollout; the first begins with a reset of the environments."""
        horizon, n = self.settings.horizon, self.environments.n
        current = self._see(self.environments.reset()) if self._current is None else self._current
        noise = self.actor.noise(horizon, n, self.rng)
        observations = np.empty((horizon + 1, *current.shape), dtype=np.float32)
        actions = np.empty((horizon, n, self.environments.action.columns), dtype=np.float32)
        rewards = np.empty((horizon, n))
        terminated, ended = np.empty((horizon, n), dtype=bool), np.empty((horizon, n), dtype=bool)
        cuts: list[tuple[int, int, ndarray]] = []
        limits = action_limits(self.environments, self.settings)
        for t in range(horizon):
            observations[t] = current
            action = self.actor.sample(current, noise[t])
            actions[t] = action.reshape(n, -1)
            step = self.environments.step(action if limits is None else np.clip(action, *limits))
            self.steps += n
            rewards[t], terminated[t], ended[t] = step.rewards, step.terminated, step.terminated
            if step.final_observations is not None:
                ended[t] |= step.truncated
                cuts += [(t, i, row) for i, row in self._cut(step)]
                self._record(step)
            current = self._see(step.observations)
        observations[horizon] = self._current = current
        if self._scaler is not None:
            rewards = self._scaler(rewards, ended)
        rows = [row for _, _, row in cuts] or [np.empty((0, current.shape[1]), dtype=np.float32)]
        at = np.array([(t, i) for t, i, _ in cuts], dtype=np.int64).reshape(-1, 2)
        return Rollout(observations, actions, rewards, terminated, ended, np.vstack(rows), at)

    @property
    def episodes(self) -> EpisodeLog:
        """All episodes that have ended."""
        steps, returns, lengths = self._log
        return EpisodeLog(np.array(steps, dtype=np.int64), np.array(returns), np.array(lengths, dtype=np.int64))

    def normalise(self, observations: Float[ndarray, "env observation"]) -> Float[ndarray, "env observation"]:
        """Observations as the policy gets them, by the statistics so far, which stay as they are."""
        seen = observations if self.normaliser is None else self.normaliser(observations)
        return seen.astype(np.float32)

    def state_dict(self) -> dict[str, Any]:
        """All that the next rollout depends on, the weights excepted."""
        steps, returns, lengths = self._log
        return {
            "environments": self.environments.get_state(),
            "current": None if self._current is None else torch.from_numpy(self._current.copy()),
            "normaliser": None if self.normaliser is None else self.normaliser.state_dict(),
            "scaler": None if self._scaler is None else self._scaler.state_dict(),
            "rng": self.rng.bit_generator.state,
            "steps": self.steps,
            "episodes": [torch.tensor(steps), torch.tensor(returns, dtype=torch.float64), torch.tensor(lengths)],
        }

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Go back to a saved state; environments that cannot be captured begin new episodes."""
        if self.normaliser is not None:
            self.normaliser.load_state_dict(state["normaliser"])
        if self._scaler is not None:
            self._scaler.load_state_dict(state["scaler"])
        self.rng.bit_generator.state = state["rng"]
        self.steps = int(state["steps"])
        steps, returns, lengths = (list(values.tolist()) for values in state["episodes"])
        self._log = ([int(step) for step in steps], [float(r) for r in returns], [int(length) for length in lengths])
        if state["current"] is None:
            self._current = None
            return
        fresh = self.environments.set_state(state["environments"])
        self._current = state["current"].numpy().copy() if fresh is None else self.normalise(fresh)

    def _see(self, observations: Float[ndarray, "env observation"]) -> Float[ndarray, "env observation"]:
        if self.normaliser is not None:
            self.normaliser.update(observations)
        return self.normalise(observations)

    def _cut(self, step: Step) -> list[tuple[int, ndarray]]:
        cut = np.flatnonzero(step.truncated & ~step.terminated)
        if not len(cut) or step.final_observations is None:
            return []
        rows = self.normalise(step.final_observations[cut])
        return list(zip(cut.tolist(), rows, strict=True))

    def _record(self, step: Step) -> None:
        steps, returns, lengths = self._log
        for episode in step.episodes:
            steps.append(self.steps)
            returns.append(episode.total)
            lengths.append(episode.length)


def action_limits(environments: Environments, settings: Settings) -> tuple[ndarray, ndarray] | None:
    """The bounds that actions are held within when they are carried out; None for discrete ones, or where unwanted."""
    if not isinstance(environments.action, Box) or not settings.clip_actions:
        return None
    return np.array(environments.action.low, dtype=np.float32), np.array(environments.action.high, dtype=np.float32)

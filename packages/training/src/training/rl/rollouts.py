"""Collecting a rollout: T steps of N environments under the policy as it is.

Only what an action needs is computed at each step: the normalised observation, the policy's output, a draw. Values and
log-probabilities are those of the whole rollout at once afterwards, by networks that have not changed in between, and
rewards are scaled afterwards too, each with the statistics up to it. The numbers are those of a step-by-step program.
Images stay bytes, a quarter of what float32 takes: they become numbers where a network gets them.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from jaxtyping import Bool, Float, Int, Shaped
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

    Observations are float32, or uint8 where they are images. `observations` has one row more than the rest: what the
    last step led to. `cut_observations` are the last observations of episodes that the time limit ended, and `cut_at`
    (step, environment) of each. `states` and `cut_states` are those of the memory before the first observation and
    before each of `cut_observations` (no columns where there is no memory).
    """

    observations: Shaped[ndarray, "step_and_1 env *observation"]
    actions: Float[ndarray, "step env column"]
    rewards: Float[ndarray, "step env"]
    terminated: Bool[ndarray, "step env"]
    ended: Bool[ndarray, "step env"]
    cut_observations: Shaped[ndarray, " cut *observation"]
    cut_at: Int[ndarray, "cut 2"]
    states: Float[ndarray, "env state"]
    cut_states: Float[ndarray, "cut state"]

    @property
    def begins(self) -> Bool[ndarray, "step_and_1 env"]:
        """Before which of `observations` a memory forgets; for the first `states` says all."""
        return np.vstack([np.zeros_like(self.ended[:1]), self.ended])


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
        shape, n, clip = environments.observation_shape, environments.n, settings.clip_observations
        self.normaliser = ObservationNormaliser(shape, clip=clip) if settings.normalise_observations else None
        scaler = RewardScaler(n, gamma=settings.gamma, clip=settings.clip_rewards)
        self._scaler = scaler if settings.scale_rewards else None
        self.rng = np.random.default_rng(seed)
        self._current: Shaped[ndarray, " env *observation"] | None = None
        self._log: tuple[list[int], list[float], list[int]] = ([], [], [])

    def collect(self) -> Rollout:
        """The next rollout; the first begins with a reset of the environments."""
        horizon, n = self.settings.horizon, self.environments.n
        if self._current is None:
            self.actor.begin(n)
        current = self._see(self.environments.reset()) if self._current is None else self._current
        states = self.actor.states.copy()
        noise = self.actor.noise(horizon, n, self.rng)
        observations = np.empty((horizon + 1, *current.shape), dtype=current.dtype)
        actions = np.empty((horizon, n, self.environments.action.columns), dtype=np.float32)
        rewards = np.empty((horizon, n))
        terminated, ended = np.empty((horizon, n), dtype=bool), np.empty((horizon, n), dtype=bool)
        cuts: list[tuple[int, int, ndarray, ndarray]] = []
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
                cuts += [(t, i, row, self.actor.states[i].copy()) for i, row in self._cut(step)]
                self.actor.restart(ended[t])
                self._record(step)
            current = self._see(step.observations)
        observations[horizon] = self._current = current
        if self._scaler is not None:
            rewards = self._scaler(rewards, ended)
        rows = np.array([row for _, _, row, _ in cuts], dtype=current.dtype).reshape(len(cuts), *current.shape[1:])
        at = np.array([(t, i) for t, i, _, _ in cuts], dtype=np.int64).reshape(-1, 2)
        cut_states = np.array([state for *_, state in cuts], dtype=np.float32).reshape(len(cuts), states.shape[1])
        return Rollout(observations, actions, rewards, terminated, ended, rows, at, states, cut_states)

    @property
    def episodes(self) -> EpisodeLog:
        """All episodes that have ended."""
        steps, returns, lengths = self._log
        return EpisodeLog(np.array(steps, dtype=np.int64), np.array(returns), np.array(lengths, dtype=np.int64))

    def normalise(self, observations: Shaped[ndarray, " env *observation"]) -> Shaped[ndarray, " env *observation"]:
        """Observations as the policy gets them, by the statistics so far, which stay as they are."""
        if self.normaliser is not None:
            observations = self.normaliser(observations)
        return observations.astype(np.uint8 if observations.dtype == np.uint8 else np.float32)

    def state_dict(self) -> dict[str, Any]:
        """All that the next rollout depends on, the weights excepted."""
        steps, returns, lengths = self._log
        return {
            "environments": None if self._current is None else self.environments.get_state(),  # none before a reset
            "current": None if self._current is None else torch.from_numpy(self._current.copy()),
            "states": torch.from_numpy(self.actor.states.copy()),
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
        self.actor.begin(self.environments.n)
        if fresh is None and "states" in state:
            self.actor.states = state["states"].numpy().copy()
        self._current = state["current"].numpy().copy() if fresh is None else self.normalise(fresh)

    def _see(self, observations: Shaped[ndarray, " env *observation"]) -> Shaped[ndarray, " env *observation"]:
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

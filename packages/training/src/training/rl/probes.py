"""Environments so small that only one thing can be wrong where one of them is not solved.

    constant      one action, observation 0, one step, reward 1          V(0) = 1                value loss
    observation   one action, observation +-1, one step, that reward     V(o) = o                the network's input
    discounting   one action, observations 0 and 1, reward 1 at the end  V(0) = gamma, V(1) = 1  advantages
    policy        two actions, observation 0, reward -1 or +1            pi(1) = 1, V(0) = 1     policy loss
    both          two actions, observation +-1, +1 if they agree, or -1  pi(agree) = 1, V(o) = 1 rows kept together

The list is Andy Jones' (2021, Debugging Reinforcement Learning Systems), in the order in which they are to be solved:
the first that fails says where to look. Each takes less than a second. For policies with memory there is one more:

    memory        two actions, observation +-1, then 0 three times, +1   pi(agree) = 1, V = 1    states of the LSTM
                  if the last action agrees with the first observation
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from jaxtyping import Bool, Float, Shaped
from numpy import ndarray

from training.loop import train
from training.rl.agents import agent
from training.rl.distributions import Categorical
from training.rl.environments import Environments, Episode, Step, copies_rng
from training.rl.memory import Sequences, features
from training.rl.ppo import PPO
from training.rl.settings import Settings
from training.rl.spaces import Discrete

SETTINGS = Settings(
    total_steps=2048,
    environments=8,
    horizon=16,
    epochs=4,
    minibatches=4,
    learning_rate=3e-3,
    anneal_learning_rate=False,
    gamma=0.5,  # far from 1, so that an error in the discounting shows
    clip_values=None,
)
VALUE_TOLERANCE = 0.1
PROBABILITY = 0.95  # of the right action


@dataclass(frozen=True)
class Probe:
    """An environment and what an agent knows that has solved it.

    Attributes:
        starts: first observations, drawn with equal probability.
        length: steps of an episode; the observation grows by 1 with each.
        reward: of the last step, from observations and actions; the others give 0.
        values: of each observation that is met, for the best policy, from gamma.
        best: the right action for each of them, where there is a choice.
        hidden: observations after the first are 0, and the reward is that of the first one; values and actions are
            those at the last step, by first observation.
    """

    name: str
    actions: int
    starts: tuple[float, ...]
    length: int
    reward: Callable[[ndarray, ndarray], ndarray]
    values: Callable[[float], Mapping[float, float]]
    best: Mapping[float, int]
    hidden: bool = False

    def seen(self, starts: Float[ndarray, " env"], step: int) -> Float[ndarray, " env"]:
        """Observations after so many steps of an episode."""
        return np.zeros_like(starts) if self.hidden and step else starts + step


PROBES = (
    Probe("constant", 1, (0.0,), 1, lambda o, a: np.ones_like(o), lambda gamma: {0.0: 1.0}, {}),
    Probe("observation", 1, (-1.0, 1.0), 1, lambda o, a: o, lambda gamma: {-1.0: -1.0, 1.0: 1.0}, {}),
    Probe("discounting", 1, (0.0,), 2, lambda o, a: np.ones_like(o), lambda gamma: {0.0: gamma, 1.0: 1.0}, {}),
    Probe("policy", 2, (0.0,), 1, lambda o, a: 2.0 * a - 1.0, lambda gamma: {0.0: 1.0}, {0.0: 1}),
    Probe(
        "both",
        2,
        (-1.0, 1.0),
        1,
        lambda o, a: o * (2.0 * a - 1.0),
        lambda gamma: {-1.0: 1.0, 1.0: 1.0},
        {-1.0: 0, 1.0: 1},
    ),
)
MEMORY = Probe(
    "memory",
    2,
    (-1.0, 1.0),
    4,
    lambda o, a: o * (2.0 * a - 1.0),
    lambda gamma: {-1.0: 1.0, 1.0: 1.0},
    {-1.0: 0, 1.0: 1},
    hidden=True,
)


class ProbeEnvironments(Environments):
    """`n` copies of a probe."""

    def __init__(self, probe: Probe, n: int, *, seed: int) -> None:
        self.probe, self.id, self.n = probe, f"probe {probe.name}", n
        self.observation_shape, self.observation_dtype = (1,), np.dtype(np.float64)
        self.action, self.exact = Discrete(probe.actions), True
        self._rng = copies_rng(n, seed)
        self._starts = np.zeros(n)
        self._time = 0  # all copies begin and end together

    def fresh(self, n: int, seed: int) -> ProbeEnvironments:
        """New copies of the same probe."""
        return ProbeEnvironments(self.probe, n, seed=seed)

    def reset(self) -> Float[ndarray, "env 1"]:
        """Draw first observations."""
        self._time = 0
        starts = self.probe.starts
        self._starts = np.array([starts[int(generator.integers(len(starts)))] for generator in self._rng])
        return self._seen()

    def step(self, actions: Shaped[ndarray, " env"]) -> Step:
        """One step of every copy."""
        self._time += 1
        last = self._time == self.probe.length
        judged = self._starts if self.probe.hidden else self._starts + (self._time - 1)
        rewards = self.probe.reward(judged, actions) if last else np.zeros(self.n)
        ended: Bool[ndarray, " env"] = np.full(self.n, last)
        final = self._seen()
        if not last:
            return Step(final, rewards, ended, np.zeros(self.n, dtype=bool), None, ())
        episodes = tuple(Episode(i, float(reward), self.probe.length) for i, reward in enumerate(rewards))
        return Step(self.reset(), rewards, ended, np.zeros(self.n, dtype=bool), final, episodes)

    def get_state(self) -> dict[str, Any]:
        """Observations, time and generators."""
        rng = [generator.bit_generator.state for generator in self._rng]
        return {"starts": torch.from_numpy(self._starts.copy()), "time": self._time, "rng": rng}

    def set_state(self, state: Mapping[str, Any]) -> None:
        """Go back to a captured state."""
        self._starts, self._time = state["starts"].numpy().copy(), int(state["time"])
        for generator, saved in zip(self._rng, state["rng"], strict=True):
            generator.bit_generator.state = saved

    def _seen(self) -> Float[ndarray, "env 1"]:
        return self.probe.seen(self._starts, self._time)[:, None]


@dataclass(frozen=True)
class ProbeResult:
    """What an agent learnt from a probe.

    Attributes:
        values: (expected, found) for each observation.
        probabilities: of the right action, for each observation where there is a choice.
        solved: values within 0.1, probabilities from 0.95.
    """

    name: str
    values: Mapping[float, tuple[float, float]]
    probabilities: Mapping[float, float]

    @property
    def solved(self) -> bool:
        return all(abs(found - expected) <= VALUE_TOLERANCE for expected, found in self.values.values()) and all(
            probability >= PROBABILITY for probability in self.probabilities.values()
        )


def check_probe(probe: Probe, *, settings: Settings = SETTINGS, seed: int = 0) -> ProbeResult:
    """Train an agent on a probe, through `training.train`, and see what it has learnt."""
    environments = ProbeEnvironments(probe, settings.environments, seed=seed)
    modules = agent(environments, settings, seed=seed)
    task = PPO(environments, modules, settings, seed=seed)
    train(task, task.parts(), steps=task.updates, max_gradient_norm=settings.max_gradient_norm)
    expected = probe.values(settings.gamma)
    with torch.no_grad():
        keys, seen = _met(probe, modules, settings)
        values, policy = modules["value"](seen).tolist(), modules["policy"](seen)
    assert isinstance(policy, Categorical)
    probabilities = policy.log_probabilities.exp()
    rows = {observation: row for row, observation in enumerate(keys)}
    return ProbeResult(
        probe.name,
        {observation: (value, values[rows[observation]]) for observation, value in expected.items()},
        {observation: float(probabilities[rows[observation], action]) for observation, action in probe.best.items()},
    )


def _met(
    probe: Probe, modules: Mapping[str, torch.nn.Module], settings: Settings
) -> tuple[list[float], Float[torch.Tensor, "row feature"]]:
    """Observations in the episodes that there are, and what the heads get there; a memory has seen what was before."""
    starts = np.array(probe.starts)
    table = np.stack([probe.seen(starts, step) for step in range(probe.length)], axis=1)
    observations = torch.from_numpy(table.reshape(-1, 1).astype(np.float32))
    sequences = None
    if settings.lstm is not None:
        begins = torch.zeros(table.shape, dtype=torch.bool)
        sequences = Sequences(torch.zeros(len(starts), 2 * settings.lstm), begins)
    found = features(modules, observations, sequences)
    if probe.hidden:
        return list(probe.starts), found[probe.length - 1 :: probe.length]
    return table.ravel().tolist(), found


def check_probes(*, settings: Settings = SETTINGS, seed: int = 0) -> list[ProbeResult]:
    """All five, in the order in which they are to be solved.

    Args:
        settings: any that have as many environments, horizon and so on as they like; gamma is what `discounting` needs.
    """
    return [check_probe(probe, settings=settings, seed=seed) for probe in PROBES]

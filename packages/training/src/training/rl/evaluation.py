"""How well an agent does without learning, and what an episode of it looks like.

Every copy of the environment plays the same number of episodes, so that short ones do not count more often than long
ones. Normalisers are used as the training left them and do not move; the training itself is not touched: evaluation has
environments and random numbers of its own.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from jaxtyping import Float, Int
from numpy import ndarray

from training.rl.acting import Actor
from training.rl.cartpole import CartPoles
from training.rl.environments import Environments
from training.rl.gymnasium_environments import GymnasiumEnvironments
from training.rl.ppo import PPO
from training.rl.rollouts import action_limits
from training.rl.spaces import UnsupportedEnvironment

Choose = Callable[[ndarray, np.random.Generator], ndarray]


@dataclass(frozen=True)
class Evaluation:
    """Raw return and length of each episode."""

    returns: Float[ndarray, " episode"]
    lengths: Int[ndarray, " episode"]


def evaluate(
    task: PPO, *, episodes: int = 100, deterministic: bool = True, seed: int, environments: int = 10
) -> Evaluation:
    """Play episodes with the policy as it is.

    Args:
        deterministic: the most probable action (the mean of a Gaussian), or a drawn one.
        seed: of the environments, and of the drawn actions.
        environments: copies that play side by side; at most `episodes`.
    """
    copies = task.collector.environments.fresh(min(environments, episodes), seed)
    quota = [len(range(i, episodes, copies.n)) for i in range(copies.n)]
    actor, rng = Actor(task.modules, copies.action), np.random.default_rng(seed)
    choose = _chooser(task, actor, copies, deterministic)
    actor.begin(copies.n)
    observations, found = copies.reset(), list[tuple[float, int]]()
    while any(quota):
        step = copies.step(choose(observations, rng))
        actor.restart(step.terminated | step.truncated)
        for episode in step.episodes:
            if quota[episode.environment]:
                quota[episode.environment] -= 1
                found.append((episode.total, episode.length))
        observations = step.observations
    totals, lengths = zip(*found, strict=True)
    return Evaluation(np.array(totals), np.array(lengths))


@dataclass(frozen=True)
class Frames:
    """One episode to be drawn from, in float32.

    Attributes:
        kind: "cartpole" or "capsules"; the arrays of the other kind are empty.
        states: x (m), x' (m/s), theta (rad, from upright), theta' (rad/s).
        segments: both ends of the axis of each capsule, as (x, z) in metres.
        radii: of the capsules, in metres.
        rewards: of each step; the first frame is before the first step.
    """

    kind: Literal["cartpole", "capsules"]
    states: Float[ndarray, "state_frame 4"]
    segments: Float[ndarray, "frame geom 2 2"]
    radii: Float[ndarray, " geom"]
    rewards: Float[ndarray, " step"]


def record(task: PPO, *, seed: int, deterministic: bool = True, max_steps: int = 1000) -> Frames:
    """Play one episode, or `max_steps` of it, and keep what is drawn.

    Raises:
        UnsupportedEnvironment: if it is neither CartPole nor of MuJoCo.
    """
    copy = task.collector.environments.fresh(1, seed)
    actor, rng = Actor(task.modules, copy.action), np.random.default_rng(seed)
    choose = _chooser(task, actor, copy, deterministic)
    actor.begin(1)
    observations = copy.reset()
    frames, rewards = [_frame(copy)], list[float]()
    radii = _radii(copy)
    for _ in range(max_steps):
        step = copy.step(choose(observations, rng))
        rewards.append(float(step.rewards[0]))
        if step.episodes:
            break
        frames.append(_frame(copy))
        observations = step.observations
    drawn, got = np.array(frames, dtype=np.float32), np.array(rewards, dtype=np.float32)
    if isinstance(copy, CartPoles):
        return Frames("cartpole", drawn, np.empty((0, 0, 2, 2), np.float32), radii, got)
    return Frames("capsules", np.empty((0, 4), np.float32), drawn, radii, got)


def _chooser(task: PPO, actor: Actor, copies: Environments, deterministic: bool) -> Choose:
    limits = action_limits(copies, task.settings)

    def choose(observations: ndarray, rng: np.random.Generator) -> ndarray:
        seen = task.collector.normalise(observations)
        action = actor.best(seen) if deterministic else actor.sample(seen, actor.noise(1, copies.n, rng)[0])
        return action if limits is None else np.clip(action, *limits)

    return choose


def _body(copies: Environments) -> Any:
    """The first copy's environment of MuJoCo."""
    if isinstance(copies, GymnasiumEnvironments) and hasattr(copies.members[0], "model"):
        return copies.members[0]
    raise UnsupportedEnvironment(
        f"{copies.id}: expected CartPole or an environment of MuJoCo, whose geometry is known; leave the frames out"
    )


def _capsules(copies: Environments) -> Int[ndarray, " geom"]:
    import mujoco

    return np.flatnonzero(_body(copies).model.geom_type == mujoco.mjtGeom.mjGEOM_CAPSULE)


def _frame(copies: Environments) -> ndarray:
    if isinstance(copies, CartPoles):
        return copies.state[:, 0].copy()
    chosen, model, data = _capsules(copies), _body(copies).model, _body(copies).data
    axis = data.geom_xmat[chosen].reshape(-1, 3, 3)[:, :, 2] * model.geom_size[chosen, 1:2]
    ends = np.stack([data.geom_xpos[chosen] - axis, data.geom_xpos[chosen] + axis], axis=1)
    return np.asarray(ends[:, :, [0, 2]])


def _radii(copies: Environments) -> Float[ndarray, " geom"]:
    if isinstance(copies, CartPoles):
        return np.empty(0, dtype=np.float32)
    return np.asarray(_body(copies).model.geom_size[_capsules(copies), 0], dtype=np.float32)

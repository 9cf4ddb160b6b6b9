"""Rows of `reprise bench training` for PPO: environment steps, ours through `training.train` against a plain program.

    CartPole      4 environments, 128 steps, 4 epochs, 4 minibatches
    HalfCheetah   1 environment, 2048 steps, 10 epochs, 32 minibatches, observations and rewards normalised

Both train from the start with the same hyperparameters, for as many environment steps; steps a second are the steps in
the row's name over its seconds. The plain program (`training.rl.bench_plain`) is in the common style of one file.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import replace

from training.loop import train
from training.rl.agents import agent
from training.rl.bench_plain import CARTPOLE, HALF_CHEETAH, PlainSettings, train_plain
from training.rl.capture import quiet_mujoco
from training.rl.environments import make_environments
from training.rl.ppo import PPO
from training.rl.settings import Settings, classic_control, mujoco_tasks

Row = tuple[str, str | None, Callable[[], object]] | tuple[str, str | None, Callable[[], object], Mapping[str, float]]
CARTPOLE_STEPS, HALF_CHEETAH_STEPS = 10 * 512, 2 * 2048


def rows(*, cartpole_steps: int = CARTPOLE_STEPS, half_cheetah_steps: int = HALF_CHEETAH_STEPS) -> Iterator[Row]:
    """The four rows; each of ours is compared with the plain program's."""
    yield from _pair("CartPole-v1", classic_control(cartpole_steps), CARTPOLE)
    yield from _pair("HalfCheetah-v5", mujoco_tasks(half_cheetah_steps), HALF_CHEETAH)


def _pair(id: str, settings: Settings, plain: PlainSettings) -> Iterator[Row]:
    plain = replace(plain, total_steps=settings.total_steps)
    name = f"PPO {id}, {settings.total_steps} environment steps"

    def theirs() -> object:
        with quiet_mujoco():
            return train_plain(id, plain, seed=1)

    yield f"{name}: plain program", None, theirs
    yield f"{name}: training.rl", f"{name}: plain program", lambda: train_ours(id, settings, seed=1)


def train_ours(id: str, settings: Settings, *, seed: int) -> PPO:
    """Train from a seed; the task, whose `episodes` are those that ended."""
    environments = make_environments(id, settings.environments, seed=seed)
    task = PPO(environments, agent(environments, settings, seed=seed), settings, seed=seed)
    train(task, task.parts(), steps=task.updates, max_gradient_norm=settings.max_gradient_norm)
    return task

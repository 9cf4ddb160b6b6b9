"""One run: an agent trained by the project's loop, with a log of its updates, and what of it is stored.

A run is a function of environment, settings and seed. A checkpoint every few rollouts lets a killed run go on; the log
is part of it, and the run that goes on is the run that was killed. A run whose loss stops being finite ends there, and
is scored by the episodes before: that is a result, not an accident.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from replications.proximal_policy_optimization.scores import last_returns

from training import Run, checkpoint, every, restore, train
from training.errors import NonFiniteLoss
from training.rl import PPO, Settings, agent, evaluate, make_environments, record

CHECKPOINT = 20  # rollouts
BINS = 100
FRAMES = 8
Array = NDArray[np.float32]
Progress = Callable[[int, int], None]


class UpdateLog:
    """A callback for the end of each policy update (all epochs on one rollout): keeps its statistics, a row each."""

    def __init__(self, task: PPO, progress: Progress) -> None:
        self.task, self.progress = task, progress
        self.rows: list[dict[str, float]] = []

    def __call__(self, run: Run) -> None:
        statistics = self.task.statistics
        if statistics is None:
            return
        self.rows.append({field.name: float(getattr(statistics, field.name)) for field in fields(statistics)})
        self.progress(int(statistics.environment_steps), self.task.settings.total_steps)

    def column(self, name: str) -> Array:
        return np.array([row[name] for row in self.rows], dtype=np.float32)

    def state_dict(self) -> dict[str, Any]:
        return {"rows": [dict(row) for row in self.rows]}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.rows = [dict(row) for row in state["rows"]]


@dataclass(frozen=True)
class Trained:
    """A trained agent, in its task, with the log of its updates.

    `stopped_at` is the step of the environment at which a loss was not finite, or None.
    """

    task: PPO
    log: UpdateLog
    stopped_at: int | None


@contextmanager
def one_thread() -> Iterator[None]:
    """Networks this small are slower on several threads, and sums of several threads may differ in their last bits."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(before)


def prepared(environment: str, settings: Settings, seed: int) -> PPO:
    """An untrained agent in its task. Copies of an environment get seeds of their own, apart from other runs'."""
    environments = make_environments(environment, settings.environments, seed=1000 * (seed + 1))
    return PPO(environments, agent(environments, settings, seed=seed), settings, seed=seed)


def trained(
    environment: str,
    settings: Settings,
    seed: int,
    scratch: Path,
    progress: Progress = lambda done, total: None,
    *,
    checkpoint_every: int = CHECKPOINT,
) -> Trained:
    """Train, or go on from the checkpoint in `scratch`.

    Args:
        checkpoint_every: rollouts.

    Raises:
        CheckpointError: the checkpoint is damaged or another run's.
        UnsupportedEnvironment: there is no such environment.
    """
    task = prepared(environment, settings, seed)
    parts, log = task.parts(), UpdateLog(task, progress)
    path = scratch / "run.pt"
    run = restore(Run.of(task, parts), path) if path.exists() else None
    update = settings.epochs * settings.minibatches
    stopped_at = None
    try:
        train(
            task,
            parts,
            steps=task.updates,
            max_gradient_norm=settings.max_gradient_norm,
            callbacks=(task.finish, every(update, log), every(checkpoint_every * update, checkpoint(path))),
            run=run,
        )
    except NonFiniteLoss:
        stopped_at = task.environment_steps
    return Trained(task, log, stopped_at)


def curve(steps: Array, returns: Array, total: int, bins: int) -> tuple[Array, Array]:
    """Mean return of the episodes that ended in each of `bins` equal parts of the steps; NaN where none ended.

    Returns:
        The parts' ends, in steps, and the means, both [bin].
    """
    ends = np.linspace(total / bins, total, bins)
    at = np.searchsorted(ends, steps).clip(max=bins - 1)
    count = np.bincount(at, minlength=bins)
    summed = np.bincount(at, weights=returns, minlength=bins)
    means = np.divide(summed, count, out=np.full(bins, np.nan), where=count > 0)
    return ends.astype(np.float32), means.astype(np.float32)


def stored(run: Trained, *, recent: float, episodes: int, seed: int) -> dict[str, Array]:
    """What is kept of a run: its curve, the returns that its score is made of, its evaluation, its updates.

    Args:
        recent, episodes: see `setting.Sweep` (`episodes` is its `evaluation`).
        seed: of the evaluation's environments.
    """
    task, log = run.task, run.log
    total = task.settings.total_steps
    steps, returns = np.asarray(task.episodes.environment_steps), np.asarray(task.episodes.returns)
    until = total if run.stopped_at is None else run.stopped_at
    curve_steps, curve_return = curve(steps, returns, total, min(BINS, task.settings.rollouts))
    found = evaluate(task, episodes=episodes, deterministic=False, seed=100_000 + seed)
    return {
        "curve_steps": curve_steps,
        "curve_return": curve_return,
        "last_returns": last_returns(steps, returns, until, recent).astype(np.float32),
        "evaluation": np.asarray(found.returns, dtype=np.float32),
        "update_steps": log.column("environment_steps"),
        "kl": log.column("kl"),
        "outside": log.column("clip_fraction"),
        "explained_variance": log.column("explained_variance"),
        "kl_coefficient": log.column("kl_coefficient"),
        "entropy": log.column("entropy"),
    }


def frames(task: PPO, seed: int) -> dict[str, Array]:
    """States of an episode at equal distances: a cart's, or a body's capsules, with the steps at which they were."""
    episode = record(task, seed=200_000 + seed)
    states = episode.states if episode.kind == "cartpole" else episode.segments
    chosen = np.unique(np.linspace(0, len(states) - 1, FRAMES).round().astype(int))
    arrays = {"states" if episode.kind == "cartpole" else "segments": np.asarray(states[chosen], dtype=np.float32)}
    if episode.kind != "cartpole":
        arrays["radii"] = np.asarray(episode.radii, dtype=np.float32)
    return {**arrays, "frame_steps": chosen.astype(np.float32)}

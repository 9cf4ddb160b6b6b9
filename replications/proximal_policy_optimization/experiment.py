"""Schulman et al. 2017, stage by stage.

1. probes: five environments with known answers, each isolating one part of the algorithm (tiny tier).
2. cartpole: CartPole-v1, one run a seed (tiny tier).
3. untrained: returns of untrained policies, the zero of the scores.
4. train: the comparison of objectives, one run for each environment, objective and seed.
5. first_code: clipping and none, with the details of the authors' first code alone.
6. first_update: Figure 2, objectives along the line from the old policy to the updated one.

The measurements that judge the claims are in `claims.py`; they read stored results alone.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
from replications.proximal_policy_optimization import first_updates, probe_runs, training_runs
from replications.proximal_policy_optimization.claims import CLAIMS
from replications.proximal_policy_optimization.scores import PREFIX
from replications.proximal_policy_optimization.setting import (
    CARTPOLE,
    CARTPOLE_EVALUATION,
    FIRST_UPDATES,
    REACHER,
    SEEDS,
    SWEEPS,
    SWIMMER,
    Sweep,
    Unit,
    cartpole_settings,
    comparison_settings,
    first_code_settings,
    first_code_units,
    seed_of,
    unit_of,
    units,
)

from reprise import Job, Result, Stage
from training.rl import Settings, evaluate

__all__ = ["CLAIMS", "STAGES"]

FRAMED = ("clip-0.2", "none")  # whose first seed is drawn
FROM_ABOVE = (REACHER, SWIMMER)  # bodies in a horizontal plane: nothing to see from the side


def probes(job: Job) -> Result:
    """One probe environment, with every seed."""
    with training_runs.one_thread():
        return probe_runs.solved(job.unit, SEEDS)


def cartpole(job: Job) -> Result:
    """One run on CartPole."""
    seed = seed_of(job.unit)
    with training_runs.one_thread():
        run = training_runs.trained(CARTPOLE, cartpole_settings(), seed, job.scratch, job.progress)
        arrays = training_runs.stored(run, recent=1.0, episodes=CARTPOLE_EVALUATION, seed=seed)
        likeliest = evaluate(run.task, episodes=CARTPOLE_EVALUATION, deterministic=True, seed=100_000 + seed)
        arrays["evaluation_likeliest"] = np.asarray(likeliest.returns, dtype=np.float32)
        arrays |= training_runs.frames(run.task, seed) if seed == 0 else {}
    return Result(arrays, {"steps": run.task.environment_steps, "stopped_at": run.stopped_at})


def untrained(job: Job) -> Result:
    """Returns of untrained policies, [seed, episode], actions sampled."""
    settings = comparison_settings(job.tier, "clip-0.2")
    with training_runs.one_thread():
        returns = [
            evaluate(
                training_runs.prepared(job.unit, settings, seed),
                episodes=SWEEPS[job.tier].untrained,
                deterministic=False,
                seed=100_000 + seed,
            ).returns
            for seed in SEEDS
        ]
    return Result({"returns": np.array(returns, dtype=np.float32)})


def train(job: Job) -> Result:
    """One run of the comparison."""
    return train_unit(job.tier, job.unit, job.scratch, job.progress)


def train_unit(tier: str, name: str, scratch: Path, progress: training_runs.Progress) -> Result:
    """The run with that name; a checkpoint in `scratch` lets it go on."""
    unit = unit_of(tier, name)
    return compared(unit, comparison_settings(tier, unit.objective), SWEEPS[tier], scratch, progress)


def first_code(job: Job) -> Result:
    """One run of the comparison, with the details of the authors' first code."""
    unit = unit_of(job.tier, job.unit.removeprefix(PREFIX["first_code"]))
    settings = first_code_settings(job.tier, unit.objective)
    return compared(unit, settings, SWEEPS[job.tier], job.scratch, job.progress)


def compared(unit: Unit, settings: Settings, sweep: Sweep, scratch: Path, progress: training_runs.Progress) -> Result:
    """Train, evaluate, and keep frames of the first seed."""
    with training_runs.one_thread():
        run = training_runs.trained(unit.environment, settings, unit.seed, scratch, progress)
        arrays = training_runs.stored(run, recent=sweep.recent, episodes=sweep.evaluation, seed=unit.seed)
        if unit.seed == 0 and unit.objective in FRAMED and unit.environment not in FROM_ABOVE:
            arrays |= training_runs.frames(run.task, unit.seed)
    facts = {
        "environment": unit.environment,
        "objective": unit.objective,
        "seed": unit.seed,
        "steps": run.task.environment_steps,
        "episodes": len(run.task.episodes.returns),
        "stopped_at": run.stopped_at,
    }
    return Result(arrays, facts)


def first_update(job: Job) -> Result:
    """The objectives around one first update."""
    with training_runs.one_thread():
        return first_updates.along_the_update(comparison_settings(job.tier, "clip-0.2"), seed_of(job.unit))


STAGES = (
    Stage("probes", probes, units={"tiny": probe_runs.NAMES}, minutes=0.3),
    Stage("cartpole", cartpole, units={"tiny": tuple(f"seed{seed}" for seed in SEEDS)}, minutes=1.0),
    Stage("untrained", untrained, units={tier: SWEEPS[tier].environments for tier in SWEEPS}, minutes=0.2),
    Stage(
        "train",
        train,
        units={tier: tuple(unit.name for unit in units(tier)) for tier in SWEEPS},
        minutes={"tiny": 0.3, "paper": 4.0},
    ),
    Stage(
        "first_code",
        first_code,
        units={tier: tuple(PREFIX["first_code"] + unit.name for unit in first_code_units(tier)) for tier in SWEEPS},
        minutes={"tiny": 0.3, "paper": 4.0},
    ),
    Stage("first_update", first_update, units=FIRST_UPDATES, minutes=0.1),
)

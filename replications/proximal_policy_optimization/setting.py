"""What is trained: environments, objectives, seeds and steps of each tier, and the names of the runs.

The hyper-parameters are those of the paper's Table 3 (horizon 2048, Adam with 3e-4, 10 epochs, minibatches of 64,
discount 0.99, lambda 0.95; two hidden layers of 64 tanh units, section 6.1). What the paper does not say is as in the
library's recipe `mujoco_tasks`, alike for all objectives: the step size falls to 0 in a straight line, advantages are
normalised in each minibatch, observations and rewards are normalised by running statistics, value steps are clipped
and gradients are clipped at a norm of 0.5.

Of these details the code that the authors published with the paper (baselines/ppo1, 2017) has only some: the falling
step size, normalised observations and normalised advantages (over the rollout). It scales no rewards, and clips neither
values nor gradients. Clipped gradients restrain an update too, so the two ends of the comparison are run with those
details as well (`first_code_settings`).

Environments are Gymnasium's v4: the paper's v1 cannot be had any more, v4 keeps its rewards (v5 changes those of
InvertedPendulum, Walker2d and others), and public numbers of other implementations are for v4.
"""

from __future__ import annotations

import dataclasses
import math
from dataclasses import dataclass

from training.rl import AdaptiveKL, Clip, FixedKL, Settings, Unpenalised, classic_control, mujoco_tasks

Objective = Clip | Unpenalised | FixedKL | AdaptiveKL

# Table 1. The adaptive coefficient begins at 1 (caption of Table 1).
OBJECTIVES: dict[str, Objective] = {
    "none": Unpenalised(),
    "clip-0.1": Clip(0.1),
    "clip-0.2": Clip(0.2),
    "clip-0.3": Clip(0.3),
    "adaptive-0.003": AdaptiveKL(0.003, beta=1.0),
    "adaptive-0.01": AdaptiveKL(0.01, beta=1.0),
    "adaptive-0.03": AdaptiveKL(0.03, beta=1.0),
    "fixed-0.3": FixedKL(0.3),
    "fixed-1": FixedKL(1.0),
    "fixed-3": FixedKL(3.0),
    "fixed-10": FixedKL(10.0),
}
PAPER_SCORES = {  # Table 1, average normalised scores
    "none": -0.39,
    "clip-0.1": 0.76,
    "clip-0.2": 0.82,
    "clip-0.3": 0.70,
    "adaptive-0.003": 0.68,
    "adaptive-0.01": 0.74,
    "adaptive-0.03": 0.71,
    "fixed-0.3": 0.62,
    "fixed-1": 0.71,
    "fixed-3": 0.72,
    "fixed-10": 0.69,
}
BASE = "clip-0.2"  # what the others are compared with
FIRST_CODE = (BASE, "none")
ADAPTIVE = ("adaptive-0.003", "adaptive-0.01", "adaptive-0.03")
INVERTED_PENDULUM, HOPPER, HALF_CHEETAH = "InvertedPendulum-v4", "Hopper-v4", "HalfCheetah-v4"
WALKER, REACHER, SWIMMER = "Walker2d-v4", "Reacher-v4", "Swimmer-v4"
# Footnote 2, the three whose simulation is cheapest first; those alone make up the tiny tier.
ENVIRONMENTS = (
    INVERTED_PENDULUM,
    REACHER,
    HALF_CHEETAH,
    HOPPER,
    SWIMMER,
    "InvertedDoublePendulum-v4",
    WALKER,
)
CARTPOLE = "CartPole-v1"
SEEDS = (0, 1, 2)
LAST = 100  # section 6.1: a run's score is its mean return over the last 100 episodes


@dataclass(frozen=True)
class Sweep:
    """The runs of a tier.

    Args:
        objectives: keys of `OBJECTIVES`.
        steps: of the environment, a run.
        recent: share of the steps, at the end, that the episodes of a score may come from.
        evaluation: episodes that a trained policy is evaluated on.
        untrained: episodes that each untrained policy is evaluated on.
    """

    environments: tuple[str, ...]
    objectives: tuple[str, ...]
    steps: int
    recent: float
    evaluation: int
    untrained: int


SWEEPS = {
    "tiny": Sweep(
        ENVIRONMENTS[:3],
        tuple(name for name in OBJECTIVES if name != "fixed-10"),
        steps=51_200,
        recent=0.2,
        evaluation=20,
        untrained=20,
    ),
    "paper": Sweep(ENVIRONMENTS, tuple(OBJECTIVES), steps=1_000_000, recent=1.0, evaluation=20, untrained=50),
}
CARTPOLE_STEPS, CARTPOLE_EVALUATION = 500_000, 100
FIRST_UPDATES = tuple(f"seed{seed}" for seed in range(10))


@dataclass(frozen=True)
class Unit:
    """One run of the comparison."""

    environment: str
    objective: str
    seed: int

    @property
    def name(self) -> str:
        return f"{self.environment}.{self.objective}.seed{self.seed}"


def units(tier: str) -> tuple[Unit, ...]:
    """The runs of a tier, those that most claims need first."""
    sweep = SWEEPS[tier]
    first = ("clip-0.2", "none")
    ordered = (*first, *(name for name in sweep.objectives if name not in first))
    return tuple(
        Unit(environment, objective, seed)
        for seed in SEEDS
        for objective in ordered
        for environment in sweep.environments
    )


def unit_of(tier: str, name: str) -> Unit:
    """The run with that name; ValueError naming some that there are."""
    for unit in units(tier):
        if unit.name == name:
            return unit
    raise ValueError(f"no run {name!r} in tier {tier!r}; runs are, for example, {units(tier)[0].name!r}")


def first_code_units(tier: str) -> tuple[Unit, ...]:
    """The runs of the recipe of the authors' first code: clipping at 0.2 and none."""
    return tuple(unit for unit in units(tier) if unit.objective in FIRST_CODE)


def target_of(objective: str) -> float:
    """The target of an objective with an adaptive coefficient, in nats."""
    chosen = OBJECTIVES[objective]
    assert isinstance(chosen, AdaptiveKL)
    return chosen.target


def seed_of(name: str) -> int:
    """The seed at the end of the name of a unit."""
    return int(name.rpartition("seed")[2])


def comparison_settings(tier: str, objective: str) -> Settings:
    """Table 3, for one objective."""
    return dataclasses.replace(mujoco_tasks(total_steps=SWEEPS[tier].steps), objective=OBJECTIVES[objective])


def first_code_settings(tier: str, objective: str) -> Settings:
    """Table 3 with the details of the authors' first code alone, for one objective."""
    return dataclasses.replace(
        comparison_settings(tier, objective),
        scale_rewards=False,
        clip_values=None,
        max_gradient_norm=math.inf,
        clip_observations=5.0,
    )


def cartpole_settings() -> Settings:
    return classic_control(total_steps=CARTPOLE_STEPS)

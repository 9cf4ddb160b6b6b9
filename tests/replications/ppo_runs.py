"""Results of proximal_policy_optimization made by hand, for its tests."""

from __future__ import annotations

from collections.abc import Callable, Mapping

import numpy as np
from replications.proximal_policy_optimization.setting import SWEEPS, Unit, units

from reprise import Result, Results

UPDATES = 20
UNTRAINED = {"InvertedPendulum-v4": 10.0, "Reacher-v4": -40.0, "HalfCheetah-v4": -300.0}


def run(score: float, *, kl: float = 0.01, outside: float = 0.1, explained: float = 0.8, seed: int = 0) -> Result:
    """A run whose last returns have exactly that mean, with constant updates."""
    noise = np.random.default_rng(seed).normal(0, 1, 50)
    constant = np.ones(UPDATES, dtype=np.float32)
    return Result(
        {
            "curve_steps": np.linspace(1, 100, 10, dtype=np.float32),
            "curve_return": np.linspace(0, score, 10, dtype=np.float32),
            "last_returns": score + noise - noise.mean(),
            "evaluation": score + noise,
            "update_steps": np.linspace(1, 100, UPDATES, dtype=np.float32),
            "kl": kl * constant,
            "outside": outside * constant,
            "explained_variance": explained * constant,
            "kl_coefficient": constant,
            "entropy": constant,
        }
    )


def sweep(tier: str, make: Callable[[Unit], Result | None]) -> dict[str, Result]:
    """The runs of a tier; those for which None is made are missing."""
    made = {unit.name: make(unit) for unit in units(tier)}
    return {name: result for name, result in made.items() if result is not None}


def untrained(tier: str) -> dict[str, Result]:
    """Three seeds of five episodes at the known returns, 0 where none is known."""
    return {name: Result({"returns": np.full((3, 5), UNTRAINED.get(name, 0.0))}) for name in SWEEPS[tier].environments}


def results(tier: str = "tiny", **by_stage: Mapping[str, Result]) -> Results:
    stages = ("probes", "cartpole", "untrained", "train", "first_code", "first_update")
    return Results(tier, 0, {name: by_stage.get(name, {}) for name in stages})


def planned_frames(result: Result) -> Result:
    """The same run with frames of a body of two capsules."""
    segments = np.zeros((8, 2, 2, 2), dtype=np.float32)
    segments[:, 0, 1] = segments[:, 1, 0] = (0.0, 1.0)
    segments[:, 1, 1] = (0.5, 1.5)
    segments[..., 0] += np.arange(8.0)[:, None, None]
    radii = np.array([0.05, 0.1], dtype=np.float32)
    return Result({**result.arrays, "segments": segments, "radii": radii, "frame_steps": np.arange(8.0)}, result.facts)

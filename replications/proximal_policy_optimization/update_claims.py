"""What the claims on single updates measure: how far they go, the adaptive penalty, the value function, Figure 2.

They take the runs that are there; what their interval covers says how many.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator

import numpy as np
from replications.proximal_policy_optimization.scores import Array, run_of
from replications.proximal_policy_optimization.setting import ADAPTIVE, BASE, SEEDS, SWEEPS, target_of

from reprise import Measurement, Result, Results, bootstrap
from reprise.experiment import Measure


def pairs(results: Results) -> Iterator[tuple[Result, Result]]:
    """Runs of one environment and seed with clipping and without, where both are there."""
    for environment in SWEEPS[results.tier].environments:
        for seed in SEEDS:
            clipped, plain = (run_of(results, environment, objective, seed) for objective in (BASE, "none"))
            if clipped is not None and plain is not None:
                yield clipped, plain


def over_pairs(quantity: Callable[[Result], float]) -> Measure:
    """A quantity of a run, without clipping less with it, over pairs of runs."""

    def measure(results: Results) -> Measurement | None:
        differences = np.array([quantity(plain) - quantity(clipped) for clipped, plain in pairs(results)])
        if len(differences) < 2:
            return None
        return bootstrap(np.mean, differences, over="pairs of runs", seed=results.seed)

    return measure


def log_divergence(run: Result) -> float:
    return float(np.log10(run["kl"].mean(dtype=np.float64)))


def share_outside(run: Result) -> float:
    return float(run["outside"].mean(dtype=np.float64))


def over_target(run: Result, objective: str) -> Array:
    """Divergence over target, of the second half of the updates."""
    kl = np.asarray(run["kl"])
    return kl[len(kl) // 2 :] / target_of(objective)


def on_adaptive(quantity: Callable[[Array], float]) -> Measure:
    """A quantity of the second half of a run's updates, over all runs with an adaptive coefficient."""

    def measure(results: Results) -> Measurement | None:
        found = [
            quantity(over_target(run, objective))
            for objective in ADAPTIVE
            for environment in SWEEPS[results.tier].environments
            for seed in SEEDS
            if (run := run_of(results, environment, objective, seed)) is not None
        ]
        if len(found) < 2:
            return None
        return bootstrap(np.mean, np.array(found), over="runs", seed=results.seed)

    return measure


def far_off(quotients: Array) -> float:
    return float(np.mean((quotients < 0.5) | (quotients > 2)))


def value_explains(results: Results) -> Measurement | None:
    found = [
        run["explained_variance"][-(len(run["explained_variance"]) // 5) :].mean()
        for environment in SWEEPS[results.tier].environments
        for seed in SEEDS
        if (run := run_of(results, environment, BASE, seed)) is not None
    ]
    return bootstrap(np.mean, np.array(found), over="runs", seed=results.seed) if len(found) > 1 else None


def first_update(quantity: Callable[[Result], float]) -> Measure:
    """A quantity of the first update on Hopper, over seeds."""

    def measure(results: Results) -> Measurement | None:
        found = np.array([quantity(run) for run in results.of("first_update").values()])
        return bootstrap(np.mean, found, over="seeds", seed=results.seed) if len(found) > 1 else None

    return measure


def place_of_maximum(run: Result) -> float:
    return float(run["along"][run["clipped"].argmax()])


def divergence_at_update(run: Result) -> float:
    return float(run["kl"][np.abs(run["along"] - 1).argmin()])

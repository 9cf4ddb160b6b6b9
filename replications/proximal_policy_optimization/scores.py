"""Scores of section 6.1, and intervals over runs and over episodes.

A run's score is the mean return of its last 100 training episodes. In each environment scores are shifted and scaled so
that the untrained policy has 0 and the best run 1; an objective's score is the mean over its runs. The scale is taken
as known: it is not resampled.

Intervals over runs are a stratified percentile bootstrap (Agarwal et al. 2021): in each environment, and for each
objective apart, the seeds are drawn with replacement. With three seeds that is rough, and rather too narrow. Intervals
over episodes draw the seeds first, where there are several, and then each one's episodes.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from replications.proximal_policy_optimization.setting import FIRST_CODE, LAST, SEEDS, SWEEPS, Unit

from reprise import Measurement, Result, Results

Array = NDArray[np.floating]
RESAMPLES = 1000
PREFIX = {"train": "", "first_code": "first-code."}  # of the names of runs


def run_of(results: Results, environment: str, objective: str, seed: int, stage: str = "train") -> Result | None:
    """The result of a run, or None where it was not run."""
    return results.of(stage).get(PREFIX[stage] + Unit(environment, objective, seed).name)


def last_returns(steps: Array, returns: Array, total: int, recent: float) -> Array:
    """The returns that a score is the mean of: the last 100, of the episodes that ended in the last share of the steps.

    Args:
        steps: of the environment, at which each episode ended, in order.
        returns: of those episodes.
        total: steps of the run.
        recent: the share.

    Raises:
        ValueError: no episode ended there.
    """
    chosen = returns[steps > (1 - recent) * total][-LAST:]
    if not len(chosen):
        raise ValueError(
            f"no episode ended in the last {recent:.0%} of {total} steps, of {len(returns)} that ended; train longer"
        )
    return chosen


def raw_scores(results: Results, objectives: Iterable[str], stage: str) -> dict[str, Array] | None:
    """Scores of runs, [environment, seed], by objective; None where the tier's sweep lacks one of these."""
    found = {}
    for objective in objectives:
        runs = [
            [run_of(results, environment, objective, seed, stage) for seed in SEEDS]
            for environment in SWEEPS[results.tier].environments
        ]
        if any(run is None for row in runs for run in row):
            return None
        found[objective] = np.array([[run["last_returns"].mean() for run in row if run is not None] for row in runs])
    return found


def untrained_scores(results: Results) -> Array | None:
    """Mean return of untrained policies, [environment]; None where one is missing."""
    of = results.of("untrained")
    names = SWEEPS[results.tier].environments
    return np.array([of[name]["returns"].mean() for name in names]) if all(name in of for name in names) else None


def normalise(raw: Mapping[str, Array], untrained: Array) -> dict[str, Array]:
    """Scores with the untrained policy at 0 and the best run at 1, in each environment.

    Args:
        raw: by objective, [environment, seed].
        untrained: [environment].
    """
    best = np.max([scores.max(axis=1) for scores in raw.values()], axis=0)
    return {name: (scores - untrained[:, None]) / (best - untrained)[:, None] for name, scores in raw.items()}


def normalised_scores(results: Results, stage: str = "train") -> dict[str, Array] | None:
    """Normalised scores of a whole sweep, [environment, seed], by objective; None where a run is missing."""
    objectives = SWEEPS[results.tier].objectives if stage == "train" else FIRST_CODE
    raw, untrained = raw_scores(results, objectives, stage), untrained_scores(results)
    return None if raw is None or untrained is None else normalise(raw, untrained)


def over_runs(statistic: Callable[[Mapping[str, Array]], float], scores: Mapping[str, Array], seed: int) -> Measurement:
    """A statistic of values by objective, [environment, seed], with an interval over runs."""
    generator = np.random.default_rng(seed)
    draws = [statistic({name: _resample(of, generator) for name, of in scores.items()}) for _ in range(RESAMPLES)]
    n = next(iter(scores.values())).size
    return _measurement(statistic(scores), draws, n, "runs of each objective, three seeds an environment")


def _resample(values: Array, generator: np.random.Generator) -> Array:
    chosen = generator.integers(0, values.shape[1], values.shape)
    return np.take_along_axis(values, chosen, axis=1)


@dataclass(frozen=True)
class Sample:
    """Values of units within seeds: of episodes, or of updates."""

    by_seed: Sequence[Array]

    def draw(self, generator: np.random.Generator) -> Sample:
        """Seeds with replacement, where there are several, then the values of each."""
        seeds = generator.integers(0, len(self.by_seed), len(self.by_seed))
        return Sample([generator.choice(self.by_seed[at], len(self.by_seed[at])) for at in seeds])

    def mean(self) -> float:
        """The mean over seeds of their means."""
        return float(np.mean([values.mean() for values in self.by_seed]))


def over_episodes(statistic: Callable[..., float], *samples: Sample, seed: int) -> Measurement:
    """A statistic of samples, drawn independently of each other, with an interval over seeds and episodes."""
    generator = np.random.default_rng(seed)
    draws = [statistic(*(sample.draw(generator) for sample in samples)) for _ in range(RESAMPLES)]
    counts = list(dict.fromkeys(len(sample.by_seed) for sample in samples))
    seeds = "1 seed" if counts == [1] else " and ".join(map(str, counts)) + " seeds"
    n = sum(len(values) for values in samples[0].by_seed)
    return _measurement(statistic(*samples), draws, n, f"episodes, of {seeds}")


def lowest_mean(returns: Sequence[Array], seed: int) -> Measurement:
    """The lowest of the seeds' mean returns; the interval is over episodes: a claim on every seed samples none."""
    generator = np.random.default_rng(seed)
    draws = [min(generator.choice(of, len(of)).mean() for of in returns) for _ in range(RESAMPLES)]
    n = sum(len(of) for of in returns)
    return _measurement(min(of.mean() for of in returns), draws, n, f"episodes, of {len(returns)} seeds")


def _measurement(estimate: float, draws: Sequence[float], n: int, over: str) -> Measurement:
    low, high = np.quantile(draws, [0.025, 0.975])
    return Measurement(estimate=float(estimate), low=float(low), high=float(high), n=n, over=over)

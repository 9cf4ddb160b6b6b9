"""What each claim of paper.toml measures, from stored results alone.

Claims on normalised scores need the whole sweep of their tier, since the scale comes from the best run of all. Claims
on single environments and on updates take the runs that are there; what their interval covers says how many.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping

import numpy as np
from replications.proximal_policy_optimization import scores
from replications.proximal_policy_optimization.scores import Array, Sample, run_of
from replications.proximal_policy_optimization.setting import (
    BASE,
    HALF_CHEETAH,
    HOPPER,
    INVERTED_PENDULUM,
    SEEDS,
    WALKER,
)
from replications.proximal_policy_optimization.update_claims import (
    divergence_at_update,
    far_off,
    first_update,
    log_divergence,
    on_adaptive,
    over_pairs,
    place_of_maximum,
    share_outside,
    value_explains,
)

from reprise import Measurement, Results, bootstrap
from reprise.experiment import Measure

Scores = Mapping[str, Array]


def best(of: Scores, kind: str) -> float:
    """The highest mean score of the objectives whose name begins so."""
    return max(float(values.mean()) for name, values in of.items() if name.startswith(kind))


def best_penalty(of: Scores) -> float:
    return max(best(of, "adaptive"), best(of, "fixed"))


def worst_penalty(of: Scores) -> float:
    return min(float(values.mean()) for name, values in of.items() if name.startswith(("adaptive", "fixed")))


def best_other_clipping(of: Scores) -> float:
    return max(float(of[name].mean()) for name in ("clip-0.1", "clip-0.3"))


def on_scores(statistic: Callable[[Scores], float], stage: str = "train") -> Measure:
    """A statistic of normalised scores."""

    def measure(results: Results) -> Measurement | None:
        of = scores.normalised_scores(results, stage)
        return None if of is None else scores.over_runs(statistic, of, results.seed)

    return measure


def score(objective: str) -> Measure:
    return on_scores(lambda of: float(of[objective].mean()))


def clipping_over_none(of: Scores) -> float:
    return float(of[BASE].mean() - of["none"].mean())


def last_returns(results: Results, environment: str, objective: str, stage: str = "train") -> Sample | None:
    """The returns that scores are made of, of the seeds that were run; None where there are none."""
    runs = [run_of(results, environment, objective, seed, stage) for seed in SEEDS]
    found = [run["last_returns"] for run in runs if run is not None]
    return Sample(found) if found else None


def above_none(environment: str, stage: str = "train") -> Measure:
    """Mean return at the end with clipping less without, on one environment."""

    def measure(results: Results) -> Measurement | None:
        clipped, plain = (last_returns(results, environment, objective, stage) for objective in (BASE, "none"))
        if clipped is None or plain is None:
            return None
        return scores.over_episodes(lambda a, b: a.mean() - b.mean(), clipped, plain, seed=results.seed)

    return measure


def below_untrained(stage: str) -> Measure:
    """Mean return of HalfCheetah at the end without clipping less that of untrained policies."""

    def measure(results: Results) -> Measurement | None:
        plain, untrained = last_returns(results, HALF_CHEETAH, "none", stage), results.of("untrained").get(HALF_CHEETAH)
        if plain is None or untrained is None:
            return None
        before = Sample(list(untrained["returns"]))
        return scores.over_episodes(lambda a, b: a.mean() - b.mean(), plain, before, seed=results.seed)

    return measure


def public_number(environment: str) -> Measure:
    """Mean return at the end with clipping; None unless all seeds were run."""

    def measure(results: Results) -> Measurement | None:
        sample = last_returns(results, environment, BASE)
        if sample is None or len(sample.by_seed) < len(SEEDS):
            return None
        return scores.over_episodes(Sample.mean, sample, seed=results.seed)

    return measure


def probes_solved(results: Results) -> Measurement | None:
    of = results.of("probes")
    solved = [run["solved"] for run in of.values()]
    return bootstrap(np.mean, np.concatenate(solved), over="trainings", seed=results.seed) if solved else None


def cartpole(results: Results, array: str) -> list[Array] | None:
    of = results.of("cartpole")
    names = [f"seed{seed}" for seed in SEEDS]
    return [of[name][array] for name in names] if all(name in of for name in names) else None


def cartpole_solved(array: str) -> Measure:
    """The lowest of the seeds' mean returns in an evaluation."""

    def measure(results: Results) -> Measurement | None:
        returns = cartpole(results, array)
        return None if returns is None else scores.lowest_mean(returns, results.seed)

    return measure


def cartpole_public_number(results: Results) -> Measurement | None:
    returns = cartpole(results, "last_returns")
    return None if returns is None else scores.over_episodes(Sample.mean, Sample(returns), seed=results.seed)


CLAIMS: dict[str, Measure] = {
    "probes-solved": probes_solved,
    "cartpole-solved": cartpole_solved("evaluation"),
    "cartpole-solved-likeliest": cartpole_solved("evaluation_likeliest"),
    "cartpole-public-number": cartpole_public_number,
    "score-no-clipping": score("none"),
    "score-clip-1": score("clip-0.1"),
    "score-clip-2": score("clip-0.2"),
    "score-clip-3": score("clip-0.3"),
    "score-adaptive-003": score("adaptive-0.003"),
    "score-adaptive-01": score("adaptive-0.01"),
    "score-adaptive-03": score("adaptive-0.03"),
    "score-fixed-03": score("fixed-0.3"),
    "score-fixed-1": score("fixed-1"),
    "score-fixed-3": score("fixed-3"),
    "score-fixed-10": score("fixed-10"),
    "clipping-beats-none": on_scores(clipping_over_none),
    "penalties-beat-none": on_scores(lambda of: worst_penalty(of) - float(of["none"].mean())),
    "clipping-against-penalties": on_scores(lambda of: float(of[BASE].mean()) - best_penalty(of)),
    "best-clipping": on_scores(lambda of: float(of[BASE].mean()) - best_other_clipping(of)),
    "adaptive-against-fixed": on_scores(lambda of: best(of, "adaptive") - best(of, "fixed")),
    "half-cheetah-below-untrained": below_untrained("train"),
    "clipping-above-none-inverted-pendulum": above_none(INVERTED_PENDULUM),
    "clipping-above-none-hopper": above_none(HOPPER),
    "clipping-above-none-half-cheetah": above_none(HALF_CHEETAH),
    "first-code-clipping-beats-none": on_scores(clipping_over_none, "first_code"),
    "first-code-half-cheetah-below-untrained": below_untrained("first_code"),
    "first-code-clipping-above-none-half-cheetah": above_none(HALF_CHEETAH, "first_code"),
    "public-number-inverted-pendulum": public_number(INVERTED_PENDULUM),
    "public-number-hopper": public_number(HOPPER),
    "public-number-half-cheetah": public_number(HALF_CHEETAH),
    "public-number-walker2d": public_number(WALKER),
    "kl-larger-without": over_pairs(log_divergence),
    "ratios-further-without": over_pairs(share_outside),
    "adaptive-on-target": on_adaptive(lambda quotients: float(np.median(quotients))),
    "adaptive-seldom-off": on_adaptive(far_off),
    "value-explains-returns": value_explains,
    "first-update-at-the-maximum": first_update(place_of_maximum),
    "first-update-divergence": first_update(divergence_at_update),
}

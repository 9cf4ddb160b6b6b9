"""What the claims about open-ended text measure, from stored completions.

A score is the share of a behaviour's words among those of it and of its contrary, or of all attitudes where texts are
about people, NaN where a text has none; by behaviour, the mean over all completions that have one, if there are enough
of them. Perplexity is under the unsteered model.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from replications.contrastive_activation_addition.generation_stages import (
    HEADER,
    LAST_LAYER,
    LOGIT_BIAS,
    MEASURES,
    PROMPT_ONLY,
    RANDOM,
    UNSTEERED,
    signed,
)
from replications.contrastive_activation_addition.measures import Array, main, mean
from replications.contrastive_activation_addition.setting import MINUS, PLUS

from reprise import Measurement, Result, Results
from reprise.experiment import Measure

UP, DOWN = f"{PLUS:+g}", f"{MINUS:+g}"
STAGE = "open_ended"
FEWEST_TEXTS = 8
Value = Callable[[Result, str], float]


def conditions(result: Result, name: str) -> list[str]:
    """The conditions of a behaviour, random vectors by draw."""
    return [key.removesuffix(f"/{name}") for key in result.arrays if key.endswith(f"/{name}")]


def scores(result: Result, condition: str, name: str, measure: str = "score") -> Array:
    """A measure of all completions of a condition, [prompt, sample]; of random vectors, [prompt, sample and draw]."""
    at = MEASURES.index(measure)
    drawn = [key for key in conditions(result, name) if key == condition or key.startswith(f"{condition} ")]
    exact = [condition] if condition in drawn else drawn if condition == RANDOM else []
    if not exact:
        return np.full((1, 1), np.nan)
    return np.concatenate(
        [result[f"{key}/{name}"][at].reshape(len(result[f"{key}/{name}"][at]), -1) for key in exact], 1
    )


def score(result: Result, condition: str, name: str, measure: str = "score") -> float:
    """The mean over completions where there is something to measure, NaN where these are too few."""
    found = scores(result, condition, name, measure)
    counted = found[~np.isnan(found)]
    fewest = FEWEST_TEXTS if measure == "score" else 1
    return float(counted.mean()) if len(counted) >= fewest else float("nan")


def loss(result: Result, condition: str, name: str) -> float:
    """Nats per token of all completions of a condition."""
    sums, tokens = (scores(result, condition, name, measure).sum() for measure in ("loss", "tokens"))
    return float(sums / max(tokens, 1.0))


def measured(results: Results, value: Value, stage: str = STAGE) -> Measurement | None:
    """The mean over behaviours of a value, where it could be measured; None of fewer than two."""
    result = main(results, stage)
    return mean(results, {name: np.array([value(result, name)]) for name in result.facts["scored"]})


def difference(one: str, other: str, stage: str = STAGE) -> Measure:
    """Score under one condition minus that under another, mean over behaviours."""

    def value(result: Result, name: str) -> float:
        return score(result, one, name) - score(result, other, name)

    return lambda results: measured(results, value, stage)


def perplexity_ratio(result: Result, name: str) -> float:
    """Perplexity with the vector over that without, at the sign where it is higher."""
    plain = loss(result, UNSTEERED, name)
    return float(np.exp(max(loss(result, end, name) for end in (UP, DOWN)) - plain))


def grammatical(result: Result, name: str) -> float:
    """The share of grammatical sentences at the sign where it is lower."""
    return float(np.min([score(result, end, name, "wellformed") for end in (UP, DOWN)]))


def claims_of(stage: str, prefix: str) -> dict[str, Measure]:
    """The claims about the texts of a stage."""
    return {
        prefix: difference(UP, DOWN, stage),
        f"{prefix}-fluent": lambda results: measured(results, perplexity_ratio, stage),
        f"{prefix}-grammatical": lambda results: measured(results, grammatical, stage),
        f"{prefix}-random": difference(RANDOM, UNSTEERED, stage),
        f"{prefix}-beyond-last-layer": difference(UP, LAST_LAYER, stage),
        f"{prefix}-beyond-logit-bias": difference(UP, LOGIT_BIAS, stage),
        f"{prefix}-prompt-only": difference(signed(PROMPT_ONLY, PLUS), signed(PROMPT_ONLY, MINUS), stage),
    }


OPEN_ENDED_CLAIMS: dict[str, Measure] = {
    "gate-header": difference(signed(HEADER, PLUS), signed(HEADER, MINUS)),
    **claims_of(STAGE, "open-ended"),
    **claims_of("readings_open_ended", "reading-open-ended"),
}

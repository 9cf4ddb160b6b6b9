"""What each claim of paper.toml measures, from stored results alone.

A claim about topics is over topics: what is resampled are the topics, each by its mean over prompts. Where there are
fewer than five latents (moods, and the paper tier) it is the prompts, each by its mean over latents, and with a single
prompt its completions. Differences between conditions are paired, since all of them draw by the same numbers.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping

import numpy as np
from numpy.typing import NDArray
from replications.activation_addition.choice import mean_over
from replications.activation_addition.material import MOOD, TOPIC

from reprise import Measurement, Result, Results, bootstrap
from reprise.experiment import Measure

Array = NDArray[np.floating]
FRONT, EVERYWHERE = "front", "everywhere"
UNSTEERED, VECTOR, RANDOM, ANOTHER = "unsteered", "vector", "random vectors", "another vector"
LATER, LAST_BLOCK, LAST_LAYER, PROMPT_ONLY, PREFIX = "later layer", "last block", "last layer", "prompt only", "prefix"
BIAS_UNEMBEDDED, BIAS_MEAN = "logit bias, unembedded", "logit bias, mean effect"
ENOUGH = 5  # latents to resample
ON, OFF = 0, 1  # sides of the texts


def only(results: Results, stage: str) -> Result | None:
    """The result of a run with one model; None with several, which no claim of this paper compares."""
    of = results.of(stage)
    return next(iter(of.values())) if len(of) == 1 else None


def condition(result: Result, way: str, kind: str, name: str, what: str = "success") -> Array:
    """One condition of the completions, [latent, prompt, sample]."""
    place = result.facts["conditions"][way].index(name)
    return np.asarray(result[f"{way}.{kind}.{what}"][place], dtype=np.float64)


def over_units(values: Array, reduce: Callable[[Array, tuple[int, ...]], Array] = mean_over) -> tuple[Array, str]:
    """[latent, prompt, sample] reduced to the units that are resampled, and what these are."""
    if len(values) >= ENOUGH:
        return reduce(values, (1, 2)), "topics"
    if values.shape[1] > 1:
        return reduce(values, (0, 2)), "prompts"
    return reduce(values, (0, 1)), "completions"


def interval(seed: int, *samples: Array) -> Measurement | None:
    """The mean of one sample [latent, prompt, sample], or of the difference of two; None where too little counts."""
    units = [over_units(sample) for sample in samples]
    over = units[0][1]
    found = units[0][0] if len(units) == 1 else units[0][0] - units[1][0]
    found = found[~np.isnan(found)]
    return None if len(found) < 2 else bootstrap(np.mean, found, over=over, seed=seed)


def success(way: str, kind: str, name: str, less: str | None = None) -> Measure:
    """The success of one condition, or by how much it is above that of another."""

    def measure(results: Results) -> Measurement | None:
        result = only(results, "completions")
        if result is None:
            return None
        return interval(results.seed, *(condition(result, way, kind, each) for each in (name, less) if each))

    return measure


def grammatical(results: Results) -> Measurement | None:
    """The share of grammatical sentences, where there is a grammar."""
    result = only(results, "completions")
    if result is None or f"{FRONT}.{TOPIC}.wellformed" not in result.arrays:
        return None
    return interval(results.seed, condition(result, FRONT, TOPIC, VECTOR, "wellformed"))


def perplexity_quotient(result: Result, way: str, kind: str, name: str, seed: int) -> Measurement | None:
    """Perplexity of completions under the unsteered model, over that of unsteered completions of the same prompts."""
    sums: list[Array] = []
    over = ""
    for each in (name, UNSTEERED):
        for what in ("losses", "tokens"):
            units, over = over_units(condition(result, way, kind, each, what), lambda values, axis: values.sum(axis))
            sums.append(units)
    written = (sums[1] > 0) & (sums[3] > 0)
    if written.sum() < 2:
        return None
    return bootstrap(_perplexities, *(units[written] for units in sums), over=over, seed=seed)


def _perplexities(losses: Array, tokens: Array, plain_losses: Array, plain_tokens: Array) -> float:
    return float(np.exp(losses.sum() / tokens.sum() - plain_losses.sum() / plain_tokens.sum()))


def fluent(results: Results) -> Measurement | None:
    result = only(results, "completions")
    return None if result is None else perplexity_quotient(result, FRONT, TOPIC, VECTOR, results.seed)


def halves(values: Array) -> tuple[Array, Array]:
    """Texts (the last axis) on which the strength is chosen, and those that are scored."""
    return values[..., 0::2], values[..., 1::2]


def text_strength(result: Result, way: str) -> int:
    """The place of the coefficient at which texts about the topic are predicted best, on the half kept for that."""
    on, _ = halves(result[way][:, ON])
    return int(on.mean(axis=(0, 2)).argmin())


def text_units(values: Array) -> tuple[Array, str]:
    """Of [topic, text] the units that are resampled."""
    return (values.mean(axis=1), "topics") if len(values) >= ENOUGH else (values.mean(axis=0), "texts")


def text_ratio(side: int | None) -> Measure:
    """exp of the mean change of the loss on one side, the paper's ratio; or (None) the change off topic less on it."""

    def measure(results: Results) -> Measurement | None:
        result = only(results, "perplexity")
        if result is None:
            return None
        _, scored = halves(result[FRONT][:, :, text_strength(result, FRONT)])
        (on, over), (off, _) = (text_units(scored[:, each].astype(np.float64)) for each in (ON, OFF))
        if len(on) < 2:
            return None
        if side is None:
            return bootstrap(np.mean, off - on, over=over, seed=results.seed)
        return bootstrap(_ratio, (on, off)[side], over=over, seed=results.seed)

    return measure


def _ratio(changes: Array) -> float:
    return float(np.exp(changes.mean()))


def known(results: Results) -> Measurement | None:
    """The share of the questions that the unsteered model answers right."""
    result = only(results, "knowledge")
    if result is None or len(result["plain.right"]) < 2:
        return None
    return bootstrap(np.mean, result["plain.right"].astype(np.float64), over="questions", seed=results.seed)


def kept(results: Results) -> Measurement | None:
    """Of these, the share that is still answered right with a topic's vector, mean over topics."""
    result = only(results, "knowledge")
    if result is None:
        return None
    of = np.asarray(result[f"{FRONT}.right"][:, result["plain.right"] > 0], dtype=np.float64)
    if not of.size:
        return None
    units, over = (of.mean(axis=1), "topics") if len(of) >= ENOUGH else (of.mean(axis=0), "questions")
    return None if len(units) < 2 else bootstrap(np.mean, units, over=over, seed=results.seed)


CLAIMS: Mapping[str, Measure] = {
    "topic-share": success(FRONT, TOPIC, VECTOR),
    "topic-share-unsteered": success(FRONT, TOPIC, UNSTEERED),
    "topic-share-rises": success(FRONT, TOPIC, VECTOR, UNSTEERED),
    "behind-the-embedding": success(FRONT, TOPIC, LATER, UNSTEERED),
    "early-layers-best": success(FRONT, TOPIC, VECTOR, LAST_BLOCK),
    "random-vector-does-nothing": success(FRONT, TOPIC, RANDOM, UNSTEERED),
    "another-vector-does-nothing": success(FRONT, TOPIC, ANOTHER, UNSTEERED),
    "steered-text-fluent": fluent,
    "steered-text-grammatical": grammatical,
    "topic-against-prompt": success(FRONT, TOPIC, VECTOR, PREFIX),
    "everywhere-share-rises": success(EVERYWHERE, TOPIC, VECTOR, UNSTEERED),
    "everywhere-random-does-nothing": success(EVERYWHERE, TOPIC, RANDOM, UNSTEERED),
    "everywhere-another-does-nothing": success(EVERYWHERE, TOPIC, ANOTHER, UNSTEERED),
    "everywhere-over-last-layer": success(EVERYWHERE, TOPIC, VECTOR, LAST_LAYER),
    "everywhere-over-logit-bias": success(EVERYWHERE, TOPIC, VECTOR, BIAS_MEAN),
    "perplexity-falls-on-topic": text_ratio(ON),
    "perplexity-unchanged-elsewhere": text_ratio(OFF),
    "perplexity-falls-more-on-topic": text_ratio(None),
    "mood-success": success(FRONT, MOOD, VECTOR),
    "mood-over-unsteered": success(FRONT, MOOD, VECTOR, UNSTEERED),
    "mood-over-random": success(FRONT, MOOD, VECTOR, RANDOM),
    "mood-against-prompt": success(FRONT, MOOD, VECTOR, PREFIX),
    "mood-prompt-only": success(EVERYWHERE, MOOD, PROMPT_ONLY, UNSTEERED),
    "questions-known": known,
    "knowledge-kept": kept,
}

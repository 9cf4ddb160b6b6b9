"""What each claim of paper.toml measures, from stored results alone.

The window of a model is the stretch of training tokens in which its best prefix-matching score climbs from 10 % to 90 %
of its final value, interpolated in the logarithm of tokens. Heads are chosen on one half of the sequences of random
tokens and measured on the other; the in-context learning score is measured on text, so on other data than the window.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from reprise import Measurement, Result, Results, bootstrap
from reprise.experiment import Measure

Array = NDArray[np.floating]
ONE, TWO, THREE = "attn-only-1l", "attn-only-2l", "attn-only-3l"
SEEDS = ("", "-seed1", "-seed2")
TEXT, RANDOM = "windows of text", "sequences"


def model_of(results: Results, stage: str, name: str) -> Result | None:
    """The result of a shipped model; for the two-layer role, that of the one other model that was run instead."""
    of = results.of(stage)
    if name in of:
        return of[name]
    if name == TWO and len(of) == 1:
        (other,) = of.values()
        return other if other.facts["n_layers"] >= 2 and ONE not in of and THREE not in of else None
    return None


def window(result: Result, low: float = 0.1, high: float = 0.9) -> tuple[float, float] | None:
    """Natural logarithms of the tokens at which the best prefix-matching score passes both shares of its final value.

    None for a model without checkpoints, and for one whose score does not climb.
    """
    if len(result["tokens"]) < 3:
        return None
    best = result["prefix_matching"][1:].mean(axis=1).max(axis=(1, 2))
    log_tokens = np.log(result["tokens"][1:])
    start, end = crossing(log_tokens, best, low * best[-1]), crossing(log_tokens, best, high * best[-1])
    return (start, end) if end > start else None


def crossing(x: Array, y: Array, level: float) -> float:
    """Where y first passes the level, linearly interpolated; the first x if it starts above."""
    above = int(np.argmax(y >= level))
    if above == 0:
        return float(x[0])
    share = (level - y[above - 1]) / (y[above] - y[above - 1])
    return float(x[above - 1] + share * (x[above] - x[above - 1]))


def at(result: Result, name: str, log_tokens: float) -> Array:
    """A per-window quantity at a moment of training, interpolated in log tokens between checkpoints."""
    x = np.log(result["tokens"][1:])
    values = result[name][1:]
    after = int(np.clip(np.searchsorted(x, log_tokens), 1, len(x) - 1))
    share = np.clip((log_tokens - x[after - 1]) / (x[after] - x[after - 1]), 0, 1)
    return np.asarray((1 - share) * values[after - 1] + share * values[after])


def best_head(scores: Array) -> Array:
    """Per sequence of the second half, the score of the head that is best on the first half."""
    half = len(scores) // 2
    layer, head = np.unravel_index(scores[:half].mean(axis=0).argmax(), scores.shape[1:])
    return np.asarray(scores[half:, layer, head])


def prefix_matching(name: str) -> Measure:
    def measure(results: Results) -> Measurement | None:
        result = model_of(results, "repeated", name)
        if result is None:
            return None
        return bootstrap(np.mean, best_head(result["prefix_matching"]), over=RANDOM, seed=results.seed)

    return measure


def prefix_matching_of_worst_seed(results: Results) -> Measurement | None:
    """The lowest over the training seeds of the two-layer model's best head."""
    of = results.of("repeated")
    if any(TWO + seed not in of for seed in SEEDS):
        return None

    def lowest(*seeds: Array) -> float:
        return min(float(seed.mean()) for seed in seeds)

    samples = [best_head(of[TWO + seed]["prefix_matching"]) for seed in SEEDS]
    return bootstrap(lowest, *samples, over=f"{RANDOM}, {len(SEEDS)} training seeds", seed=results.seed)


def gain_on_repetition(name: str) -> Measure:
    def measure(results: Results) -> Measurement | None:
        result = model_of(results, "repeated", name)
        if result is None:
            return None
        length = int(result.facts["length"])
        second = result["loss"][:, -length:].mean(axis=1)
        first = result["loss"][:, :-length].mean(axis=1)
        return bootstrap(np.mean, first - second, over=RANDOM, seed=results.seed)

    return measure


def attention_pattern(results: Results) -> Measurement | None:
    result = model_of(results, "repeated", TWO)
    return None if result is None else bootstrap(np.mean, result["argmax_share"], over=RANDOM, seed=results.seed)


def score(results: Results) -> Measurement | None:
    result = model_of(results, "ablation", TWO)
    return None if result is None else bootstrap(np.mean, result["score"], over=TEXT, seed=results.seed)


def score_change(name: str, window_of: str) -> Measure:
    """Score at the end of a model's window minus score at its start, of this or another model."""

    def measure(results: Results) -> Measurement | None:
        result, timed = model_of(results, "dynamics", name), model_of(results, "dynamics", window_of)
        span = timed and window(timed)
        if result is None or not span or len(result["tokens"]) < 3:
            return None
        change = at(result, "score", span[1]) - at(result, "score", span[0])
        return bootstrap(np.mean, change, over=TEXT, seed=results.seed)

    return measure


def share_in_window(name: str) -> Measure:
    """Change of the score in the window over its change from the first kept checkpoint to the last."""

    def measure(results: Results) -> Measurement | None:
        result = model_of(results, "dynamics", name)
        span = result and window(result)
        if result is None or not span:
            return None
        inside = at(result, "score", span[1]) - at(result, "score", span[0])
        whole = result["score"][-1] - result["score"][1]
        return bootstrap(ratio_of_means, inside, whole, over=TEXT, seed=results.seed)

    return measure


def bump(name: str, window_of: str) -> Measure:
    """Fall of the loss per e-fold of tokens in the window, minus that in an equally long stretch before it."""

    def measure(results: Results) -> Measurement | None:
        result, timed = model_of(results, "dynamics", name), model_of(results, "dynamics", window_of)
        span = timed and window(timed)
        if result is None or not span or len(result["tokens"]) < 3:
            return None
        start, end = span
        length = end - start
        inside = at(result, "loss", start) - at(result, "loss", end)
        before = at(result, "loss", start - length) - at(result, "loss", start)
        return bootstrap(np.mean, (inside - before) / length, over=TEXT, seed=results.seed)

    return measure


def ablation_removes(results: Results) -> Measurement | None:
    result = model_of(results, "ablation", TWO)
    if result is None or not result.facts["induction_heads"]:
        return None
    lost = result["score"] - result["score_without_induction"]
    return bootstrap(ratio_of_means, lost, result["score"], over=TEXT, seed=results.seed)


def ablation_is_specific(results: Results) -> Measurement | None:
    result = model_of(results, "ablation", TWO)
    if result is None or not result.facts["induction_heads"]:
        return None
    excess = result["score_without_controls"].mean(axis=0) - result["score_without_induction"]
    return bootstrap(ratio_of_means, excess, result["score"], over=TEXT, seed=results.seed)


def ablation_appears_in_window(results: Results) -> Measurement | None:
    result, timed = model_of(results, "ablation_dynamics", TWO), model_of(results, "dynamics", TWO)
    span = timed and window(timed)
    if result is None or not span or not result.facts["induction_heads"]:
        return None
    effect = Result({"tokens": result["tokens"], "effect": result["score_without_induction"] - result["score"]})
    growth = at(effect, "effect", span[1]) - at(effect, "effect", span[0])
    return bootstrap(ratio_of_means, growth, effect["effect"][-1], over=TEXT, seed=results.seed)


def ratio_of_means(numerator: Array, denominator: Array) -> float:
    return float(numerator.mean() / denominator.mean())


CLAIMS: dict[str, Measure] = {
    "prefix-matching-two-layers": prefix_matching(TWO),
    "prefix-matching-three-layers": prefix_matching(THREE),
    "prefix-matching-one-layer": prefix_matching(ONE),
    "prefix-matching-every-seed": prefix_matching_of_worst_seed,
    "repeated-tokens-two-layers": gain_on_repetition(TWO),
    "repeated-tokens-three-layers": gain_on_repetition(THREE),
    "repeated-tokens-one-layer": gain_on_repetition(ONE),
    "attention-pattern": attention_pattern,
    "in-context-learning-score": score,
    "score-changes-in-window-two-layers": score_change(TWO, TWO),
    "score-changes-in-window-three-layers": score_change(THREE, THREE),
    "score-unchanged-one-layer": score_change(ONE, TWO),
    "one-window-two-layers": share_in_window(TWO),
    "one-window-three-layers": share_in_window(THREE),
    "bump-two-layers": bump(TWO, TWO),
    "bump-three-layers": bump(THREE, THREE),
    "no-bump-one-layer": bump(ONE, TWO),
    "ablation-removes-in-context-learning": ablation_removes,
    "ablation-is-specific": ablation_is_specific,
    "ablation-effect-appears-in-window": ablation_appears_in_window,
}

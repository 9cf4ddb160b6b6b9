"""What each claim of paper.toml measures, from stored results alone.

Claims about single models are resampled over what they average (tokens, windows, skip-trigrams, heads). Claims about
pairs of heads pool the induction heads of all training seeds of the two-layer model, resampled over those heads.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator

import numpy as np
from numpy.typing import NDArray

from reprise import Measurement, Result, Results, bootstrap
from reprise.experiment import Measure

Array = NDArray[np.floating]
COPYING = 0.5  # share of the eigenvalues' moduli by which a head counts as copying
HEADS, TEXT = "induction heads", "windows of text"


def results_of(results: Results, stage: str, n_layers: int | None = None) -> Iterator[tuple[str, Result]]:
    """Results of a stage that has something to say about a model, of `n_layers` layers or of two and more."""
    for name, result in sorted(results.of(stage).items()):
        depth = result.facts["n_layers"]
        if not result.facts.get("skipped") and (depth == n_layers if n_layers is not None else depth >= 2):
            yield name, result


def first(results: Results, stage: str, n_layers: int | None = None) -> Result | None:
    """The result of the first model that is not another seed of one."""
    return next((result for name, result in results_of(results, stage, n_layers) if "-seed" not in name), None)


def zero_layer_bigrams(results: Results) -> Measurement | None:
    result = first(results, "bigrams", 0)
    if result is None:
        return None
    model, frequency = (result["weight"] * result[name] for name in ("divergence", "divergence_of_frequency"))
    return bootstrap(
        lambda ours, scale: float(1 - ours.sum() / scale.sum()), model, frequency, over="tokens", seed=results.seed
    )


def copying_heads_one_layer(results: Results) -> Measurement | None:
    result = first(results, "copying", 1)
    if result is None:
        return None
    copies = (result["score"].flatten() > COPYING).astype(float)
    return bootstrap(np.mean, copies, over="heads", seed=results.seed)


def over_induction_heads(stage: str, value: Callable[[Result, int, int], float]) -> Measure:
    """The mean of one value for each induction head, by layer and head, of all models with at least two layers."""

    def measure(results: Results) -> Measurement | None:
        values = [
            value(result, int(layer), int(head))
            for _, result in results_of(results, stage)
            for layer, head in result.facts["induction"]
        ]
        if len(values) < 2:
            return None
        return bootstrap(np.mean, np.array(values), over=HEADS, seed=results.seed)

    return measure


def composed(kind: str) -> Callable[[Result, int, int], float]:
    """Composition of the best previous-token head with a later head, in multiples of chance."""

    def value(result: Result, layer: int, head: int) -> float:
        earlier_layer, earlier = result.facts["previous"]
        return float(result[kind][earlier_layer, earlier, layer, head] / result.facts["chance"])

    return value


def composes_first(result: Result, layer: int, head: int) -> float:
    earlier_layer, earlier = result.facts["previous"]
    return float(result["k"][earlier_layer, :, layer, head].argmax() == earlier)


def largest_part_is_k_composition(result: Result, layer: int, head: int) -> float:
    """Whether the mean score's largest pair of parts is (tokens, previous-token head)."""
    parts = result["parts"][result.facts["induction"].index([layer, head])]
    query, key = np.unravel_index(parts.argmax(), parts.shape)
    labels = result.facts["labels"]
    return float(labels[query] == "tokens" and labels[key] == previous_label(result))


def previous_head_tells_keys_apart(result: Result, layer: int, head: int) -> float:
    """Whether, summed over what queries read, the previous-token head raises the right key most over another one."""
    contrast = result["contrast"][result.facts["induction"].index([layer, head])].sum(axis=0)
    return float(result.facts["labels"][int(contrast.argmax())] == previous_label(result))


def previous_label(result: Result) -> str:
    return "L{}H{}".format(*result.facts["previous"])


def k_composition_diagonal(results: Results) -> Measurement | None:
    """The lowest over training seeds of the share of tokens on the diagonal."""
    measured = [
        bootstrap(np.mean, result["diagonal"][result.facts["previous"][1]], over="tokens", seed=results.seed)
        for _, result in results_of(results, "composition", 2)
    ]
    return min(measured, key=lambda one: one.estimate, default=None)


def induction_lost(into: str) -> Measure:
    """Share of the induction heads' score that is lost, of the main two-layer model, over sequences."""

    def measure(results: Results) -> Measurement | None:
        result = first(results, "paths", 2)
        if result is None:
            return None
        intact, without = (result[f"induction_{name}"].mean(axis=1) for name in ("intact", into))
        return bootstrap(
            lambda whole, less: float(1 - less.mean() / whole.mean()),
            intact,
            without,
            over="sequences",
            seed=results.seed,
        )

    return measure


def skip_trigrams_act(results: Results) -> Measurement | None:
    result = first(results, "skip_trigrams", 1)
    return None if result is None else bootstrap(np.mean, result["gain"], over="skip-trigrams", seed=results.seed)


def positional_kernel(results: Results) -> Measurement | None:
    result = first(results, "positions", 2)
    if result is None:
        return None
    peaks = result["kernel"][1:].argmax(axis=1) == np.arange(len(result["kernel"]) - 1)
    return bootstrap(np.mean, peaks.astype(float), over="positions", seed=results.seed)


def order_one(results: Results) -> Measurement | None:
    result = first(results, "terms", 2)
    if result is None:
        return None
    losses = result["by_order"]
    return bootstrap(np.mean, losses[:, 0] - losses[:, 1], over=TEXT, seed=results.seed)


def order_two(results: Results) -> Measurement | None:
    result = first(results, "terms", 2)
    if result is None:
        return None
    losses = result["by_order"]
    return bootstrap(
        lambda later, earlier: float(later.mean() / earlier.mean()),
        losses[:, 1] - losses[:, 2],
        losses[:, 0] - losses[:, 1],
        over=TEXT,
        seed=results.seed,
    )


CLAIMS: dict[str, Measure] = {
    "zero-layer-bigrams": zero_layer_bigrams,
    "copying-heads-one-layer": copying_heads_one_layer,
    "copying-heads-two-layers": over_induction_heads(
        "copying", lambda result, layer, head: float(result["score"][layer, head] > COPYING)
    ),
    "skip-trigrams-act": skip_trigrams_act,
    "k-composition": over_induction_heads("composition", composed("k")),
    "k-composition-first": over_induction_heads("composition", composes_first),
    "q-composition": over_induction_heads("composition", composed("q")),
    "v-composition": over_induction_heads("composition", composed("v")),
    "k-composition-diagonal": k_composition_diagonal,
    "score-parts": over_induction_heads("paths", largest_part_is_k_composition),
    "score-contrast": over_induction_heads("paths", previous_head_tells_keys_apart),
    "keys-carry-induction": induction_lost("k"),
    "queries-do-not": induction_lost("q"),
    "positional-kernel": positional_kernel,
    "order-one-terms": order_one,
    "order-two-terms": order_two,
}

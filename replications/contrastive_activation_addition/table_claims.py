"""What the claims measure that are numbers of the paper: of single models, told by their depth, and of its own data.

Rows of the paper's table are found by the names of behaviours; questions are taken as their file has them, in their own
order alone.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from replications.contrastive_activation_addition.measures import Array, effects, main, of_item, of_items
from replications.contrastive_activation_addition.setting import MINUS, PLUS

from reprise import Measurement, Result, Results, bootstrap
from reprise.experiment import Measure

LAYERS_7B, LAYERS_13B = 32, 40
PAPER_BEHAVIOURS = {"corrigibility": "corrigib", "refusal": "refusal", "sycophancy": "sycophan"}
ENDS = {"minus": MINUS, "unsteered": 0.0, "plus": PLUS}


def best_layer(n_layers: int) -> Measure:
    """The layer of the largest effect, behaviours resampled; of models of this depth."""

    def measure(results: Results) -> Measurement | None:
        result = main(results, "sweep")
        if result.facts["n_layers"] != n_layers or len(result.facts["behaviours"]) < 2:
            return None
        by_layer = [effects(result, layer) for layer in range(n_layers)]
        means = np.array([[of[name].mean() for of in by_layer] for name in result.facts["behaviours"]])
        return bootstrap(
            lambda sample: float(sample.mean(axis=0).argmax()), means, over="behaviours", seed=results.seed
        )

    return measure


def paper_number(behaviour: str, multiplier: float) -> Measure:
    """p(match) of the behaviour whose name begins so, of questions as their file has them, of models as deep as 13B."""
    return _of_paper(behaviour, lambda result, name: of_item(result, name, multiplier, in_order=True))


def paper_step(behaviour: str) -> Measure:
    """p(match) at +1 minus that without a vector, of the same."""
    return _of_paper(
        behaviour,
        lambda result, name: of_item(result, name, PLUS, in_order=True) - of_item(result, name, 0.0, in_order=True),
    )


def _of_paper(behaviour: str, of: Callable[[Result, str], Array]) -> Measure:
    def measure(results: Results) -> Measurement | None:
        result = main(results, "sweep")
        names = [name for name in result.facts["behaviours"] if name.startswith(behaviour)]
        if result.facts["n_layers"] != LAYERS_13B or not names:
            return None
        return of_items(results, of(result, names[0]), names[0])

    return measure


def paper_unrelated(end: float, which: Callable[[list[float]], float] | None = None) -> Measure:
    """The probability of the right answer, of models as deep as 13B: without a vector, or of the behaviour whose vector
    leaves the lowest or the highest."""

    def measure(results: Results) -> Measurement | None:
        result = main(results, "off_target")
        if result.facts["n_layers"] != LAYERS_13B or not result.facts["questions"]:
            return None
        rows = [result["plain"]]
        if which is not None:
            rows = [result[f"p/{name}"][0 if end == MINUS else 1] for name in result.facts["behaviours"]]
        means = [float(row.mean()) for row in rows]
        chosen = rows[means.index(means[0] if which is None else which(means))]
        return bootstrap(np.mean, np.asarray(chosen), over="questions", seed=results.seed)

    return measure


TABLE_CLAIMS: dict[str, Measure] = {
    "sycophancy-not-monotone": paper_step("sycophan"),
    **{
        f"{name}-{end}": paper_number(prefix, multiplier)
        for name, prefix in PAPER_BEHAVIOURS.items()
        for end, multiplier in ENDS.items()
    },
    "best-layer-7b": best_layer(LAYERS_7B),
    "best-layer-13b": best_layer(LAYERS_13B),
    "mmlu-unsteered": paper_unrelated(0.0),
    "mmlu-plus-lowest": paper_unrelated(PLUS, min),
    "mmlu-plus-highest": paper_unrelated(PLUS, max),
    "mmlu-minus-lowest": paper_unrelated(MINUS, min),
    "mmlu-minus-highest": paper_unrelated(MINUS, max),
}

"""What each claim of paper.toml measures, from stored results alone.

A measurement is a mean over training seeds with Student's 95 % interval, mean +- t_{n-1} s / sqrt(n): with three to
five seeds a bootstrap would be far too narrow. Two networks with the same seed see the same batches, so differences and
ratios between them are taken seed by seed; ratios are averaged as logarithms. A claim is measured if at least two seeds
of every network that it needs were run.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from itertools import combinations

import numpy as np
from numpy.typing import NDArray

from reprise import Measurement, Result, Results
from reprise.experiment import Measure

Array = NDArray[np.floating]
Quantity = Callable[[Result], float]
Network = tuple[str, int]  # kind and depth
PLAIN_20, PLAIN_56, PLAIN_110 = ("plain", 20), ("plain", 56), ("plain", 110)
RESIDUAL_20, RESIDUAL_56, RESIDUAL_110 = ("residual", 20), ("residual", 56), ("residual", 110)
COMPARED = (20, 32, 44, 56)
# Student's t, 0.975, by degrees of freedom from 1 on
STUDENT = (12.706, 4.303, 3.182, 2.776, 2.571, 2.447, 2.365, 2.306, 2.262)


def runs(results: Results, network: Network) -> dict[int, Result]:
    """The runs of a network by seed."""
    found = results.of("train").values()
    return {int(run.facts["seed"]): run for run in found if (run.facts["kind"], int(run.facts["depth"])) == network}


def over_seeds(values: list[float], *, logarithm: bool = False) -> Measurement | None:
    """Mean over seeds with Student's interval; geometric for `logarithm`. None with fewer than two seeds."""
    n = len(values)
    if n < 2:
        return None
    samples = np.log(values) if logarithm else np.array(values, dtype=float)
    reach = STUDENT[min(n - 2, len(STUDENT) - 1)] * float(samples.std(ddof=1)) / math.sqrt(n)
    ends = [float(samples.mean()) + shift for shift in (0.0, -reach, reach)]
    estimate, low, high = (math.exp(end) for end in ends) if logarithm else ends
    return Measurement(estimate=estimate, low=low, high=high, n=n, over="training seeds")


def compared(quantity: Quantity, first: Network | str, second: Network | str, *, ratio: bool = False) -> Measure:
    """A quantity of the first network minus (or over) that of the second with the same seed.

    A network given by its kind alone is the one of the smallest depth of the tier.
    """

    def measure(results: Results) -> Measurement | None:
        depth = 8 if results.tier == "tiny" else 20
        one, other = (runs(results, (each, depth) if isinstance(each, str) else each) for each in (first, second))
        pairs = [(quantity(one[seed]), quantity(other[seed])) for seed in sorted(one) if seed in other]
        values = [a / b if ratio else a - b for a, b in pairs]
        return over_seeds(values, logarithm=ratio)

    return measure


def alone(quantity: Quantity, network: Network, *, logarithm: bool = False) -> Measure:
    """A quantity of one network."""

    def measure(results: Results) -> Measurement | None:
        return over_seeds([quantity(run) for _, run in sorted(runs(results, network).items())], logarithm=logarithm)

    return measure


def training_error(run: Result) -> float:
    """At the end, in percent."""
    return 100 * float(run["training_error"][-1])


def test_error(run: Result) -> float:
    """At the end, in percent."""
    return 100 * float(run["test_error"][-1])


def early_loss(run: Result) -> float:
    """Mean training loss of the first tenth of the steps; a row holds the mean since the row before it."""
    steps = run["steps"]
    early = (steps > 0) & (steps <= max(steps[1], steps[-1] / 10))
    return float(run["training_loss"][early].mean())


def response(run: Result) -> float:
    """Mean over layers of the standard deviation of the response."""
    return float(run["responses"].mean())


def signals(run: Result) -> Array:
    """Norms of the gradient at the responses, [moment, layer]; above zero, so that a dead layer's has a logarithm."""
    return np.asarray(np.maximum(run["signal_gradients"], np.finfo(np.float32).tiny), dtype=np.float64)


def first_over_last(run: Result) -> float:
    """Norm of the gradient at the first layer over that at the last, geometric mean over the moments of training."""
    norms = signals(run)[1:]
    return float(np.exp(np.log(norms[:, 0] / norms[:, -1]).mean()))


def spread_at_start(run: Result) -> float:
    """Largest over smallest norm of the gradient among layers, with the initial weights."""
    norms = signals(run)[0]
    return float(norms.max() / norms.min())


def spread_in_training(run: Result) -> float:
    """The same, geometric mean over the moments of training."""
    norms = signals(run)[1:]
    return float(np.exp(np.log(norms.max(axis=1) / norms.min(axis=1)).mean()))


def rises_with_depth(results: Results) -> Measurement | None:
    """Share of the pairs of depths in which the deeper plain network has the higher training error; ties are a half."""
    by_depth = [runs(results, ("plain", depth)) for depth in COMPARED]
    shares = []
    for seed in sorted(set.intersection(*(set(found) for found in by_depth))):
        errors = [training_error(found[seed]) for found in by_depth]
        shares.append(float(np.mean([0.5 + 0.5 * np.sign(deep - flat) for flat, deep in combinations(errors, 2)])))
    return over_seeds(shares)


CLAIMS: dict[str, Measure] = {
    "plain-training-error-rises": compared(training_error, PLAIN_56, PLAIN_20),
    "plain-training-error-rises-steadily": rises_with_depth,
    "plain-test-error-rises": compared(test_error, PLAIN_56, PLAIN_20),
    "residual-training-error-does-not-rise": compared(training_error, RESIDUAL_56, RESIDUAL_20),
    "residual-gains-from-depth": compared(test_error, RESIDUAL_56, RESIDUAL_20),
    "residual-beats-plain": compared(test_error, PLAIN_56, RESIDUAL_56),
    "shallow-twins-comparable": compared(test_error, "plain", "residual"),
    "shallow-residual-converges-faster": compared(early_loss, "plain", "residual"),
    "plain-gradients-do-not-vanish": alone(first_over_last, PLAIN_56, logarithm=True),
    "plain-gradients-healthy-at-start": alone(spread_at_start, PLAIN_56, logarithm=True),
    "plain-gradients-healthy-in-training": alone(spread_in_training, PLAIN_56, logarithm=True),
    "responses-smaller-20": compared(response, RESIDUAL_20, PLAIN_20, ratio=True),
    "responses-smaller-56": compared(response, RESIDUAL_56, PLAIN_56, ratio=True),
    "responses-fall-with-depth": compared(response, RESIDUAL_56, RESIDUAL_20, ratio=True),
    "responses-fall-with-depth-110": compared(response, RESIDUAL_110, RESIDUAL_56, ratio=True),
    **{f"residual-{depth}-test-error": alone(test_error, ("residual", depth)) for depth in (*COMPARED, 110)},
    "plain-20-test-error": alone(test_error, PLAIN_20),
    "plain-56-test-error": alone(test_error, PLAIN_56),
    "plain-110-fails": alone(test_error, PLAIN_110),
}

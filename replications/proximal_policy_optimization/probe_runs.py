"""The five probe environments: what agents of several seeds have learnt from each, and its figure.

The environments, and what counts as solved, are the library's (`training.rl.probes`): values within 0.1 of the known
ones, and a probability of 0.95 for the right action where there is a choice.
"""

from __future__ import annotations

from collections.abc import Sequence

import matplotlib.pyplot as plt
import numpy as np
from matplotlib.figure import Figure
from replications.proximal_policy_optimization.drawing import BLUE, GREY, ORANGE

from reprise import Result, Results
from training.rl.probes import PROBES, VALUE_TOLERANCE, check_probe

NAMES = tuple(probe.name for probe in PROBES)


def solved(name: str, seeds: Sequence[int]) -> Result:
    """Train on a probe with every seed.

    Returns:
        `solved` [seed] (1 or 0), `expected` [observation], `values` [seed, observation], and `probabilities` [seed,
        observation] of the right action, empty where there is no choice.
    """
    (probe,) = (one for one in PROBES if one.name == name)
    found = [check_probe(probe, seed=seed) for seed in seeds]
    values = [[learnt for _, learnt in result.values.values()] for result in found]
    return Result(
        {
            "solved": np.array([result.solved for result in found], dtype=np.float32),
            "expected": np.array([expected for expected, _ in found[0].values.values()], dtype=np.float32),
            "values": np.array(values, dtype=np.float32),
            "probabilities": np.array([list(result.probabilities.values()) for result in found], dtype=np.float32),
        },
        {"observations": list(found[0].values)},
    )


def probe_figure(results: Results) -> Figure | None:
    """Probe environments: what was learnt, and what is right

    Left: the value of each observation that is met, bars the known one with the tolerance of 0.1, dots the seeds.
    Right: the probability of the right action, where there are two; the dashed line is 0.95.
    """
    of = results.of("probes")
    if not of:
        return None
    shown = [(name, of[name]) for name in NAMES if name in of]
    figure, (left, right) = plt.subplots(1, 2, figsize=(7.6, 3.6), width_ratios=(3, 1))
    ticks: list[str] = []
    for name, run in shown:
        observations = run.facts["observations"]
        middle = len(ticks) + (len(observations) - 1) / 2
        left.text(middle, -1.25, name, ha="center", fontsize=8, color=GREY)
        for column, observation in enumerate(observations):
            place = len(ticks)
            expected, values = float(run["expected"][column]), run["values"][:, column]
            left.bar(place, 2 * VALUE_TOLERANCE, 0.7, expected - VALUE_TOLERANCE, color=GREY, alpha=0.35)
            left.scatter(place + np.linspace(-0.2, 0.2, len(values)), values, s=18, color=BLUE, zorder=3)
            ticks.append(f"{observation:g}")
        left.axvline(len(ticks) - 0.5, color=GREY, linewidth=0.6)
    left.set_xticks(range(len(ticks)), ticks)
    left.set(title="Value of the observation", xlabel="observation", ylim=(-1.35, 1.3), xlim=(-0.5, len(ticks) - 0.5))
    left.grid(visible=False, axis="x")
    choices = [(name, run["probabilities"]) for name, run in shown if run["probabilities"].size]
    for place, (_, probabilities) in enumerate(choices):
        spread = np.linspace(-0.2, 0.2, probabilities.size)
        right.scatter(place + spread, probabilities.ravel(), s=18, color=ORANGE, zorder=3)
    right.axhline(0.95, color=GREY, linestyle="--", linewidth=1)
    right.set_xticks(range(len(choices)), [name for name, _ in choices])
    right.set(title="Right action", ylim=(0, 1.05), xlim=(-0.6, len(choices) - 0.4))
    return figure

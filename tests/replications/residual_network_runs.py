"""Stored results of residual and plain networks, made by hand: every quantity is known."""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np
from replications.residual_networks.setting import Unit

from reprise import Result, Results

STEPS = np.arange(0, 101, 5).astype(np.float32)


def run(
    unit: Unit,
    *,
    training_error: float = 0.0,
    test_error: float = 0.0,
    early_loss: float = 1.0,
    signals: Iterable[float] = (),
    responses: float = 1.0,
) -> Result:
    """A run of 100 steps with the given ends; the loss is `early_loss` until step 10 and far lower after.

    Args:
        signals: growth of the gradient from each layer to the one before it, at each of five moments.
    """
    layers = unit.depth - 1
    growth = list(signals) or [1.0] * 5
    place = np.arange(layers)[::-1]
    norms = np.stack([each**place for each in growth]).astype(np.float32)
    loss = np.where(STEPS <= 10, early_loss, 0.01)
    loss[0] = np.nan
    arrays = {
        "steps": STEPS,
        "training_loss": loss.astype(np.float32),
        "training_error": np.linspace(0.9, training_error, len(STEPS)).astype(np.float32),
        "test_error": np.linspace(0.9, test_error, len(STEPS)).astype(np.float32),
        "signal_gradients": norms,
        "weight_gradients": norms,
        "gradient_steps": np.array([0, 6, 25, 50, 100], np.float32),
        "responses": np.full(layers, responses, np.float32),
    }
    facts = {"kind": unit.kind, "depth": unit.depth, "seed": unit.seed, "steps": 100, "divide_at": [50, 75]}
    return Result(arrays, facts)


def results(*runs: Result, tier: str = "tiny") -> Results:
    return Results(tier, 0, {"train": {str(place): run for place, run in enumerate(runs)}})

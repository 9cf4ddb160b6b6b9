"""Learning-rate schedules: functions from the step number (0-based) to a multiplier of the base rate."""

from __future__ import annotations

from collections.abc import Callable

Schedule = Callable[[int], float]


def constant(step: int) -> float:
    """1 at every step."""
    return 1.0


def trapezoid(*, warmup: int, steps: int, decay_from: float, floor: float) -> Schedule:
    """Linear warm-up, a plateau at 1, then a linear decay to `floor` at the last step.

    Args:
        warmup: steps until the multiplier reaches 1.
        steps: length of the whole run.
        decay_from: share of the run after which the rate falls, in [0, 1].
        floor: multiplier at the last step.
    """
    start = decay_from * steps

    def multiplier(step: int) -> float:
        if step < warmup:
            return (step + 1) / warmup
        if step < start:
            return 1.0
        return 1.0 - (1.0 - floor) * (step - start) / max(1.0, steps - 1 - start)

    return multiplier

"""Mixed precision: products in 16 bits, weights and sums in 32, and the scale that float16 needs (Micikevicius 2018).

Small gradients vanish in float16, whose smallest number is 6e-8. So the loss is multiplied by a scale, and the gradient
divided by it. The scale halves where a gradient overflows, and that step leaves the weights alone; it doubles after
2,000 steps without. A gradient that overflows at a scale of 1 is an error. bfloat16 has float32's range and needs none.
"""

from __future__ import annotations

import contextlib
from contextlib import AbstractContextManager

import torch

from training.options import Precision

FIRST, LARGEST, SMALLEST = 2.0**16, 2.0**24, 1.0
STEPS_BEFORE_GROWTH = 2000
DTYPES = {"bfloat16": torch.bfloat16, "float16": torch.float16}


def autocast(precision: Precision, device: torch.device) -> AbstractContextManager[object]:
    """The context in which a loss is computed."""
    if precision == "float32":
        return contextlib.nullcontext()
    return torch.autocast(device.type, DTYPES[precision])


def after_overflow(scale: tuple[float, int]) -> tuple[float, int]:
    """The scale and its age after a step whose gradient overflowed."""
    return (max(scale[0] / 2, SMALLEST), 0)


def after_step(scale: tuple[float, int]) -> tuple[float, int]:
    """The scale and its age after a step whose gradient was finite."""
    value, age = scale[0], scale[1] + 1
    return (min(2 * value, LARGEST), 0) if age >= STEPS_BEFORE_GROWTH else (value, age)

"""Activation functions that transformers writes out, as the one kernel that torch has for them.

    NewGELU(x) = x/2 (1 + tanh(sqrt(2/pi) (x + 0.044715 x^3)))        (GPT-2, GPT-J, Phi)

transformers computes it in eight passes over memory, which is a sixth of the time of a sweep on a CPU; torch's
`gelu(x, approximate="tanh")` is the same function in one pass. They differ by rounding.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial

from torch import nn
from torch.nn import functional


@contextmanager
def fused_activations(network: nn.Module) -> Iterator[None]:
    """Inside, the network computes NewGELU by torch's kernel; afterwards it is as it was."""
    from transformers.activations import NewGELUActivation

    written_out = [
        module
        for module in network.modules()
        if isinstance(module, NewGELUActivation) and "forward" not in module.__dict__
    ]
    try:
        for module in written_out:
            module.__dict__["forward"] = partial(functional.gelu, approximate="tanh")
        yield
    finally:
        for module in written_out:
            module.__dict__.pop("forward", None)

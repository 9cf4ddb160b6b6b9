"""A tanh network and its gradient in numpy, for the small batches of PPO on a CPU.

    h_0 = x,   h_l = tanh(h_{l-1} W_l^T + b_l)          the last layer without tanh, where it is an output
    g_l = (g_{l+1} W_{l+1}) (1 - h_l^2),   dW_l = g_l^T h_{l-1},   db_l = sum g_l

A minibatch of 64 rows through two layers of 64 units is a dozen operations of a few microseconds each: 40 us forwards
and backwards, where PyTorch's autograd takes 115 (its tanh alone takes 9 us where numpy's takes 1).
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from jaxtyping import Float
from numpy import ndarray

from training.rl.blas import one_thread


def forward(x: Float[ndarray, "row input"], weights: Sequence[ndarray], *, ends_in_tanh: bool = False) -> list[ndarray]:
    """The output of each layer; `weights` are W_1, b_1, W_2, b_2 and so on."""
    outputs, last = [], len(weights) - 2
    with one_thread(len(x)):
        for i in range(0, len(weights), 2):
            x = x @ weights[i].T
            x += weights[i + 1]
            if i < last or ends_in_tanh:
                np.tanh(x, out=x)
            outputs.append(x)
    return outputs


def backward(
    gradient: Float[ndarray, "row output"],
    x: Float[ndarray, "row input"],
    outputs: Sequence[ndarray],
    weights: Sequence[ndarray],
) -> list[ndarray]:
    """Gradients of the weights, in their order, from that of the last output (which has no tanh).

    Args:
        outputs: of each layer, as `forward` returned them.
    """
    found: list[ndarray] = []
    with one_thread(len(x)):
        for i in range(len(outputs) - 1, -1, -1):
            found += [gradient.sum(axis=0), gradient.T @ (outputs[i - 1] if i else x)]
            if i:
                gradient = gradient @ weights[2 * i]
                gradient *= 1 - outputs[i - 1] * outputs[i - 1]
    return found[::-1]

"""Generalised advantage estimation (Schulman et al. 2016, equation 16), backwards through a rollout.

    delta_t = r_t + gamma V(s_{t+1}) - V(s_t)
    A_t     = delta_t + gamma lambda A_{t+1}  =  sum_k (gamma lambda)^k delta_{t+k}

The sum stops where the episode does; V(s_{t+1}) is 0 where the environment ended it. The target of the value function
is A_t + V(s_t), the lambda-return.
"""

from __future__ import annotations

import numpy as np
from jaxtyping import Bool, Float
from numpy import ndarray


def generalised_advantages(
    rewards: Float[ndarray, "step env"],
    values: Float[ndarray, "step env"],
    next_values: Float[ndarray, "step env"],
    terminated: Bool[ndarray, "step env"],
    ended: Bool[ndarray, "step env"],
    *,
    gamma: float,
    gae_lambda: float,
) -> Float[ndarray, "step env"]:
    """Advantages of a rollout.

    Args:
        values: of the observations that were acted on.
        next_values: of the observations that followed: at the end of an episode of its last one, not of the next
            episode's first.
        terminated: whether nothing follows the step, so that `next_values` count as 0.
        ended: whether the episode ended with the step, for whatever reason.
    """
    deltas = rewards + gamma * np.where(terminated, 0.0, next_values) - values
    decays = np.where(ended, 0.0, gamma * gae_lambda)
    advantages: ndarray = np.empty_like(deltas)
    following = np.zeros(deltas.shape[1])
    for t in range(len(deltas) - 1, -1, -1):
        following = deltas[t] + decays[t] * following
        advantages[t] = following
    return advantages

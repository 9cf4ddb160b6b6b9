"""The debug variables of PPO (Huang et al. 2022, core detail 12), for callbacks and logs."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Statistics:
    """Of the last rollout and the updates on it so far.

    Attributes:
        environment_steps: of all environments together, the rollout included.
        rollouts: collected so far.
        updates: minibatches that were used of this rollout.
        approx_kl: mean over those minibatches.
        clip_fraction: share of rows whose ratio was further from 1 than epsilon (0.2 with other objectives).
        explained_variance: 1 - Var(R - V_old) / Var(R) of the rollout.
        entropy: of pi_old, in nats.
        kl: mean of KL[pi_old, pi] over the rollout, in closed form, in nats.
        kl_coefficient: beta.
    """

    environment_steps: int
    rollouts: int
    updates: int
    approx_kl: float
    clip_fraction: float
    explained_variance: float
    entropy: float
    kl: float
    kl_coefficient: float

"""The surrogate objectives that Schulman et al. 2017 compare (section 6.1), as losses to be minimised.

With r = pi(a|s) / pi_old(a|s), the ratio of the action's probability to that when it was taken, and advantage A:

    no clipping or penalty   L = r A                                                              (equation 6)
    clipping                 L = min(r A, clip(r, 1 - epsilon, 1 + epsilon) A)                    (equation 7)
    KL penalty               L = r A - beta KL[pi_old, pi]                                        (equation 8)

With the adaptive penalty beta is halved after a policy update where d, the mean KL, was under d_target / 1.5, and
doubled where it was over 1.5 d_target (section 4). The value function's error is squared, and may be clipped as the
ratio is (`ppo2` of OpenAI's baselines; Huang et al. 2022, core detail 9).
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor


@dataclass(frozen=True)
class Clip:
    """Clipping; `epsilon` is 0.2 in the paper's best row, and 0.1 and 0.3 in the two beside it (Table 1)."""

    epsilon: float = 0.2


@dataclass(frozen=True)
class Unpenalised:
    """No clipping or penalty."""


@dataclass(frozen=True)
class FixedKL:
    """A penalty of `beta` a nat; the paper tried 0.3, 1, 3 and 10."""

    beta: float = 1.0


@dataclass(frozen=True)
class AdaptiveKL:
    """A penalty that keeps the policy's KL near `target` nats; the paper tried 0.003, 0.01 and 0.03, from beta = 1."""

    target: float = 0.01
    beta: float = 1.0


Objective = Clip | Unpenalised | FixedKL | AdaptiveKL


def policy_loss(
    objective: Objective,
    ratio: Float[Tensor, " batch"],
    advantages: Float[Tensor, " batch"],
    epsilon: float,
) -> Float[Tensor, ""]:
    """-L without the penalty, averaged over the batch; `epsilon` is that of the clipping, annealed or not."""
    gain = ratio * advantages
    if isinstance(objective, Clip):
        gain = torch.minimum(gain, ratio.clamp(1 - epsilon, 1 + epsilon) * advantages)
    return -gain.mean()


def first_coefficient(objective: Objective) -> float:
    """The penalty's coefficient beta before the first update; 0 where there is no penalty."""
    return objective.beta if isinstance(objective, FixedKL | AdaptiveKL) else 0.0


def next_coefficient(objective: Objective, beta: float, kl: float) -> float:
    """beta after a policy update that moved the policy by `kl` nats on average over the rollout."""
    if not isinstance(objective, AdaptiveKL):
        return beta
    if kl < objective.target / 1.5:
        return beta / 2
    return beta * 2 if kl > objective.target * 1.5 else beta


def value_loss(
    values: Float[Tensor, " batch"],
    targets: Float[Tensor, " batch"],
    old_values: Float[Tensor, " batch"],
    *,
    clip: float | None,
) -> Float[Tensor, ""]:
    """Half the mean squared error; with `clip` the worse of it and that of the value held within `clip` of the old."""
    errors = (values - targets).square()
    if clip is not None:
        held = old_values + (values - old_values).clamp(-clip, clip)
        errors = torch.maximum(errors, (held - targets).square())
    return 0.5 * errors.mean()

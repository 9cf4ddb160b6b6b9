"""Figure 2: the surrogate objectives along the line from the old policy to the first updated one.

    theta(a) = theta_old + a (theta_new - theta_old)
    L^CPI(a) = mean of r A,  L^CLIP(a) = mean of min(r A, clip(r, 0.8, 1.2) A),  r = pi_theta(a) / pi_old

theta_new is the policy after all epochs on the first rollout. The means are over that rollout; its advantages are
normalised as the update normalises them, in minibatches, here those of the first epoch.
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import torch
from replications.proximal_policy_optimization.setting import HOPPER
from replications.proximal_policy_optimization.training_runs import Array, prepared
from torch import Tensor, nn

from reprise import Result
from training import train
from training.rl import PPO, Settings
from training.rl.distributions import DiagonalGaussian
from training.rl.minibatches import Minibatch

PLACES = np.linspace(-0.25, 2.0, 46)
EPSILON = 0.2


class Recording:
    """A task that keeps the minibatches of the first epoch, which together are the rollout."""

    def __init__(self, task: PPO) -> None:
        self.task, self.feeds = task, task.feeds
        self.kept: list[Minibatch] = []

    def batch(self, step: int, /) -> Minibatch:
        batch = self.task.batch(step)
        if step < self.task.settings.minibatches:
            self.kept.append(batch)
        return batch

    def loss(self, parts: Mapping[str, nn.Module], batch: Minibatch, /) -> dict[str, Tensor]:
        return self.task.loss(parts, batch)


def along_the_update(settings: Settings, seed: int, environment: str = HOPPER) -> Result:
    """Both objectives and the mean KL divergence from the old policy, at places on the line."""
    recording = Recording(prepared(environment, settings, seed))
    policy = recording.task.modules["policy"]
    old = [weight.detach().clone() for weight in policy.parameters()]
    train(
        recording,
        recording.task.parts(),
        steps=settings.epochs * settings.minibatches,
        max_gradient_norm=settings.max_gradient_norm,
    )
    new = [weight.detach().clone() for weight in policy.parameters()]
    return Result({"along": PLACES.astype(np.float32), **objectives(policy, old, new, recording.kept)})


@torch.inference_mode()
def objectives(policy: nn.Module, old: list[Tensor], new: list[Tensor], kept: list[Minibatch]) -> dict[str, Array]:
    """L^CPI ("unclipped"), L^CLIP ("clipped") and "kl" at `PLACES`; leaves the policy at its new weights."""
    observations, actions, advantages = (
        torch.cat([getattr(batch, name) for batch in kept]) for name in ("observations", "actions", "advantages")
    )
    set_weights(policy, old)
    before = exactly(policy(observations))
    old_log_probs = before.log_prob(actions)
    found: dict[str, list[float]] = {"unclipped": [], "clipped": [], "kl": []}
    for place in PLACES:
        set_weights(policy, [a + place * (b - a) for a, b in zip(old, new, strict=True)])
        here = exactly(policy(observations))
        ratio = (here.log_prob(actions) - old_log_probs).exp()
        gain = ratio * advantages
        clipped = torch.minimum(gain, ratio.clamp(1 - EPSILON, 1 + EPSILON) * advantages)
        for name, values in (("unclipped", gain), ("clipped", clipped), ("kl", before.kl(here))):
            found[name].append(float(values.mean()))
    set_weights(policy, new)
    return {name: np.array(values, dtype=np.float32) for name, values in found.items()}


def exactly(distribution: DiagonalGaussian) -> DiagonalGaussian:
    """In float64: a divergence of 1e-4 is a small difference of large terms."""
    return distribution.like(distribution.flat().double())


def set_weights(policy: nn.Module, weights: list[Tensor]) -> None:
    for parameter, weight in zip(policy.parameters(), weights, strict=True):
        parameter.copy_(weight)

"""PPO's loss and its gradient written out, as one function of autograd: for separate tanh networks on a CPU.

    dL / d log pi(a) = -r A / B     where clipping does not hold (r A is no larger than the clipped term), else 0
    dL / d V         = c1 (V - R) / B, or where the clipped value errs more c1 (V_clip - R) / B, and 0 where it is held

with `training.rl.heads` from there to the policy's output and `training.rl.tanh_network` to the weights. An update of
64 rows is a hundred operations on small arrays; that is three times faster than as many nodes of autograd. `PPO.loss`
has the same loss in PyTorch, for every other case, and the tests compare values and gradients.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from numpy import ndarray
from torch import Tensor, nn

from training.rl import tanh_network
from training.rl.heads import CategoricalHead, GaussianHead, Head
from training.rl.minibatches import Minibatch
from training.rl.networks import Policy, Value
from training.rl.objectives import Clip, Objective
from training.rl.spaces import ActionSpace, Box, Discrete


@dataclass
class Rule:
    """What the loss consists of; `epsilon` is the range of the clipping, or of what counts as clipped.

    The forward pass leaves `approx_kl` and `clip_fraction` of the minibatch here.
    """

    objective: Objective
    epsilon: float
    clip_values: float | None
    value_coefficient: float
    entropy_coefficient: float
    kl_coefficient: float
    noted: dict[str, float] = field(default_factory=dict)


def applies(parts: Mapping[str, nn.Module], batch: Minibatch) -> bool:
    """Whether the written-out form covers these parts: float32 on the CPU, and nothing that must see inside."""
    policy, value = parts["policy"], parts["value"]
    if not isinstance(policy, Policy) or not isinstance(value, Value):
        return False
    if "encoder" in parts or batch.observations.ndim != 2:
        return False
    if isinstance(policy.action, Box) and policy.log_std is None:
        return False
    if torch.compiler.is_compiling() or torch.is_autocast_enabled("cpu"):
        return False
    return all(
        tensor.device.type == "cpu" and tensor.dtype == torch.float32
        for tensor in (batch.observations, *policy.network.weights(), *value.network.weights())
    )


def terms(parts: Mapping[str, nn.Module], batch: Minibatch, rule: Rule) -> dict[str, Tensor]:
    """The terms of the loss, weighted: "policy", "value", and where they count "entropy" and "kl"."""
    policy, value = parts["policy"], parts["value"]
    assert isinstance(policy, Policy)
    assert isinstance(value, Value)
    log_std = [] if policy.log_std is None else [policy.log_std]
    mine, theirs = policy.network.weights(), value.network.weights()
    arrays: Any = [tensor.numpy() for tensor in batch.numbers()]
    case = _Case(rule, policy.action, Minibatch(*arrays), len(log_std), len(mine))
    numbers: Tensor = _Loss.apply(case, *log_std, *mine, *theirs)  # type: ignore[no-untyped-call]
    return dict(zip(case.names(), numbers.unbind(), strict=True))


@dataclass
class _Case:
    """One minibatch on its way forwards and backwards; `batch` holds arrays."""

    rule: Rule
    action: ActionSpace
    batch: Any
    log_stds: int
    policy_weights: int

    def names(self) -> list[str]:
        rule = self.rule
        optional = [("entropy", rule.entropy_coefficient), ("kl", rule.kl_coefficient)]
        return ["policy", "value", *(name for name, coefficient in optional if coefficient)]

    def forward(self, weights: list[ndarray]) -> list[float]:
        """The terms, as `names` has them."""
        rule, batch = self.rule, self.batch
        self.mine = weights[self.log_stds : self.log_stds + self.policy_weights]
        self.theirs = weights[self.log_stds + self.policy_weights :]
        self.policy_layers = tanh_network.forward(batch.observations, self.mine)
        self.value_layers = tanh_network.forward(batch.observations, self.theirs)
        self.head = self._head(weights)
        self.values = self.value_layers[-1][:, 0]
        log_ratio = self.head.log_prob(batch.actions) - batch.log_probs
        ratio = np.exp(log_ratio)
        self.gain = ratio * batch.advantages
        least = self.gain
        if isinstance(rule.objective, Clip):
            least = np.minimum(least, np.clip(ratio, 1 - rule.epsilon, 1 + rule.epsilon) * batch.advantages)
        self.free = self.gain <= least
        moved = ratio - 1
        rule.noted["approx_kl"] = float((moved - log_ratio).mean())
        rule.noted["clip_fraction"] = float((np.abs(moved) > rule.epsilon).mean())
        self.errors = self._errors()
        found = [-float(least.mean()), 0.5 * rule.value_coefficient * float(np.square(self.errors).mean())]
        if rule.entropy_coefficient:
            found.append(-rule.entropy_coefficient * self.head.entropy())
        if rule.kl_coefficient:
            found.append(rule.kl_coefficient * self.head.kl(batch.old))
        return found

    def policy_gradients(self, by_term: dict[str, float]) -> list[ndarray]:
        """Of log_std, where there is one, and of the policy's weights."""
        rule, batch = self.rule, self.batch
        log_prob = self.gain * self.free * np.float32(-by_term["policy"] / len(self.gain))
        entropy = -rule.entropy_coefficient * by_term.get("entropy", 0.0)
        kl = rule.kl_coefficient * by_term.get("kl", 0.0)
        output, log_std = self.head.gradient(log_prob, entropy, kl, batch.old)
        weights = tanh_network.backward(output, batch.observations, self.policy_layers, self.mine)
        return weights if log_std is None else [log_std, *weights]

    def value_gradients(self, by_term: dict[str, float]) -> list[ndarray]:
        """Of the value function's weights."""
        share = np.float32(self.rule.value_coefficient * by_term["value"] / len(self.values))
        gradient = (self.errors * self.moves * share)[:, None]
        return tanh_network.backward(gradient, self.batch.observations, self.value_layers, self.theirs)

    def _head(self, weights: list[ndarray]) -> Head:
        output = self.policy_layers[-1]
        if isinstance(self.action, Box):
            return GaussianHead(output, weights[0])
        return CategoricalHead(output, (self.action.n,) if isinstance(self.action, Discrete) else self.action.sizes)

    def _errors(self) -> ndarray:
        """The error that counts, of the value or of the clipped one; `moves` says where it follows the value."""
        clip, batch = self.rule.clip_values, self.batch
        errors: ndarray = self.values - batch.targets
        self.moves: ndarray = np.ones_like(errors)
        if clip is None:
            return errors
        change = self.values - batch.values
        held = batch.values + np.clip(change, -clip, clip) - batch.targets
        worse = np.square(held) > np.square(errors)
        self.moves[worse & (np.abs(change) > clip)] = 0.0
        return np.where(worse, held, errors)


class _Loss(torch.autograd.Function):
    """The terms as a vector, differentiable once by the weights."""

    @staticmethod
    def forward(ctx: Any, case: _Case, *weights: Tensor) -> Tensor:
        ctx.case = case
        return torch.tensor(case.forward([weight.detach().numpy() for weight in weights]))

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, ...]:
        case: _Case = ctx.case
        by_term = dict(zip(case.names(), gradient.tolist(), strict=True))
        policy = case.log_stds + case.policy_weights
        needed = ctx.needs_input_grad[1:]
        nothing: list[ndarray | None] = [None] * policy
        found = case.policy_gradients(by_term) if any(needed[:policy]) else nothing
        theirs = case.value_gradients(by_term) if any(needed[policy:]) else [None] * len(needed[policy:])
        return (None, *(None if array is None else torch.from_numpy(array) for array in (*found, *theirs)))

"""From a rollout to the rows that updates are made of: values, log-probabilities and advantages, in random order."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import torch
from jaxtyping import Float, Int, Shaped
from numpy import ndarray
from torch import Tensor, nn

from training.rl.advantages import generalised_advantages
from training.rl.distributions import Distribution
from training.rl.memory import Memory, Sequences, encoded
from training.rl.rollouts import Rollout
from training.rl.settings import Settings

_EPSILON = 1e-8  # of the normalised advantages, as in OpenAI's baselines


class Minibatch(NamedTuple):
    """Rows of a rollout; `old` are the numbers that make pi_old's distributions (none where no penalty needs them).

    Observations are float32, and bytes where the rows are those of a whole rollout of images. With a memory rows are
    whole sequences, one environment after the other, and `sequences` has what rebuilds the states inside them.
    """

    observations: Shaped[Tensor, " row *observation"]
    actions: Float[Tensor, "row column"]
    log_probs: Float[Tensor, " row"]
    advantages: Float[Tensor, " row"]
    targets: Float[Tensor, " row"]
    values: Float[Tensor, " row"]
    old: Float[Tensor, "row number"]
    sequences: Sequences | None = None

    def numbers(self) -> list[Tensor]:
        """All that has one entry a row."""
        return [*self[:-1]]


@dataclass(frozen=True)
class Prepared:
    """All rows of a rollout, the share of the targets' variance that the values explain, and the policy's entropy."""

    rows: Minibatch
    explained_variance: float
    entropy: float


def prepare(rollout: Rollout, modules: Mapping[str, nn.Module], settings: Settings, device: torch.device) -> Prepared:
    """Evaluate the networks on a whole rollout at once, and estimate advantages and targets."""
    steps, n = rollout.rewards.shape
    shape = rollout.observations.shape[2:]
    seen = np.concatenate([rollout.observations.reshape(-1, *shape), rollout.cut_observations])
    observations = torch.from_numpy(seen).to(device)
    actions = torch.from_numpy(rollout.actions.reshape(steps * n, -1)).to(device)
    with torch.no_grad():
        found = encoded(modules, observations)
        memory = modules.get("memory")
        if isinstance(memory, Memory):
            found = _remembered(memory, found, rollout)
        all_values: Tensor = modules["value"](found)
        policy: Distribution = modules["policy"](found[: steps * n])
        log_probs, entropy, old = policy.log_prob(actions), float(policy.entropy().mean()), policy.flat()
    numbers = all_values.cpu().numpy().astype(np.float64)
    table, cut_values = numbers[: (steps + 1) * n].reshape(steps + 1, n), numbers[(steps + 1) * n :]
    advantages, targets = _advantages(rollout, table, cut_values, settings)
    spread = targets.var()
    rows = Minibatch(
        observations[: steps * n],
        actions,
        log_probs,
        _column(advantages, device),
        _column(targets, device),
        all_values[: steps * n],
        old,
    )
    if memory is not None:
        rows = _by_environment(rows, rollout)
    explained = float("nan") if spread == 0 else float(1 - (targets - table[:-1]).var() / spread)
    return Prepared(rows, explained, entropy)


def _remembered(memory: Memory, features: Float[Tensor, "row feature"], rollout: Rollout) -> Float[Tensor, "row unit"]:
    """Rows in the order of `prepare`, through the memory; what cut an episode off goes on from the states there."""
    (steps, n), device = rollout.observations.shape[:2], features.device
    table = features[: steps * n].view(steps, n, -1).transpose(0, 1)
    units = memory(table, torch.from_numpy(rollout.states).to(device), torch.from_numpy(rollout.begins.T).to(device))
    behind, _ = memory.step(features[steps * n :], torch.from_numpy(rollout.cut_states).to(device))
    return torch.cat([units.transpose(0, 1).flatten(0, 1), behind])


def _by_environment(rows: Minibatch, rollout: Rollout) -> Minibatch:
    """The rows as sequences, one environment after the other, with the states before each."""
    (steps, n), device = rollout.ended.shape, rows.values.device
    order = torch.arange(steps * n, device=device).view(steps, n).T.flatten()
    states, begins = torch.from_numpy(rollout.states), torch.from_numpy(rollout.begins[:-1].T)
    sequences = Sequences(states.to(device), begins.to(device).contiguous())
    return Minibatch._make([*(tensor[order] for tensor in rows.numbers()), sequences])


def _advantages(
    rollout: Rollout, values: Float[ndarray, "step_and_1 env"], cut_values: Float[ndarray, " cut"], settings: Settings
) -> tuple[ndarray, ndarray]:
    following, terminated = values[1:].copy(), rollout.ended
    if settings.truncation == "bootstrap":
        following[rollout.cut_at[:, 0], rollout.cut_at[:, 1]] = cut_values
        terminated = rollout.terminated
    advantages = generalised_advantages(
        rollout.rewards,
        values[:-1],
        following,
        terminated,
        rollout.ended,
        gamma=settings.gamma,
        gae_lambda=settings.gae_lambda,
    )
    return advantages, advantages + values[:-1]


def _column(values: Float[ndarray, "step env"], device: torch.device) -> Float[Tensor, " row"]:
    return torch.from_numpy(values.reshape(-1).astype(np.float32)).to(device)


def cut(
    rows: Minibatch, order: Int[Tensor, " unit"], count: int, *, normalise: bool, with_old: bool
) -> list[Minibatch]:
    """The rows in the given order as `count` minibatches, each with its advantages at mean 0 and deviation 1.

    Args:
        order: of the rows, or where they are sequences of the environments, whose steps stay together and in order.
    """
    kept = rows if with_old else rows._replace(old=rows.old[:, :0])
    order = order.to(rows.values.device)
    sequences: list[Sequences | None] = [None] * count
    if rows.sequences is not None:
        states, begins = (tensor[order].chunk(count) for tensor in rows.sequences)
        sequences = [Sequences(*pair) for pair in zip(states, begins, strict=True)]
        steps = rows.sequences.begins.shape[1]
        order = (order[:, None] * steps + torch.arange(steps, device=order.device)).flatten()
    pieces = [tensor[order].view(count, len(order) // count, *tensor.shape[1:]) for tensor in kept.numbers()]
    if normalise and pieces[3].shape[1] > 1:
        advantages = pieces[3]
        centred = advantages - advantages.mean(dim=1, keepdim=True)
        pieces[3] = centred / (advantages.std(dim=1, keepdim=True) + _EPSILON)
    cut_pieces = zip(*(piece.unbind(0) for piece in pieces), strict=True)
    return [Minibatch._make([*tensors, which]) for tensors, which in zip(cut_pieces, sequences, strict=True)]

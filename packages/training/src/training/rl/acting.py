"""Choosing actions while a rollout is collected: the policy's forward pass and a draw, for few observations at a time.

A tanh network of 64 units on four observations is ten small array operations, which numpy does in about 10 us; the
same through modules and `torch.distributions` takes 150. The weights are read where they are, so that an update is
seen at once. Networks that are not `MLP`s on the CPU in float32 go through torch.

Draws: a categorical action is the number of cumulated probabilities that a uniform number u exceeds; a Gaussian one is
mean + exp(log_std) times a normal number. u and the normal numbers come from the caller, a rollout's worth at once.

With a memory an actor carries the state of each environment from one observation to the next; whoever steps the
environments says where episodes begin.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping

import numpy as np
import torch
from jaxtyping import Bool, Float, Shaped
from numpy import ndarray
from torch import Tensor, nn

from training.rl import tanh_network
from training.rl.memory import Memory
from training.rl.networks import MLP, Policy
from training.rl.spaces import ActionSpace, Box, Discrete

Forward = Callable[[ndarray], ndarray]


class Actor:
    """Chooses actions with the policy (and encoder, and memory) among an agent's modules.

    The networks' outputs are logits for discrete actions, and for a Box the mean, or mean and log_std side by side.
    `states` are those of the memory behind the last observations; without one they have no columns.
    """

    def __init__(self, modules: Mapping[str, nn.Module], action: ActionSpace) -> None:
        policy = modules["policy"]
        assert isinstance(policy, Policy)
        self.action = action
        self._log_std = policy.log_std
        stack, memory = [modules["encoder"]] if "encoder" in modules else [], modules.get("memory")
        self._columns = 0
        self._forward = forward_pass([*stack, policy.network])
        if isinstance(memory, Memory):
            self._columns = 2 * memory.units
            self._forward = self._remembering(forward_pass(stack), memory, forward_pass([policy.network]))
        self.states: Float[ndarray, "env state"] = np.zeros((0, self._columns), dtype=np.float32)

    def begin(self, n: int) -> None:
        """Forget all: `n` environments are at the first observation of an episode."""
        self.states = np.zeros((n, self._columns), dtype=np.float32)

    def restart(self, ended: Bool[ndarray, " env"]) -> None:
        """Forget what was in episodes that have ended."""
        self.states[ended] = 0.0

    def noise(self, steps: int, n: int, rng: np.random.Generator) -> Float[ndarray, "step env column"]:
        """The random numbers of a rollout: uniform for discrete actions, normal for a Box."""
        shape = (steps, n, self.action.columns)
        return rng.standard_normal(shape) if isinstance(self.action, Box) else rng.random(shape)

    def sample(
        self, observations: Shaped[ndarray, " env *observation"], noise: Float[ndarray, "env column"]
    ) -> Shaped[ndarray, " env *columns"]:
        """Drawn actions: (env,) integers for Discrete, (env, set) integers, or (env, column) float32 for a Box."""
        output = self._forward(observations)
        if isinstance(self.action, Box):
            mean, std = self._gaussian(output)
            return np.asarray(mean + std * noise, dtype=np.float32)
        if isinstance(self.action, Discrete):
            return _draw(output, noise)
        cuts = np.cumsum(self.action.sizes)[:-1]
        parts = np.split(output, cuts, axis=1)
        return np.stack([_draw(part, noise[:, i : i + 1]) for i, part in enumerate(parts)], axis=1)

    def best(self, observations: Shaped[ndarray, " env *observation"]) -> Shaped[ndarray, " env *columns"]:
        """The most probable actions (for a Box the mean), in the same form."""
        output = self._forward(observations)
        if isinstance(self.action, Box):
            return self._gaussian(output)[0].astype(np.float32)
        if isinstance(self.action, Discrete):
            return np.asarray(output.argmax(axis=1))
        parts = np.split(output, np.cumsum(self.action.sizes)[:-1], axis=1)
        return np.stack([part.argmax(axis=1) for part in parts], axis=1)

    def _remembering(self, before: Forward, memory: Memory, behind: Forward) -> Forward:
        weight = next(memory.parameters())

        def through_memory(x: ndarray) -> ndarray:
            with torch.inference_mode():
                inputs, states = (torch.from_numpy(a).to(weight.device, weight.dtype) for a in (before(x), self.states))
                units, states = memory.step(inputs, states)
                self.states = states.float().cpu().numpy()
                return behind(units.float().cpu().numpy())

        return through_memory

    def _gaussian(self, output: ndarray) -> tuple[ndarray, ndarray]:
        if self._log_std is not None:
            return output, np.exp(self._log_std.detach().cpu().numpy())
        mean, log_std = np.split(output, 2, axis=1)
        return mean, np.exp(log_std)


def _draw(logits: Float[ndarray, "env action"], uniform: Float[ndarray, "env 1"]) -> ndarray:
    cumulated = np.exp(logits - logits.max(axis=1, keepdims=True)).cumsum(axis=1)
    drawn: ndarray = (uniform * cumulated[:, -1:] >= cumulated[:, :-1]).sum(axis=1)
    return drawn


def forward_pass(stack: list[nn.Module]) -> Forward:
    """The networks one after the other, as a function of arrays that follows their weights."""
    networks = [network for network in stack if isinstance(network, MLP)]
    if len(networks) == len(stack) and all(_plain(network) for network in networks):
        return lambda x: _through(networks, x)
    first = next(stack[0].parameters())

    def through_torch(x: ndarray) -> ndarray:
        with torch.inference_mode():
            hidden: Tensor = torch.from_numpy(x).to(first.device, first.dtype)
            for network in stack:
                hidden = network(hidden)
            return hidden.float().cpu().numpy()

    return through_torch


def _plain(network: MLP) -> bool:
    return all(weight.device.type == "cpu" and weight.dtype == torch.float32 for weight in network.weights())


def _through(networks: list[MLP], x: ndarray) -> ndarray:
    for network in networks:
        weights = [weight.detach().numpy() for weight in network.weights()]
        x = tanh_network.forward(x, weights, ends_in_tanh=network.ends_in_tanh)[-1]
    return x

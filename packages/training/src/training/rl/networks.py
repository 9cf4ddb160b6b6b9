"""The parts of an agent: a policy, a value function, and an encoder that they may share.

Each is a tanh network of two layers of 64 units (Schulman et al. 2017, section 6.1); with a shared encoder the hidden
layers are the encoder's and the other two are linear maps of what it gives. Weights are orthogonal with gain sqrt(2) in
hidden layers, 0.01 in the policy's last (so that all actions are about as likely at first) and 1 in the value
function's; biases are 0 (Huang et al. 2022, core detail 2). For images `training.rl.convolutional` is the encoder.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence

import torch
from jaxtyping import Float
from torch import Tensor, nn

from training.rl.distributions import Categorical, DiagonalGaussian, Distribution, MultiCategorical
from training.rl.spaces import ActionSpace, Box, Discrete, MultiDiscrete

HIDDEN_GAIN, POLICY_GAIN, VALUE_GAIN = math.sqrt(2), 0.01, 1.0


class MLP(nn.Module):
    """Linear layers with tanh between them, and behind the last where `last_gain` is None.

    Args:
        sizes: of the input, of each hidden layer, and of the output.
        last_gain: of the last layer's orthogonal weights; None makes it a hidden layer like the others.
        orthogonal: False leaves PyTorch's own initialisation.
    """

    def __init__(
        self, sizes: Sequence[int], *, last_gain: float | None, orthogonal: bool, generator: torch.Generator
    ) -> None:
        super().__init__()
        pairs = list(itertools.pairwise(sizes))
        self._layers = [nn.Linear(size, next_size) for size, next_size in pairs]
        self.layers = nn.ModuleList(self._layers)
        self.ends_in_tanh = last_gain is None
        for i, layer in enumerate(self._layers):
            gain = HIDDEN_GAIN if last_gain is None or i < len(pairs) - 1 else last_gain
            initialise(layer, gain if orthogonal else None, generator)

    def forward(self, x: Float[Tensor, "batch input"]) -> Float[Tensor, "batch output"]:
        """The last layer's output."""
        last = len(self.layers) - 1
        for i, layer in enumerate(self.layers):
            x = layer(x)
            if i < last or self.ends_in_tanh:
                x = torch.tanh(x)
        return x

    def weights(self) -> list[Tensor]:
        """Weight and bias of each layer in turn."""
        return [tensor for layer in self._layers for tensor in (layer.weight, layer.bias)]


def initialise(layer: nn.Linear | nn.Conv2d, gain: float | None, generator: torch.Generator) -> None:
    """Orthogonal weights with that gain and biases 0; where it is None, PyTorch's own initialisation."""
    assert layer.bias is not None
    if gain is None:  # PyTorch's default, from our generator
        bound = 1 / math.sqrt(layer.weight[0].numel())
        nn.init.uniform_(layer.weight, -bound, bound, generator=generator)
        nn.init.uniform_(layer.bias, -bound, bound, generator=generator)
    else:
        nn.init.orthogonal_(layer.weight, gain, generator=generator)
        nn.init.zeros_(layer.bias)


class Policy(nn.Module):
    """Observations (or an encoder's features) to a distribution over actions.

    For a Box the standard deviation is a parameter of its own, the same for all observations (`log_std`, from 0), or
    where `state_independent_log_std` is False a second output of the network.
    """

    def __init__(
        self,
        sizes: Sequence[int],
        action: ActionSpace,
        *,
        state_independent_log_std: bool = True,
        orthogonal: bool = True,
        generator: torch.Generator,
    ) -> None:
        super().__init__()
        self.action = action
        outputs = action_numbers(action) * (1 if state_independent_log_std or not isinstance(action, Box) else 2)
        self.network = MLP([*sizes, outputs], last_gain=POLICY_GAIN, orthogonal=orthogonal, generator=generator)
        free = isinstance(action, Box) and state_independent_log_std
        self.log_std = nn.Parameter(torch.zeros(1, outputs)) if free else None

    def forward(self, observations: Float[Tensor, "batch input"]) -> Distribution:
        """The distribution for each observation."""
        output: Tensor = self.network(observations)
        if isinstance(self.action, Box):
            if self.log_std is not None:
                return DiagonalGaussian(output, self.log_std)
            mean, log_std = output.chunk(2, dim=1)
            return DiagonalGaussian(mean, log_std)
        if isinstance(self.action, Discrete):
            return Categorical(output.log_softmax(1))
        parts = torch.split(output, list(self.action.sizes), dim=1)
        return MultiCategorical(tuple(Categorical(part.log_softmax(1)) for part in parts))


class Value(nn.Module):
    """Observations (or an encoder's features) to the return that the policy will get from them."""

    def __init__(self, sizes: Sequence[int], *, orthogonal: bool = True, generator: torch.Generator) -> None:
        super().__init__()
        self.network = MLP([*sizes, 1], last_gain=VALUE_GAIN, orthogonal=orthogonal, generator=generator)

    def forward(self, observations: Float[Tensor, "batch input"]) -> Float[Tensor, " batch"]:
        """The value of each observation."""
        output: Tensor = self.network(observations)
        return output.squeeze(1)


def action_numbers(action: ActionSpace) -> int:
    """Numbers that a network gives for an action: its logits, or its mean."""
    if isinstance(action, Discrete):
        return action.n
    return sum(action.sizes) if isinstance(action, MultiDiscrete) else action.columns

"""Memory: an LSTM between the encoder and the heads, and how it is run over sequences that hold several episodes.

    i, f, g, o = W x_t + U h_{t-1} + b,    c_t = sigmoid(f) c_{t-1} + sigmoid(i) tanh(g),    h_t = sigmoid(o) tanh(c_t)

Where an observation begins an episode, h and c are 0 before it, also within a sequence (Hochreiter and Schmidhuber
1997; Huang et al. 2022, LSTM details 1 to 3: weights orthogonal with gain 1, biases 0, states that begin at 0 and are
reset with the episode). A sequence is cut where one of its rows begins an episode, and all that it falls into goes
through PyTorch's LSTM at once, as a batch of shorter sequences: the same numbers as one call for every step.

A state is h and c of one environment side by side, so that it is one row.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import NamedTuple

import numpy as np
import torch
from jaxtyping import Bool, Float, Shaped
from torch import Tensor, nn
from torch.nn.utils.rnn import PackedSequence

GAIN = 1.0
_IMAGES = 512  # encoded at once while they are still bytes


class Memory(nn.Module):
    """Features of each step to features that depend on the steps before.

    Args:
        orthogonal: False leaves PyTorch's own initialisation.
    """

    def __init__(self, inputs: int, units: int, *, orthogonal: bool = True, generator: torch.Generator) -> None:
        super().__init__()
        self.units = units
        self.lstm = nn.LSTM(inputs, units)
        bound = 1 / math.sqrt(units)
        for parameter in self.lstm.parameters():
            if not orthogonal:  # PyTorch's default, from our generator
                nn.init.uniform_(parameter, -bound, bound, generator=generator)
            elif parameter.ndim == 2:
                nn.init.orthogonal_(parameter, GAIN, generator=generator)
            else:
                nn.init.zeros_(parameter)

    def forward(
        self, x: Float[Tensor, "env step input"], states: Float[Tensor, "env state"], begins: Bool[Tensor, "env step"]
    ) -> Float[Tensor, "env step units"]:
        """The units h of each step.

        Args:
            states: before the first step.
            begins: whether a step's observation is the first of an episode.
        """
        cut = begins.cpu().numpy().copy()
        cut[:, 0] = True
        first = np.flatnonzero(cut)  # row of each piece's first step, rows being those of one environment after another
        lengths = np.diff(first, append=cut.size)
        by_length = np.argsort(-lengths, kind="stable")  # as PackedSequence has them: step by step, longest piece first
        step = np.arange(cut.size) - np.repeat(first, lengths)
        order = np.lexsort((np.repeat(np.argsort(by_length), lengths), step))
        rows, places, heads = (torch.from_numpy(a).to(x.device) for a in (order, np.argsort(order), first[by_length]))
        before = states[heads // begins.shape[1]] * ~begins.flatten()[heads][:, None]
        pieces = PackedSequence(x.flatten(0, 1)[rows], torch.from_numpy(np.bincount(step)))
        output, _ = self.lstm(pieces, _apart(before.to(x.dtype)))
        units: Tensor = output.data[places].view(*begins.shape, -1)
        return units

    def step(
        self, x: Float[Tensor, "env input"], states: Float[Tensor, "env state"]
    ) -> tuple[Float[Tensor, "env units"], Float[Tensor, "env state"]]:
        """The units of one step, and the states behind it."""
        output, after = self.lstm(x[None], _apart(states.to(x.dtype)))
        return output[0], torch.cat(after, dim=2)[0]

    def train(self, mode: bool = True) -> Memory:
        """As ever; only that the LSTM, which is the same in both modes, is differentiable on a GPU in one of them."""
        super().train(mode)
        self.lstm.train()
        return self


def _apart(states: Float[Tensor, "env state"]) -> tuple[Tensor, ...]:
    """h and c, as PyTorch has them."""
    return tuple(half.contiguous() for half in states[None].chunk(2, dim=2))


class Sequences(NamedTuple):
    """What rows need that are whole sequences, one environment after the other: states before each, and beginnings."""

    states: Float[Tensor, "env state"]
    begins: Bool[Tensor, "env step"]


def encoded(
    modules: Mapping[str, nn.Module], observations: Shaped[Tensor, " row *observation"]
) -> Float[Tensor, "row feature"]:
    """Observations as numbers, through the encoder where there is one.

    Images that are still bytes go through in pieces, so that a whole rollout of them is never held as numbers.
    """
    if "encoder" not in modules:
        return observations.float()
    if observations.dtype == torch.uint8:
        return torch.cat([modules["encoder"](piece.float()) for piece in torch.split(observations, _IMAGES)])
    features: Tensor = modules["encoder"](observations)
    return features


def features(
    modules: Mapping[str, nn.Module], observations: Shaped[Tensor, " row *observation"], sequences: Sequences | None
) -> Float[Tensor, "row feature"]:
    """What policy and value function get: observations through the encoder, and then the memory, where there are any.

    Args:
        sequences: with a memory, of rows that are sequences one after the other; without, None.
    """
    found = encoded(modules, observations)
    if sequences is None:
        return found
    units: Tensor = modules["memory"](found.view(*sequences.begins.shape, -1), *sequences)
    return units.flatten(0, 1)

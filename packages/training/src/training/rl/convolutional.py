"""The convolutional network that policy and value function share where observations are images.

    32 filters 8x8, stride 4  ->  64 filters 4x4, stride 2  ->  64 filters 3x3, stride 1  ->  512 units

with a ReLU behind each (Mnih et al. 2015, Human-level control through deep reinforcement learning, Methods; Huang et
al. 2022, Atari details 8 and 9). It gets the bytes of the images as they are, from 0 to 255, and divides them by 255
itself, so that rollouts can be kept as bytes. Weights are orthogonal with gain sqrt(2), biases 0 (core detail 2).
"""

from __future__ import annotations

import torch
from jaxtyping import Float
from torch import Tensor, nn

from training.rl.networks import HIDDEN_GAIN, initialise

FEATURES = 512
LAYERS = ((32, 8, 4), (64, 4, 2), (64, 3, 1))  # filters, size of the window, stride
SMALLEST = 36  # rows and columns for which the last layer's windows still fit


class NatureCNN(nn.Module):
    """Images to 512 features.

    Args:
        shape: (channels, rows, columns) of the images; stacked frames are channels.
        scale: divide by 255; False takes the bytes as numbers up to 255.
        orthogonal: False leaves PyTorch's own initialisation.

    Raises:
        ValueError: if the images are smaller than 36 x 36.
    """

    def __init__(
        self, shape: tuple[int, int, int], *, scale: bool = True, orthogonal: bool = True, generator: torch.Generator
    ) -> None:
        super().__init__()
        channels, rows, columns = shape
        if min(rows, columns) < SMALLEST:
            raise ValueError(
                f"NatureCNN: expected images of at least {SMALLEST} x {SMALLEST}, got {rows} x {columns}; make them "
                "larger with AtariOptions.size"
            )
        self.scale = scale
        self.convolutions = nn.ModuleList()
        for filters, window, stride in LAYERS:
            self.convolutions.append(nn.Conv2d(channels, filters, window, stride))
            channels, rows, columns = filters, (rows - window) // stride + 1, (columns - window) // stride + 1
        self.linear = nn.Linear(channels * rows * columns, FEATURES)
        for layer in (*self.convolutions, self.linear):
            assert isinstance(layer, nn.Conv2d | nn.Linear)
            initialise(layer, HIDDEN_GAIN if orthogonal else None, generator)

    def forward(self, images: Float[Tensor, "batch channel row column"]) -> Float[Tensor, "batch 512"]:
        """Features of images, whose bytes are given as floats from 0 to 255."""
        x = images / 255 if self.scale else images
        for layer in self.convolutions:
            x = torch.relu(layer(x))
        return torch.relu(self.linear(x.flatten(1)))

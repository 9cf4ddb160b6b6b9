"""The residual networks for small images of He et al. 2016, section 4.2, and their plain twins.

A network of depth 6n + 2 is a 3x3 convolution, three stages of 2n layers of 3x3 convolutions, a mean over positions and
a linear layer. The stages have w, 2w and 4w channels; the second and the third begin with a stride of 2. Every
convolution is followed by batch normalisation and has no bias. A block is a pair of layers:

    residual:  y = relu(F(x) + shortcut(x)),   plain:  y = relu(F(x)),   F(x) = norm(conv(relu(norm(conv(x)))))

The shortcut is the identity; where a block halves the image and doubles the channels it takes every second row and
column and appends channels of zeros (option A), so both kinds have the same parameters. Weights start as in He et al.
2015: normal with variance 2 / fan-in.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import cast

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional


@dataclass(frozen=True)
class Architecture:
    """Shape of a network; the defaults are the paper's for CIFAR-10.

    Args:
        depth: number of weighted layers, 6n + 2.
        residual: with shortcuts; without them it is the plain twin.
        width: channels of the first stage, 16 in the paper.

    Raises:
        ValueError: a depth that is not 6n + 2.
    """

    depth: int
    residual: bool = True
    width: int = 16
    channels: int = 3
    classes: int = 10

    def __post_init__(self) -> None:
        if self.depth < 8 or self.depth % 6 != 2:
            raise ValueError(f"depth {self.depth}: expected 6n + 2 layers (8, 14, 20, 32, 44, 56, 110); choose one")

    @property
    def blocks(self) -> int:
        """n: pairs of layers in each stage."""
        return (self.depth - 2) // 6


class Layer(nn.Module):
    """A 3x3 convolution and its batch normalisation; its output is what the paper calls the layer's response."""

    def __init__(self, inputs: int, outputs: int, stride: int, generator: torch.Generator) -> None:
        super().__init__()
        self.conv = nn.utils.skip_init(  # type: ignore[no-untyped-call]
            nn.Conv2d, inputs, outputs, 3, stride=stride, padding=1, bias=False
        )
        self.norm = nn.BatchNorm2d(outputs)
        he_normal(self.conv.weight, generator)

    def forward(self, x: Float[Tensor, "batch inputs height width"]) -> Float[Tensor, "batch outputs rows columns"]:
        return cast(Tensor, self.norm(self.conv(x)))


class Block(nn.Module):
    """Two layers, and a shortcut around them if the network is residual."""

    def __init__(self, inputs: int, outputs: int, *, residual: bool, generator: torch.Generator) -> None:
        super().__init__()
        self.residual, self.grows = residual, outputs - inputs
        self.first = Layer(inputs, outputs, 2 if self.grows else 1, generator)
        self.second = Layer(outputs, outputs, 1, generator)

    def forward(
        self, x: Float[Tensor, "batch inputs height width"], responses: list[Tensor] | None = None
    ) -> Float[Tensor, "batch outputs rows columns"]:
        first = self.first(x)
        second = self.second(functional.relu(first))
        if responses is not None:
            responses += [first, second]
        return functional.relu(second + self.shortcut(x) if self.residual else second)

    def shortcut(self, x: Float[Tensor, "batch inputs height width"]) -> Float[Tensor, "batch outputs rows columns"]:
        """Option A: the identity, or every second row and column with channels of zeros behind the others."""
        return functional.pad(x[:, :, ::2, ::2], (0, 0, 0, 0, 0, self.grows)) if self.grows else x


class ResidualNetwork(nn.Module):
    """A network of the family, for images of any size.

    Args:
        seed: of the initial weights; the global random state is neither read nor changed.
    """

    def __init__(self, architecture: Architecture, seed: int) -> None:
        super().__init__()
        self.architecture = architecture
        generator = torch.Generator().manual_seed(seed)
        width = architecture.width
        self.stem = Layer(architecture.channels, width, 1, generator)
        before, blocks = width, list[nn.Module]()
        for outputs in (width, 2 * width, 4 * width):
            for _ in range(architecture.blocks):
                blocks.append(Block(before, outputs, residual=architecture.residual, generator=generator))
                before = outputs
        self.blocks = nn.ModuleList(blocks)
        self.head = nn.utils.skip_init(nn.Linear, before, architecture.classes)  # type: ignore[no-untyped-call]
        he_normal(self.head.weight, generator)
        nn.init.zeros_(self.head.bias)

    def forward(
        self, images: Float[Tensor, "batch channel height width"], responses: list[Tensor] | None = None
    ) -> Float[Tensor, "batch class"]:
        """Logits; every 3x3 layer's response is appended to `responses`, in the order of the layers."""
        stem = self.stem(images)
        if responses is not None:
            responses.append(stem)
        x = functional.relu(stem)
        for block in self.blocks:
            x = block(x, responses)
        return cast(Tensor, self.head(x.mean(dim=(2, 3))))

    def convolutions(self) -> list[nn.Conv2d]:
        """The 3x3 convolutions, in the order of the layers."""
        return [module for module in self.modules() if isinstance(module, nn.Conv2d)]


def he_normal(weight: Tensor, generator: torch.Generator) -> None:
    """Normal with variance 2 / fan-in, the fan-in being the inputs of one output (He et al. 2015, equation 10)."""
    fan_in = weight[0].numel()
    with torch.no_grad():
        weight.normal_(0.0, math.sqrt(2.0 / fan_in), generator=generator)

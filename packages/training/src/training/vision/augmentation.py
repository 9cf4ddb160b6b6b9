"""Random crops of padded images, and mirror images (He et al. 2016, section 4.2).

An image is padded with zeros on each side (4 pixels of 32 in the paper), a window of the original size is cut out at a
random place, and half of the windows are mirrored. The images have their mean subtracted before, so zero is the mean.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn import functional


@dataclass(frozen=True)
class Augmentation:
    """What is done to a training image.

    Args:
        pad: pixels of zeros on each side before the crop; 0 for none.
        flip: mirror left and right with probability one half; off for images that change their meaning, as digits do.
    """

    pad: int = 4
    flip: bool = True

    def __post_init__(self) -> None:
        if self.pad < 0:
            raise ValueError(f"pad {self.pad}: expected 0 or more pixels on each side")


def augment(
    images: Float[Tensor, "batch channel height width"], augmentation: Augmentation, generator: torch.Generator
) -> Float[Tensor, "batch channel height width"]:
    """Each image cropped and mirrored on its own.

    The draws come from a generator on the CPU, so that they are the same on every device.
    """
    batch, channels, height, width = images.shape
    device, reach = images.device, 2 * augmentation.pad + 1
    top = torch.randint(reach, (batch, 1), generator=generator)
    left = torch.randint(reach, (batch, 1), generator=generator)
    mirrored = torch.rand((batch, 1), generator=generator) < 0.5
    columns = torch.arange(width).expand(batch, width)
    if augmentation.flip:
        columns = torch.where(mirrored, width - 1 - columns, columns)
    rows = (top + torch.arange(height)).to(device)
    columns = (left + columns).to(device)
    padded = functional.pad(images, (augmentation.pad,) * 4)
    image = torch.arange(batch, device=device)[:, None, None, None]
    channel = torch.arange(channels, device=device)[None, :, None, None]
    return padded[image, channel, rows[:, None, :, None], columns[:, None, None, :]]

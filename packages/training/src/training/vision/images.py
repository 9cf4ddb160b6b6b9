"""Labelled images, and how they are prepared.

Images are float32 with the mean of the training images subtracted at every pixel (He et al. 2016, section 4.2) and
divided by one number, the standard deviation of what is left; the paper does not give its scale.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from jaxtyping import Float, Int, UInt8
from torch import Tensor


@dataclass(frozen=True, eq=False)  # compared by identity: tensors have no single truth
class LabelledImages:
    """Images and the class of each, counted from 0."""

    images: Float[Tensor, "image channel height width"]
    labels: Int[Tensor, " image"]

    def __len__(self) -> int:
        return len(self.labels)

    def __getitem__(self, index: Tensor | slice) -> LabelledImages:
        return LabelledImages(self.images[index], self.labels[index])

    def to(self, device: str | torch.device) -> LabelledImages:
        return LabelledImages(self.images.to(device), self.labels.to(device))


@dataclass(frozen=True, eq=False)  # compared by identity: tensors have no single truth
class Split:
    """Images to train on, and others to test on."""

    train: LabelledImages
    test: LabelledImages

    def to(self, device: str | torch.device) -> Split:
        return Split(self.train.to(device), self.test.to(device))


def prepare(
    train: tuple[UInt8[Tensor, "image channel height width"], Int[Tensor, " image"]],
    test: tuple[UInt8[Tensor, "other channel height width"], Int[Tensor, " other"]],
) -> Split:
    """Raw pixels as a split: the mean image and the scale are those of the training images."""
    mean = train[0].double().mean(dim=0)
    scale = float((train[0] - mean).std()) or 1.0

    def prepared(pixels: Tensor, labels: Tensor) -> LabelledImages:
        return LabelledImages(((pixels - mean) / scale).float(), labels.long())

    return Split(prepared(*train), prepared(*test))


def hold_out(images: LabelledImages, n: int, *, seed: int) -> Split:
    """n images drawn at random as the test part, the others to train on: the paper's 45k / 5k for choosing.

    Raises:
        ValueError: n leaves nothing on one of the sides.
    """
    if not 0 < n < len(images):
        raise ValueError(f"{n} images held out of {len(images)}: expected between 1 and {len(images) - 1}")
    order = torch.randperm(len(images), generator=torch.Generator().manual_seed(seed)).to(images.labels.device)
    return Split(images[order[n:]], images[order[:n]])

"""Image classification as a task of the training loop: batches as a function of the step, cross-entropy, and errors.

The training images are gone through in a new order every epoch, and a batch that reaches beyond the end of an epoch
takes the rest from the next one. Order and augmentation follow from the seed and the number of the epoch or the step
alone, so a resumed run sees the batches that an undisturbed one sees.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor, nn
from torch.nn import functional

from training.vision.augmentation import Augmentation, augment
from training.vision.images import LabelledImages

ORDER, CROPS = 0, 1  # what a random stream is for


@dataclass(frozen=True)
class Classification:
    """Cross-entropy of the part named `part` on batches of labelled images.

    Raises:
        ValueError: no images, or a batch that is larger than an epoch.
    """

    data: LabelledImages
    batch_size: int = 128
    augmentation: Augmentation = field(default_factory=Augmentation)
    seed: int = 0
    part: str = "model"

    def __post_init__(self) -> None:
        if not 0 < self.batch_size <= len(self.data):
            raise ValueError(
                f"batch_size {self.batch_size} of {len(self.data)} images: expected between 1 and their number"
            )

    @property
    def feeds(self) -> tuple[str, ...]:
        return (self.part,)

    def batch(self, step: int) -> LabelledImages:
        """The batch of a step (0-based), augmented."""
        batch = self.data[self.places(step).to(self.data.labels.device)]
        images = augment(batch.images, self.augmentation, stream(self.seed, CROPS, step))
        return LabelledImages(images, batch.labels)

    def places(self, step: int) -> Int[Tensor, " batch"]:
        """Which images a step's batch consists of."""
        n = len(self.data)
        epoch, start = divmod(step * self.batch_size, n)
        order = torch.randperm(n, generator=stream(self.seed, ORDER, epoch))[start : start + self.batch_size]
        if missing := self.batch_size - len(order):
            following = torch.randperm(n, generator=stream(self.seed, ORDER, epoch + 1))
            order = torch.cat([order, following[:missing]])
        return order

    def loss(self, parts: Mapping[str, nn.Module], batch: LabelledImages) -> Float[Tensor, ""]:
        """Mean cross-entropy in nats."""
        return functional.cross_entropy(parts[self.part](batch.images), batch.labels)


def stream(seed: int, purpose: int, number: int) -> torch.Generator:
    """A random stream of its own for every seed, purpose and number."""
    state = np.random.SeedSequence((seed, purpose, number)).generate_state(1, np.uint64)[0]
    return torch.Generator().manual_seed(int(state))


@torch.no_grad()
def error(model: nn.Module, data: LabelledImages, *, batch_size: int = 1000) -> float:
    """Share of the images that are classified wrongly, in evaluation mode; the model's mode is restored."""
    was_training = model.training
    model.eval()
    try:
        wrong = sum(
            int((model(data.images[at : at + batch_size]).argmax(dim=1) != data.labels[at : at + batch_size]).sum())
            for at in range(0, len(data), batch_size)
        )
    finally:
        model.train(was_training)
    return wrong / len(data)

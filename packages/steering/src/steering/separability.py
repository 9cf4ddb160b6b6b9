"""Whether a model tells two classes of texts apart, layer by layer: a picture, and a number that was not fitted.

At each layer, with x the stream at one position of each text and m+, m- the means of the classes:

    picture      coordinates of all texts along the first two axes of PCA of x - mean x, and their shares of variance
    accuracy     texts of a held-out part for which  (x - (m+ + m-) / 2) . (m+ - m-)  has the class's sign, the means
                 being those of the other part

A picture with two clouds may show the answer's letter, or the length of the texts, rather than what the vector is meant
to be about: that is for the choice of texts. In d_model dimensions few texts can always be parted, hence an accuracy on
others than the means are of. All activations read are kept: texts x layers x d_model numbers.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from interventions import Model
from interventions.hooks import Modules
from steering.batches import in_batches
from steering.errors import SteeringError
from steering.intervals import Quotient
from steering.passes import passes_of
from steering.texts import encode
from steering.vectors import Component


@dataclass(frozen=True)
class Separability:
    """By layer; texts are the positive ones, then the negative ones.

    `shares` are of the variance over all texts; `right` says of each held-out text whether its side is its class.
    """

    layers: tuple[int, ...]
    positive: Bool[Tensor, " text"]
    coordinates: Float[Tensor, "layer text 2"]
    shares: Float[Tensor, "layer 2"]
    right: Bool[Tensor, "held_out layer"]

    @property
    def accuracy(self) -> Float[Tensor, " layer"]:
        """Of held-out texts; chance is 0.5 where both classes have as many."""
        return self.right.float().mean(dim=0)

    def ends(
        self, *, seed: int = 0, level: float = 0.95, resamples: int = 1000
    ) -> tuple[Float[Tensor, " layer"], Float[Tensor, " layer"]]:
        """Ends of the intervals of accuracy, held-out texts resampled.

        Raises:
            SteeringError: a level outside 0 to 1, or no resamples.
        """
        return Quotient.mean(self.right.float()).ends(seed=seed, level=level, resamples=resamples)


def class_activations(
    model: Model,
    texts: Sequence[str],
    *,
    layers: Sequence[int] | None = None,
    component: Component = "resid_post",
    read: int = -1,
    batch_size: int = 16,
) -> Float[Tensor, "layer text d_model"]:
    """The stream at one position of every text, float32 on the CPU.

    Args:
        read: counted from the end of each text.

    Raises:
        SteeringError: there is no text, or one is shorter than `read`; a layer does not exist.
    """
    modules = Modules(model.network)
    layers = range(len(modules)) if layers is None else layers
    rows = [encode(model, text) for text in texts]
    shortest = min((len(row) - (model.bos is not None) for row in rows), default=0)
    if read >= 0 or shortest < -read:
        raise SteeringError(
            f"read={read} in texts of at least {shortest} tokens: expected at least one text, and a position counted "
            f"from its end (-1 is the last token) that all texts have"
        )
    if beyond := [layer for layer in layers if not 0 <= layer < len(modules)]:
        raise SteeringError(f"layer {beyond[0]}: expected 0 to {len(modules) - 1}, as {model.name} has")
    passes, found = passes_of(model), dict[int, Tensor]()
    for batch in in_batches(rows, batch_size):
        streams = passes.streams([rows[row] for row in batch.rows], component, layers, read)
        found |= dict(zip(batch.rows, streams, strict=True))
    return torch.stack([found[row] for row in range(len(rows))], dim=1)


def separability(
    positives: Float[Tensor, "layer positive d_model"],
    negatives: Float[Tensor, "layer negative d_model"],
    *,
    layers: Sequence[int] | None = None,
    held_out: float = 0.5,
    paired: bool = True,
    seed: int = 0,
) -> Separability:
    """Picture and held-out accuracy of two classes of activations, such as `class_activations` gives.

    Args:
        layers: what the layers are called; 0 and on by default.
        held_out: the share of each class that the means are not of.
        paired: text i of both classes are of one pair, and are held out together or not at all.
        seed: of which texts are held out.

    Raises:
        SteeringError: classes of other layers or widths, pairs that do not match, or a part without two texts.
    """
    if positives.shape[::2] != negatives.shape[::2] or (paired and positives.shape != negatives.shape):
        raise SteeringError(
            f"positives {tuple(positives.shape)}, negatives {tuple(negatives.shape)}: expected [layer, text, d_model] "
            f"of the same layers and width, and as many of each where they are pairs"
        )
    if layers is not None and len(layers) != len(positives):
        raise SteeringError(f"{len(layers)} layers for {len(positives)}: expected a name for each")
    generator = torch.Generator().manual_seed(seed)
    classes = [positives.double(), negatives.double()]
    orders = [torch.randperm(each.shape[1], generator=generator) for each in classes]
    orders = [orders[0], orders[0]] if paired else orders
    cut = [round(len(order) * held_out) for order in orders]
    if any(n < 1 or n >= len(order) for n, order in zip(cut, orders, strict=True)):
        raise SteeringError(
            f"held_out={held_out:g} of {[len(order) for order in orders]} texts: expected at least one text of each "
            f"class on either side"
        )
    split = list(zip(classes, orders, cut, strict=True))
    means = [each[:, order[n:]].mean(dim=1, keepdim=True) for each, order, n in split]
    direction, middle = means[0] - means[1], (means[0] + means[1]) / 2
    sides = [((each[:, order[:n]] - middle) * direction).sum(dim=-1) for each, order, n in split]
    right = torch.cat([sides[0] > 0, sides[1] < 0], dim=1).T

    together = torch.cat(classes, dim=1)
    centred = together - together.mean(dim=1, keepdim=True)
    _, sizes, axes = torch.linalg.svd(centred, full_matrices=False)
    axes = axes[:, :2]
    # An axis has no sign of its own: here positives are on its right.
    towards = torch.einsum("lad,ld->la", axes, classes[0].mean(dim=1) - classes[1].mean(dim=1))
    coordinates = torch.einsum("ltd,lad->lta", centred, axes * torch.where(towards < 0, -1.0, 1.0)[..., None])
    variance = sizes.square()
    total = variance.sum(dim=1, keepdim=True).clamp(min=torch.finfo(torch.float64).tiny)
    return Separability(
        tuple(range(len(positives)) if layers is None else layers),
        torch.arange(together.shape[1]) < classes[0].shape[1],
        coordinates.float(),
        (variance[:, :2] / total).float(),
        right,
    )

"""Cosines: how alike a vector's layers are, and how alike vectors are.

    cosine = u . v / |u| |v|

Vectors of one behaviour from different layers that are alike may be moved between layers; vectors of different
behaviours that are alike are perhaps one. In d_model dimensions two random directions have a cosine of about
1 / sqrt(d_model) in size, not 0. Directions with a row for each position are compared over all their rows together.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from jaxtyping import Float
from torch import Tensor

from steering.errors import SteeringError
from steering.vectors import SteeringVector


def layer_cosines(vector: SteeringVector) -> Float[Tensor, "layer layer"]:
    """Cosines between a vector's layers, in the order of `vector.layers`.

    Raises:
        SteeringError: a layer's direction is 0, or of another shape than the others.
    """
    return _cosines([(vector.directions[layer], f"{vector.name}, layer {layer}") for layer in vector.layers])


def vector_cosines(vectors: Sequence[SteeringVector], layer: int) -> Float[Tensor, "vector vector"]:
    """Cosines between vectors at a layer.

    Raises:
        SteeringError: there is none, or one has not this layer; a direction is 0, or of another shape than the others.
    """
    if not vectors:
        raise SteeringError("no vectors: expected at least one")
    return _cosines([(each.at(layer).directions[layer], f"{each.name}, layer {layer}") for each in vectors])


def cosines_by_layer(one: SteeringVector, other: SteeringVector) -> dict[int, float]:
    """The cosine of two vectors in each layer that both have.

    Raises:
        SteeringError: they have no layer in common; a direction is 0, or two have other shapes.
    """
    both = [layer for layer in one.layers if layer in other.directions]
    if not both:
        raise SteeringError(
            f"{one.name} has layers {list(one.layers)}, {other.name} {list(other.layers)}: expected one in common"
        )
    return {layer: float(vector_cosines([one, other], layer)[0, 1]) for layer in both}


def _cosines(directions: Sequence[tuple[Tensor, str]]) -> Float[Tensor, "direction direction"]:
    rows, (first, of_first) = [], directions[0]
    for direction, name in directions:
        if direction.shape != first.shape:
            raise SteeringError(
                f"{name} has shape {tuple(direction.shape)}, {of_first} {tuple(first.shape)}: expected one shape"
            )
        flat = direction.detach().cpu().double().flatten()
        if not bool(flat.any()):
            raise SteeringError(f"{name} is 0: expected a direction; leave it out")
        rows.append(flat / flat.norm())
    units = torch.stack(rows)
    return (units @ units.T).float()

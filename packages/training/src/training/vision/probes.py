"""What He et al. 2016 look at inside a network: how strongly its layers respond, and how gradients reach them.

The response of a 3x3 layer is its output after batch normalisation and before the addition or the nonlinearity. Its
standard deviation (figure 7) is taken over images, channels and positions. The gradient of the loss at the responses is
the signal that travels backwards (section 4.1: "healthy norms"). Both leave the network as it is.
"""

from __future__ import annotations

import copy

import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn import functional

from training.vision.images import LabelledImages
from training.vision.residual import ResidualNetwork


@torch.no_grad()
def response_deviations(
    network: ResidualNetwork, images: Float[Tensor, "image channel height width"]
) -> Float[Tensor, " layer"]:
    """Standard deviation of every 3x3 layer's response in evaluation mode, first layer first."""
    responses: list[Tensor] = []
    _twin(network, training=False)(images, responses)
    return torch.stack([response.std() for response in responses]).cpu()


def gradient_norms(
    network: ResidualNetwork, batch: LabelledImages
) -> tuple[Float[Tensor, " layer"], Float[Tensor, " layer"]]:
    """2-norms of the gradient of the batch's mean loss at every 3x3 layer's response, and at its weights.

    In training mode: batch normalisation uses the batch's own statistics, as it does in a step of training.
    """
    twin, responses = _twin(network, training=True), list[Tensor]()
    weights = [convolution.weight for convolution in twin.convolutions()]
    loss = functional.cross_entropy(twin(batch.images, responses), batch.labels)
    gradients = torch.autograd.grad(loss, [*responses, *weights])
    norms = torch.stack([gradient.norm() for gradient in gradients]).cpu()
    return norms[: len(responses)], norms[len(responses) :]


def _twin(network: ResidualNetwork, *, training: bool) -> ResidualNetwork:
    """A copy, so that neither the mode nor the running statistics of the network change."""
    return copy.deepcopy(network).train(training)

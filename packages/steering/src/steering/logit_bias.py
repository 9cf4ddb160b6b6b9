"""A vector as a plain bias on the logits: the same numbers added at every step, whatever the text.

    bias = W_U (mean over t of N(h_t with the vector) - mean over t of N(h_t without))

with N the final norm, h_t the stream behind the last layer, and t the positions from which the tokens of given
completions are predicted, the completions being read and not written anew. It is the mean change of the logits that the
vector makes (before a soft cap, where a model has one), at the strength that it makes it, without any of its dependence
on what was read. What such a bias does as well as the vector is no evidence that the model uses a direction.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, nn

from interventions import Model
from steering.batches import in_batches
from steering.errors import SteeringError
from steering.generation import Completions
from steering.passes import passes_of
from steering.steering import Steer


@contextmanager
def logit_bias(network: nn.Module, bias: Float[Tensor, " d_vocab"]) -> Iterator[None]:
    """Inside, the bias is added to the logits of every forward pass; the network is as it was afterwards.

    The output embedding is replaced by one of the same weights and this bias.

    Raises:
        SteeringError: the bias is of another length, or not finite.
    """
    hugging_face: Any = network
    head = hugging_face.get_output_embeddings()
    if bias.shape != head.weight.shape[:1] or not bool(bias.isfinite().all()):
        raise SteeringError(
            f"bias of shape {tuple(bias.shape)}: expected {len(head.weight)} finite numbers, one for each token"
        )
    own = 0.0 if head.bias is None else head.bias.detach().float()
    biased = nn.Linear(head.in_features, head.out_features, device="meta")
    biased.weight = head.weight
    biased.bias = nn.Parameter((own + bias.to(head.weight.device).float()).to(head.weight.dtype), requires_grad=False)
    hugging_face.set_output_embeddings(biased)
    try:
        yield
    finally:
        hugging_face.set_output_embeddings(head)


def mean_effect(
    model: Model, completions: Completions, steers: Sequence[Steer], *, batch_size: int = 16
) -> Float[Tensor, " d_vocab"]:
    """The bias that vectors amount to on completions, on the CPU, float32; their positions count as in generation.

    Raises:
        SteeringError: no completion has a token; else as `steering.steered`.
    """
    rows = [row for row, new in enumerate(completions.new_tokens) if new]
    if not rows:
        raise SteeringError("no completion has a token: expected some to measure the vector's effect on")
    prompts = [completions.prompt_tokens[row] for row in rows]
    new = [completions.new_tokens[row] for row in rows]
    passes, change = passes_of(model), torch.zeros((), dtype=torch.float64)
    for batch in in_batches(prompts, batch_size):
        some, following = [prompts[row] for row in batch.rows], [new[row] for row in batch.rows]
        changed, plain = passes.sums(some, following, [batch.of(steer) for steer in steers])
        change = change + changed - plain
    return passes.as_logits(change / sum(map(len, new)))

"""A vector as a plain bias on the logits: the same numbers added at every step, whatever the text.

    bias = W_U (mean over t of N(h_t with the vector) - mean over t of N(h_t without))

with N the final norm, h_t the stream behind the last layer, and t the positions from which the tokens of given
completions are predicted, the completions being read and not written anew. It is the mean change of the logits that the
vector makes (before a soft cap, where a model has one), at the strength that it makes it, without any of its dependence
on what was read. What such a bias does as well as the vector is no evidence that the model uses a direction.
"""

from __future__ import annotations

import inspect
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, nn

from interventions import Model, as_prompts
from interventions.network import inference
from steering.batches import in_batches
from steering.errors import SteeringError
from steering.generation import Completions
from steering.steering import Steer, steered

Rows = Sequence[Sequence[int]]


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
    change = torch.zeros((), dtype=torch.float64)
    for batch in in_batches(prompts, batch_size):
        some, following = [prompts[row] for row in batch.rows], [new[row] for row in batch.rows]
        here = [batch.of(steer) for steer in steers]
        with inference(model.network):
            with steered(model, *here):
                change = change + _summed(model, some, following)
            change = change - _summed(model, some, following)
    network: Any = model.network
    weight: Tensor = network.get_output_embeddings().weight
    return (weight.detach().float() @ (change / sum(map(len, new))).to(weight.device, torch.float32)).cpu()


def _summed(model: Model, prompts: Rows, new: Rows) -> Float[Tensor, " d_model"]:
    """Sum of the normed streams that predict the new tokens; on the CPU.

    One call for the prompts and one for what follows, as in generation: so a vector knows which is which.
    """
    network: Any = model.network
    device = next(network.parameters()).device
    start = as_prompts(prompts).to(device)
    longest = max(map(len, new))
    follows = torch.tensor([[*row, *[0] * (longest - len(row))] for row in new], device=device)[:, :-1]
    counts = torch.tensor([len(row) - 1 for row in new], device=device)
    read = torch.arange(longest - 1, device=device) < counts[:, None]
    valid = torch.ones_like(start.tokens, dtype=torch.bool) if start.valid is None else start.valid
    takes_places = "position_ids" in inspect.signature(network.base_model.forward).parameters
    lengths = valid.sum(dim=1)

    def run(tokens: Tensor, mask: Tensor, places: Tensor, cache: Any) -> Any:
        options: dict[str, Any] = {"position_ids": places} if takes_places else {}
        return network.base_model(tokens, attention_mask=mask.long(), past_key_values=cache, use_cache=True, **options)

    output = run(start.tokens, valid, start.position_ids.expand(len(new), -1), None)
    found: Tensor = output[0][:, -1].float().sum(dim=0)
    if longest > 1:
        places = lengths[:, None] + torch.arange(longest - 1, device=device)
        rest = run(follows, torch.cat([valid, read], dim=1), places, output.past_key_values)
        found = found + rest[0][read].float().sum(dim=0)
    return found.cpu().double()

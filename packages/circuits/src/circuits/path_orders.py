"""How much of the loss is due to paths through no head, one head, two heads, ...

    logits = sum over n of (r^(n)_L / s_L) W_U + b_U
    r^(0)_0 = embedding,    r^(0)_{l+1} = r^(0)_l + c_l,    c_l = b_O_l + sum_h b_V_{l,h} W_O_{l,h}
    r^(n)_{l+1} = r^(n)_l + sum_h A_{l,h} (r^(n-1)_l / s_l) W_V_{l,h} W_O_{l,h}

(Elhage et al. 2021, "A Mathematical Framework for Transformer Circuits", "Term Importance Analysis".) r^(n) is what
reaches the end through exactly n heads in sequence: n = 0 is the direct path, n = 1 are single heads, n = 2 the virtual
heads made by V-composition of two. Attention patterns A and norm divisors s keep their real values, so the stream is
linear in the embedding and the biases; with all orders kept the loss is the model's own, and nothing is approximate.
Biases are constants, not paths through the head that has them: c_l starts in layer l with order 0 and gains one with
each later head that reads it. With some orders left out, patterns and divisors are not those that the stream that is
left would have: they stay as they were, and that is what "due to" means here.
"""

from __future__ import annotations

import torch
from jaxtyping import Float, Int
from torch import Tensor

from circuits.attribution import mlp_hooks
from circuits.bridge import Bridge, chunks, hook_name, record
from circuits.lens import stream_hooks
from circuits.tokens import check_tokens
from circuits.weights import Weights, read_weights


@torch.no_grad()
def losses_by_order(
    model: Bridge, tokens: Int[Tensor, "batch pos"], *, batch_size: int = 8
) -> Float[Tensor, "batch order"]:
    """Mean loss (nats) of each sequence with paths of up to n heads kept, n = 0..n_layers; float32.

    On the model's device. Differences of neighbouring columns are what an order is worth. The last column is the
    model's own loss.

    Raises:
        ValueError: the model has MLPs; from `check_tokens` (at least 2 positions) and `read_weights`.

    Source: Elhage et al. 2021, "Term Importance Analysis".
    """
    weights = _checked_weights(model, tokens)
    parts = []
    for rows in chunks(len(tokens), batch_size):
        orders, _, scale = _terms(model, weights, tokens[rows])
        kept = orders.cumsum(dim=0)
        parts.append(torch.stack([_losses(weights, stream / scale, tokens[rows]) for stream in kept], dim=1))
    return torch.cat(parts)


@torch.no_grad()
def losses_by_terms(
    model: Bridge, tokens: Int[Tensor, "batch pos"], *, batch_size: int = 8
) -> dict[str, Float[Tensor, " batch"]]:
    """Mean loss (nats) of each sequence with these terms kept, in this order:

        "direct", "direct + layer 0 heads", "direct + layer 1 heads", ..., "direct + all heads",
        "direct + all heads + virtual heads"

    Heads of a layer here are paths through one head of that layer and no other; virtual heads are all paths through two
    or more, which a 1-layer model lacks (its last two entries are equal). The last entry is the model's own loss.

    Raises:
        ValueError: the model has MLPs; from `check_tokens` (at least 2 positions) and `read_weights`.

    Source: Elhage et al. 2021, "Term Importance Analysis".
    """
    weights = _checked_weights(model, tokens)
    layers = range(weights.n_layers)
    labels = ["direct", *(f"direct + layer {layer} heads" for layer in layers)]
    labels += ["direct + all heads", "direct + all heads + virtual heads"]
    losses: dict[str, list[Tensor]] = {label: [] for label in labels}
    for rows in chunks(len(tokens), batch_size):
        orders, first, scale = _terms(model, weights, tokens[rows])
        kept = [orders[0], *(orders[0] + first[layer] for layer in layers), orders[:2].sum(dim=0), orders.sum(dim=0)]
        for label, stream in zip(labels, kept, strict=True):
            losses[label].append(_losses(weights, stream / scale, tokens[rows]))
    return {label: torch.cat(parts) for label, parts in losses.items()}


def _checked_weights(model: Bridge, tokens: Int[Tensor, "batch pos"]) -> Weights:
    check_tokens(model, tokens, shortest=2)
    if mlps := mlp_hooks(model, range(model.cfg.n_layers)):
        raise ValueError(
            f"layer {min(mlps)} has an MLP: the algorithm is for attention-only models, expected one (paths through an "
            f"MLP are not linear in what it reads); use logit_attribution for this model"
        )
    return read_weights(model)


def _terms(
    model: Bridge, weights: Weights, tokens: Int[Tensor, "batch pos"]
) -> tuple[
    Float[Tensor, "order batch pos d_model"], list[Float[Tensor, "batch pos d_model"]], Float[Tensor, "batch pos 1"]
]:
    """r^(n)_L for every n; the part of r^(1)_L that each layer's heads write; and s_L."""
    names = stream_hooks(weights.n_layers)
    patterns = [hook_name(model, layer, "hook_pattern") for layer in range(weights.n_layers)]
    seen = {name: value.float() for name, value in record(model, tokens, [*names, *patterns]).items()}
    orders = seen[names[0]].new_zeros(weights.n_layers + 1, *seen[names[0]].shape)
    orders[0] = seen[names[0]]
    constants = weights.b_O + torch.einsum("lhd,lhdm->lm", weights.b_V, weights.W_O)
    first = []
    for layer, pattern in enumerate(patterns):
        reached = orders[: layer + 1] / weights.scale(seen[names[layer]])
        v = torch.einsum("nbkm,hmd->nbhkd", reached, weights.W_V[layer])
        z = torch.einsum("bhqk,nbhkd->nbhqd", seen[pattern], v)
        written = torch.einsum("nbhqd,hdm->nbqm", z, weights.W_O[layer])
        orders[0] += constants[layer]
        orders[1 : layer + 2] += written
        first.append(written[0])
    return orders, first, weights.scale(seen[names[-1]])


def _losses(
    weights: Weights, normalised: Float[Tensor, "batch pos d_model"], tokens: Int[Tensor, "batch pos"]
) -> Float[Tensor, " batch"]:
    logits = normalised[:, :-1] @ weights.W_U + weights.b_U
    right = tokens[:, 1:, None].to(logits.device)
    return (logits.logsumexp(dim=-1) - logits.gather(-1, right).squeeze(-1)).mean(dim=1)

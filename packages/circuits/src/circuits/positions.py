"""Attention by position: what a head's QK circuit makes of position embeddings, with and without tokens.

    score_pos[q, k] = W_pos[q] W_Q W_K^T W_pos[k]^T / (s^2 sqrt(d_head)),    k <= q

(Elhage et al. 2021, "A Mathematical Framework for Transformer Circuits", "Primarily Positional Attention Heads".) With
learned position embeddings the stream of the first layer is W_E[t] + W_pos[p], so scores there are the sum of
token-token, token-position, position-token and position-position parts, and of what the biases add:
`position_and_token_parts` is that sum, exact, with the divisors s of real tokens. The position-position part alone is
read from the weights. It needs a divisor: W_pos never stands in the stream alone, so s is that of W_E[t] + W_pos[p],
averaged over tokens and positions (`typical_scale`). With it, and without the biases, patterns of positions alone are
approximate; what is missing most is b_Q W_K^T W_pos[k]^T, which depends on the key's position. Of heads above layer 0
they describe the direct path of W_pos at the divisor of the embeddings; the real one is usually larger. Rotary models
have no position embeddings, and all functions here refuse them.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from jaxtyping import Float, Int
from torch import Tensor

from circuits.bridge import Bridge
from circuits.head_outputs import Head, check_heads
from circuits.score_decomposition import decompose_attention_scores
from circuits.weights import Weights

PARTS = ("token-token", "token-position", "position-token", "position-position", "bias")
"""Parts of a score in the first layer: what the query reads, then what the key reads."""

GRID = 256  # tokens and positions at most that `typical_scale` averages over


@dataclass(frozen=True)
class PositionAndTokenParts:
    """Scores of one head before the softmax, by part; 0 above the diagonal, which the model masks."""

    labels: tuple[str, ...]  # PARTS
    values: Float[Tensor, "batch part query key"]

    @property
    def total(self) -> Float[Tensor, "batch query key"]:
        """The model's scores q . k / sqrt(d_head) on and below the diagonal, 0 above."""
        return self.values.sum(dim=1)


def positional_qk(weights: Weights, head: Head, n_ctx: int | None = None) -> Float[Tensor, "query key"]:
    """W_pos W_Q W_K^T W_pos^T / sqrt(d_head), -inf where the key comes after the query; without b_Q and b_K.

    Scores are this over s_q s_k, the divisors of the norm. float32, on the device of the weights.

    Args:
        n_ctx: the first so many positions; the whole context by default.

    Raises:
        ValueError: the head does not exist, the model is rotary, or n_ctx is not 1 to the context.

    Source: Elhage et al. 2021, "Primarily Positional Attention Heads".
    """
    weights.check_heads(head)
    P = _positions(weights)
    if n_ctx is not None and not 1 <= n_ctx <= len(P):
        raise ValueError(f"n_ctx={n_ctx}: expected 1 to {len(P)} positions, the context of the model")
    P = P[:n_ctx]
    scores = (P @ weights.W_Q[head]) @ (P @ weights.W_K[head]).mT / weights.d_head**0.5
    future = torch.ones_like(scores, dtype=torch.bool).triu(1)
    masked: Tensor = scores.masked_fill(future, -torch.inf)
    return masked


def typical_scale(weights: Weights) -> float:
    """Mean of s(W_E[t] + W_pos[p]), the first norm's divisor, over an even grid of tokens and positions.

    The grid has up to 256 of each, from the first to the last; it is the same at every call.

    Raises:
        ValueError: the model is rotary.
    """
    P = _positions(weights)
    tokens, positions = (torch.linspace(0, n - 1, min(n, GRID)).round().long() for n in (len(weights.W_E), len(P)))
    total = sum(weights.scale(weights.W_E[tokens] + P[position]).mean() for position in positions)
    return float(total) / len(positions)


def positional_pattern(
    weights: Weights, head: Head, *, n_ctx: int | None = None, scale: float | None = None
) -> Float[Tensor, "query key"]:
    """Softmax over keys of `positional_qk` / scale^2: where a head would attend if it saw positions alone.

    Approximate for any real token: see the module. float32, on the device of the weights; rows sum to 1.

    Args:
        n_ctx: the first so many positions; the whole context by default.
        scale: the divisor of queries and keys; `typical_scale` by default.

    Raises:
        ValueError: as `positional_qk`; `scale` is not positive.

    Source: as `positional_qk`.
    """
    scale = typical_scale(weights) if scale is None else scale
    if not scale > 0:
        raise ValueError(f"scale={scale}: expected a positive divisor, as s(x) of the norm is")
    return (positional_qk(weights, head, n_ctx) / scale**2).softmax(dim=-1)


def previous_position_share(
    weights: Weights, *, n_ctx: int | None = None, scale: float | None = None
) -> Float[Tensor, "layer head"]:
    """Mean over queries q >= 1 of `positional_pattern`[q, q - 1], from 0 to 1, for every head.

    High in layer 0: a head that attends to the previous token by position. Above: by the direct path of W_pos, while
    earlier layers may add to it. One head at a time, with n_ctx^2 numbers each. Arguments as in `positional_pattern`.

    Raises:
        ValueError: as `positional_pattern`; n_ctx is 1, so that no query has a position before it.

    Source: as `positional_qk`; for patterns on tokens see `circuits.previous_token_scores`.
    """
    if n_ctx == 1 or (n_ctx is None and len(_positions(weights)) == 1):
        raise ValueError("n_ctx=1: expected at least 2 positions, so that one has a previous one")
    scale = typical_scale(weights) if scale is None else scale
    shares = weights.W_E.new_empty(weights.n_layers, weights.n_heads)
    for layer in range(weights.n_layers):
        for head in range(weights.n_heads):
            pattern = positional_pattern(weights, (layer, head), n_ctx=n_ctx, scale=scale)
            shares[layer, head] = pattern.diagonal(-1).mean()
    return shares


def position_and_token_parts(
    model: Bridge, tokens: Int[Tensor, "batch pos"], head: Head, *, weights: Weights | None = None
) -> PositionAndTokenParts:
    """Scores of a layer-0 head on real tokens, over s_q s_k sqrt(d_head), by what of the embedding is read; exact.

    Part "token-position" is W_E[t_q] W_Q W_K^T W_pos[k]^T, and so on: first what the query reads, then the key. "bias"
    is every term with b_Q or b_K (which hold the bias of the norm). float32, on the model's device.

    Args:
        weights: `read_weights(model)`, if it is at hand.

    Raises:
        ValueError: the head does not exist or is not in layer 0; the model is rotary; from
            `decompose_attention_scores`, which computes it.

    Source: Elhage et al. 2021, "Splitting Attention Head terms into Query-Key and Output-Value Circuits".
    """
    check_heads(model, [head])
    if model.cfg.positional_embedding_type == "rotary":
        raise ValueError(_ROTARY)
    if head[0] != 0:
        raise ValueError(
            f"head {head} is in layer {head[0]}: expected layer 0, which reads tokens and positions alone; split the "
            f"scores of later heads with circuits.decompose_attention_scores"
        )
    values = decompose_attention_scores(model, tokens, head, weights=weights).values
    token, position, bias = 0, 1, 2
    parts = [values[:, query, key] for query in (token, position) for key in (token, position)]
    parts.append(values[:, bias].sum(dim=1) + values[:, :bias, bias].sum(dim=1))
    return PositionAndTokenParts(PARTS, torch.stack(parts, dim=1))


_ROTARY = (
    "the model has rotary positions: expected learned position embeddings; rotary positions turn queries and keys and "
    "are not in the residual stream; look at patterns on tokens with circuits.previous_token_scores"
)


def _positions(weights: Weights) -> Float[Tensor, "n_ctx d_model"]:
    if weights.W_pos is None:
        raise ValueError(_ROTARY)
    return weights.W_pos

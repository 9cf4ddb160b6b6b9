"""Attention scores as a sum over pairs: a component of the stream that the query reads, and one that the key reads.

    score[q, k] = sum_{i,j} Q_i[q] . K_j[k] / sqrt(d_head)
    Q_i[q] = R_q (x_i[q] / s[q] W_Q),    K_j[k] = R_k (x_j[k] / s[k] W_K),    x = sum_i x_i

(Elhage et al. 2021, "A Mathematical Framework for Transformer Circuits", "Q- and K-composition": the term whose key
component is an earlier head is K-composition with it.) The x_i are the token and position embeddings (with rotary
positions just the embedding), the earlier heads z W_O, the earlier MLPs with their biases, and "bias": the earlier
b_O, with b_Q or b_K added after the division by s. R is the rotation of rotary models by their own cos and sin, of the
first n dimensions of a head, d turned together with d + n/2. Exact before the softmax, with the divisor s of the norm
at its real value; every call compares the softmax of the sums with the model's own pattern (the hook of the scores
itself holds the pattern in native bridges) and refuses a model with another rule.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Float, Int
from torch import Tensor

from circuits.attribution import mlp_hooks, writer_labels
from circuits.bridge import Bridge, chunks, hook_name, record
from circuits.head_outputs import Head, per_head
from circuits.lens import stream_hooks
from circuits.tokens import check_tokens
from circuits.weights import Weights, read_weights


@dataclass(frozen=True)
class AttentionScoreParts:
    """Scores of one head before the softmax, by pair of components; 0 above the diagonal, which the model masks."""

    query_labels: tuple[str, ...]
    key_labels: tuple[str, ...]
    values: Float[Tensor, "batch query_component key_component query key"]

    @property
    def total(self) -> Float[Tensor, "batch query key"]:
        """The model's scores q . k / sqrt(d_head) on and below the diagonal, 0 above."""
        return self.values.sum(dim=(1, 2))


def score_labels(model: Bridge, layer: int) -> tuple[str, ...]:
    """Components that a layer reads: "tokens", "positions" (or "embed"), "L0H0", ..., "MLP0", ..., "bias"."""
    earlier = range(layer)
    embeddings = ("embed",) if _is_rotary(model) else ("tokens", "positions")
    return (*embeddings, *writer_labels(earlier, model.cfg.n_heads, mlp_hooks(model, earlier)), "bias")


@torch.no_grad()
def decompose_attention_scores(
    model: Bridge, tokens: Int[Tensor, "batch pos"], head: Head, *, weights: Weights | None = None
) -> AttentionScoreParts:
    """Scores of `head`, already divided by sqrt(d_head), by pair of components; float32, on the model's device.

    Holds batch x components^2 x pos^2 numbers: 15 MB a sequence of 128 tokens in layer 1 of a model of 12 heads without
    MLPs. For many sequences use `mean_score_parts`.

    Raises:
        ValueError: the head does not exist; token and position embeddings do not sum to the stream; the sums
            do not give the model's pattern (another rotary convention or score scale, a window, or weights of another
            model); from `check_tokens` and `read_weights`.

    Source: Elhage et al. 2021, "Q- and K-composition".
    """
    check_tokens(model, tokens)
    weights = read_weights(model) if weights is None else weights
    weights.check_heads(head)
    labels = score_labels(model, head[0])
    queries, keys = _read(model, tokens, head, weights)
    values = torch.einsum("ibqd,jbkd->bijqk", queries, keys).tril_() / weights.d_head**0.5
    return AttentionScoreParts(labels, labels, values)


@torch.no_grad()
def mean_score_parts(
    model: Bridge,
    tokens: Int[Tensor, "batch pos"],
    head: Head,
    *,
    queries: Sequence[int],
    keys: Sequence[int],
    weights: Weights | None = None,
    batch_size: int = 8,
) -> Float[Tensor, "batch query_component key_component"]:
    """Mean of `decompose_attention_scores` over the entries (queries[n], keys[n]) of each sequence.

    Holds no pos^2 numbers but those of the pattern that the model itself computes.

    Both component axes are labelled by `score_labels(model, head[0])`. float32, on the model's device.

    Args:
        queries, keys: positions, one key for each query, none after its query.

    Raises:
        ValueError: as in `decompose_attention_scores`; the pairs are none, unequal in number, or not k <= q < pos.

    Source: Elhage et al. 2021, "Q- and K-composition".
    """
    check_tokens(model, tokens)
    weights = read_weights(model) if weights is None else weights
    weights.check_heads(head)
    _check_pairs(queries, keys, tokens.shape[1])
    at_query, at_key = list(queries), list(keys)
    parts = []
    for rows in chunks(len(tokens), batch_size):
        q, k = _read(model, tokens[rows], head, weights)
        sums = torch.einsum("ibnd,jbnd->bij", q[:, :, at_query], k[:, :, at_key])
        parts.append(sums / (weights.d_head**0.5 * len(at_query)))
    return torch.cat(parts)


def rotate(
    x: Float[Tensor, "component batch pos d_head"],
    cos: Float[Tensor, "... pos rotated"],
    sin: Float[Tensor, "... pos rotated"],
) -> Float[Tensor, "component batch pos d_head"]:
    """R x: dimensions d and d + n/2 of the first n = `rotated` ones turned by the angle of their position."""
    n = cos.shape[-1]
    turned, rest = x[..., :n], x[..., n:]
    quarter = torch.cat([-turned[..., n // 2 :], turned[..., : n // 2]], dim=-1)
    return torch.cat([turned * cos + quarter * sin, rest], dim=-1)


def _read(
    model: Bridge, tokens: Int[Tensor, "batch pos"], head: Head, weights: Weights
) -> tuple[Float[Tensor, "component batch pos d_head"], Float[Tensor, "component batch pos d_head"]]:
    """Q_i and K_j of all components, in one forward pass that ends in the head's layer, checked against its pattern."""
    layer, at = head
    earlier, stream = range(layer), stream_hooks(weights.n_layers)
    mlps = mlp_hooks(model, earlier)
    z_names, pattern_name = [hook_name(model, j, "hook_z") for j in earlier], hook_name(model, layer, "hook_pattern")
    embeddings = [] if weights.rotary else ["hook_embed", "hook_pos_embed"]
    angles = [hook_name(model, layer, name) for name in ("hook_cos", "hook_sin")] if weights.rotary else []
    wanted = [stream[0], stream[layer], pattern_name, *z_names, *mlps.values(), *embeddings, *angles]
    seen = record(model, tokens, wanted)
    pattern = seen[pattern_name][:, at]
    seen = {name: value.float() for name, value in seen.items() if name != pattern_name}
    sources = [seen[name].expand_as(seen[stream[0]]) for name in embeddings] or [seen[stream[0]]]
    _check_embeddings(sources, seen[stream[0]])
    scale = weights.scale(seen[stream[layer]])

    def project(
        W: Float[Tensor, "d_model d_head"], b: Float[Tensor, " d_head"]
    ) -> Float[Tensor, "component batch pos d_head"]:
        read = [x @ W for x in sources]
        for j, name in zip(earlier, z_names, strict=True):
            z = per_head(seen[name], weights.n_heads)
            read += torch.einsum("bphd,hde->hbpe", z, weights.W_O[j] @ W)
            read += [seen[mlps[j]] @ W] if j in mlps else []
        read.append((weights.b_O[:layer].sum(dim=0) @ W).expand_as(read[0]))
        projected = torch.stack(read) / scale
        projected[-1] += b
        return rotate(projected, *(seen[name] for name in angles)) if angles else projected

    queries = project(weights.W_Q[layer, at], weights.b_Q[layer, at])
    keys = project(weights.W_K[layer, at], weights.b_K[layer, at])
    _check_pattern(head, queries.sum(dim=0) @ keys.sum(dim=0).mT / weights.d_head**0.5, pattern)
    return queries, keys


def _is_rotary(model: Bridge) -> bool:
    return bool(model.cfg.positional_embedding_type == "rotary")


def _check_embeddings(sources: list[Tensor], stream: Float[Tensor, "batch pos d_model"]) -> None:
    error = float((torch.stack(sources).sum(dim=0) - stream).abs().max())
    if not error <= 1e-2 * (1 + float(stream.abs().max())):
        raise ValueError(
            f"hook_embed + hook_pos_embed is {error:.1e} off blocks.0.hook_resid_pre: expected a stream that starts as "
            f"their sum; embeddings with a norm or a factor are not supported"
        )


def _check_pattern(
    head: Head, scores: Float[Tensor, "batch query key"], pattern: Float[Tensor, "batch query key"]
) -> None:
    """Refuse a model whose scores the equation does not give."""
    future = torch.ones_like(scores[0], dtype=torch.bool).triu(1)
    error = float((scores.masked_fill(future, -torch.inf).softmax(dim=-1) - pattern).abs().max())
    if not error <= (1e-3 if pattern.dtype == torch.float32 else 0.1):
        raise ValueError(
            f"softmax of the sums is {error:.1e} off the pattern of head {head}: expected causal scores q . k / "
            f"sqrt(d_head), rotary dimensions d and d + n/2 turned together; give weights=read_weights(model) of this "
            f"model, or decompose a model with these rules"
        )


def _check_pairs(queries: Sequence[int], keys: Sequence[int], length: int) -> None:
    if len(queries) != len(keys) or not queries:
        raise ValueError(
            f"{len(queries)} queries and {len(keys)} keys: expected as many of both, at least one; give the key that "
            f"belongs to each query"
        )
    for query, key in zip(queries, keys, strict=True):
        if not 0 <= key <= query < length:
            raise ValueError(
                f"query {query} with key {key}: expected 0 <= key <= query <= {length - 1} (the last position), which "
                f"is what a causal head reads"
            )

"""Attention patterns: what each query position reads from each key position.

    A_{l,h}[q, k] = softmax_k( Q_{l,h}[q] . K_{l,h}[k] / sqrt(d_head) ),    k <= q

(Elhage et al. 2021, "A Mathematical Framework for Transformer Circuits".) One layer's pattern of a batch holds
batch x head x pos^2 numbers, so the patterns of a model rarely fit in memory: `reduce_patterns` hands them to a
function one layer and one batch at a time and keeps only what that returns. Each forward pass ends at the last pattern,
so logits are never computed.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

import torch
from jaxtyping import Float, Int
from torch import Tensor

from circuits.bridge import Bridge, chunks, read_layers
from circuits.tokens import check_tokens

PatternReducer = Callable[[Tensor, Tensor], Tensor]
"""From a layer's pattern [batch, head, query, key] and the tokens [batch, pos] to a tensor [batch, ...]."""


def reduce_patterns(
    model: Bridge, tokens: Int[Tensor, "batch pos"], reduce: PatternReducer, *, batch_size: int = 8
) -> Float[Tensor, "batch layer *reduced"]:
    """`reduce(pattern, tokens)` of every layer, stacked; float32, on the device of `tokens`.

    Args:
        reduce: sees one layer of at most `batch_size` sequences, in float32, on the model's device.
        batch_size: sequences a forward pass.

    Raises:
        ValueError: from `check_tokens`.
    """
    check_tokens(model, tokens)
    layers = range(model.cfg.n_layers)
    reduced = []
    for rows in chunks(len(tokens), batch_size):
        chunk = tokens[rows].to(model.cfg.device)
        by_layer = read_layers(model, chunk, "hook_pattern", layers, partial(_reduced, chunk, reduce))
        reduced.append(torch.stack([by_layer[layer] for layer in layers], dim=1).to(tokens.device))
    return torch.cat(reduced)


def attention_patterns(
    model: Bridge, tokens: Int[Tensor, "batch pos"], *, batch_size: int = 8
) -> Float[Tensor, "layer batch head query key"]:
    """A_{l,h}[q, k] of every layer and head; float32, on the device of `tokens`. Every row sums to 1.

    Holds layer x batch x head x pos^2 numbers at once: for more than a few short sequences use `reduce_patterns`.

    Raises:
        ValueError: from `check_tokens`.
    """
    by_sequence = reduce_patterns(model, tokens, lambda pattern, _: pattern, batch_size=batch_size)
    return by_sequence.transpose(0, 1)


def _reduced(tokens: Int[Tensor, "batch pos"], reduce: PatternReducer, pattern: Tensor) -> Tensor:
    return reduce(pattern.float(), tokens)

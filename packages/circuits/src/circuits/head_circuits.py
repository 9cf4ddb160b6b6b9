"""The QK and OV circuits of attention heads: which tokens a head attends to, and what attending to them does.

    W_OV = W_V W_O    [d_model, d_model]        W_E W_V W_O W_U            [d_vocab, d_vocab_out]
    W_QK = W_Q W_K^T  [d_model, d_model]        W_E W_Q W_K^T W_E^T        [d_vocab, d_vocab]

(Elhage et al. 2021, "A Mathematical Framework for Transformer Circuits", "Splitting Attention Head terms into Query-Key
and Output-Value Circuits"; vectors stand on the left here.) In a one-layer attention-only model, entry (A, B) of the
full OV circuit, over the divisors of the two norms, is what a head adds to the logit of B per unit of attention to A;
entry (A, B) of the full QK circuit is the attention score of a query on A for a key on B times
s_query s_key sqrt(d_head). The products are exact and stay factored. Left out are the biases b_Q, b_K and b_V (which
hold the bias of the norm), position embeddings, and, in deeper models, everything that other layers add to the stream:
there the circuits are those of the direct path. In rotary models the score is x_q W_Q R^(k - q) W_K^T x_k: there is no
one W_QK, and the QK functions refuse. Another table of vectors can take the place of W_E: `effective_embedding` is
usual for GPT-2, whose later heads read what the first MLP made of a token.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, cast

import torch
from jaxtyping import Float
from torch import Tensor

from circuits.bridge import Bridge, chunks, inference
from circuits.factored import FactoredMatrix, factored
from circuits.head_outputs import Head
from circuits.weights import Weights


def ov_circuit(weights: Weights, head: Head) -> FactoredMatrix:
    """W_OV = W_V W_O, [d_model, d_model], factored: what a head writes of x is (x / s) W_OV per unit of attention.

    Without b_V and b_O, which do not depend on x. Rotary or not.

    Raises:
        ValueError: the head does not exist.

    Source: Elhage et al. 2021, "Splitting Attention Head terms into Query-Key and Output-Value Circuits".
    """
    weights.check_heads(head)
    return factored(weights.W_V[head], weights.W_O[head])


def qk_circuit(weights: Weights, head: Head) -> FactoredMatrix:
    """W_QK = W_Q W_K^T, [d_model, d_model], factored: scores are x_q W_QK x_k^T / (s_q s_k sqrt(d_head)).

    Without b_Q and b_K.

    Raises:
        ValueError: the head does not exist, or the model is rotary.

    Source: Elhage et al. 2021, "Splitting Attention Head terms into Query-Key and Output-Value Circuits".
    """
    weights.check_heads(head)
    _refuse_rotary(weights)
    return factored(weights.W_Q[head], weights.W_K[head].mT)


def full_ov_circuit(
    weights: Weights, heads: Head | Sequence[Head], *, embedding: Float[Tensor, "tokens d_model"] | None = None
) -> FactoredMatrix:
    """W_E W_V W_O W_U, [d_vocab, d_vocab_out], factored; for several heads the sum, with inner size heads x d_head.

    Entry (A, B): how far attending to token A raises the logit of B, times the divisors of the head's norm and of the
    final norm; without b_V and b_U. Of heads above layer 0 it is the direct path from the embedding. Rotary or not.

    Args:
        embedding: takes the place of W_E, e.g. `normalised_embedding` or `effective_embedding`.

    Raises:
        ValueError: there is no head, a head does not exist or is given twice, or `embedding` has another d_model.

    Source: Elhage et al. 2021, "Splitting Attention Head terms into Query-Key and Output-Value Circuits"; the sum over
    heads is that of "Path Expansion Trick".
    """
    summed = as_heads(heads)
    weights.check_heads(*summed)
    W_V = torch.cat([weights.W_V[head] for head in summed], dim=1)
    W_O = torch.cat([weights.W_O[head] for head in summed], dim=0)
    return factored(embedding_or_own(weights, embedding) @ W_V, W_O @ weights.W_U)


def full_qk_circuit(
    weights: Weights, head: Head, *, embedding: Float[Tensor, "tokens d_model"] | None = None
) -> FactoredMatrix:
    """W_E W_Q W_K^T W_E^T, [d_vocab, d_vocab], factored.

    Entry (A, B): how much a query on token A attends to a key on B; the score itself is the entry divided by
    s_A s_B sqrt(d_head), s being the norm's divisors (`normalised_embedding` puts those of bare tokens in). Without b_Q
    and b_K. The softmax compares entries of one row, and only those: what they have in common has no effect.

    Args:
        embedding: takes the place of W_E on both sides.

    Raises:
        ValueError: the head does not exist, the model is rotary, or `embedding` has another d_model.

    Source: Elhage et al. 2021, "Splitting Attention Head terms into Query-Key and Output-Value Circuits".
    """
    weights.check_heads(head)
    _refuse_rotary(weights)
    E = embedding_or_own(weights, embedding)
    return factored(E @ weights.W_Q[head], (E @ weights.W_K[head]).mT)


def normalised_embedding(weights: Weights) -> Float[Tensor, "d_vocab d_model"]:
    """W_E[t] / s(W_E[t]): the tokens as the first layer's norm passes them on where nothing else is in the stream.

    Without position embeddings, which change s on real positions; the gain of the norm is in the weights that read.
    """
    return weights.W_E / weights.scale(weights.W_E)


def effective_embedding(model: Bridge, *, chunk: int = 4096) -> Float[Tensor, "d_vocab d_model"]:
    """W_E + MLP_0(Norm(W_E)): the stream after block 0 of a model without positions and attention; float32.

    The residual stream has been through one nonlinear layer, token by token; where that layer computes features of
    tokens, circuits of later heads are legible in these and not in W_E. Not exact for any real input: block 0's
    attention, its output bias and the positions are left out. Its mean over d_model stays in; norms that take a mean
    off do not see it. Holds `chunk` x d_mlp numbers at a time, in the model's dtype; on the model's device.

    Args:
        chunk: tokens a pass through the MLP.

    Raises:
        ValueError: the model's first block has no MLP.
    """
    bridge: Any = model
    block: Any = bridge.blocks[0] if len(bridge.blocks) else None
    if not all(hasattr(block, part) for part in ("ln2", "mlp")):
        raise ValueError(
            f"{type(model).__name__} has no MLP in block 0: expected a model with MLPs; the embedding of an "
            f"attention-only model is W_E, which is used without `embedding`"
        )
    W_E = bridge.W_E
    with inference(model):
        parts = [W_E[some] + block.mlp(block.ln2(W_E[None, some]))[0] for some in chunks(len(W_E), chunk)]
    return torch.cat(parts).detach().float()


def as_heads(heads: Head | Sequence[Head]) -> list[Head]:
    """One head or several as a list.

    Raises:
        ValueError: there is none, or one is given twice.
    """
    several = (
        [cast(Head, heads)] if len(heads) == 2 and isinstance(heads[0], int) else list(cast(Sequence[Head], heads))
    )
    if not several or len(set(several)) < len(several):
        raise ValueError(f"heads are {several}: expected at least one (layer, head), each given once")
    return several


def embedding_or_own(
    weights: Weights, embedding: Float[Tensor, "tokens d_model"] | None
) -> Float[Tensor, "tokens d_model"]:
    """`embedding` in the dtype and on the device of the weights, or W_E if there is none.

    Raises:
        ValueError: it is not made of vectors of the stream.
    """
    if embedding is None:
        return weights.W_E
    d_model = weights.W_E.shape[1]
    if embedding.ndim != 2 or embedding.shape[1] != d_model:
        raise ValueError(
            f"embedding has shape {tuple(embedding.shape)}: expected [d_vocab, {d_model}], one vector of the residual "
            f"stream a token"
        )
    return embedding.to(weights.W_E)


def _refuse_rotary(weights: Weights) -> None:
    if weights.rotary:
        raise ValueError(
            "the model has rotary positions: W_Q W_K^T is its QK circuit at no distance but 0, as queries and keys are "
            "turned by the distance between them; expected learned positions; split the scores on real tokens with "
            "circuits.decompose_attention_scores"
        )

"""Circuits through two heads, from tokens to tokens: what a later head reads of what an earlier head has moved.

    K-composition    W_E W_Q2 (W_E W_V1 W_O1 W_K2)^T        (A, B): a query on A, a key that holds head 1's copy of B
    Q-composition    (W_E W_V1 W_O1 W_Q2) (W_E W_K2)^T      (A, B): a query that holds head 1's copy of A, a key on B
    V-composition    W_E W_V1 W_O1 W_V2 W_O2 W_U            (A, B): A moved by head 1, then by head 2, raises logit B

(Elhage et al. 2021, "A Mathematical Framework for Transformer Circuits", "Three Kinds of Composition" and its section
on induction heads; vectors stand on the left here.) The K-composition circuit of a previous-token head and an induction
head has its largest entries on the diagonal: a query on A matches the key whose previous token was A, whatever stands
at that key. Each is one path of many, from token embeddings alone: without positions, biases, MLPs and the attention
patterns of the earlier head, and before the norms' divisors and the 1 / sqrt(d_head) of attention scores; these
divisors are positive and scale an entry, never its sign. The products are exact and stay factored, so that nothing of
vocabulary x vocabulary is formed; `circuits.diagonal` reads the diagonal out of them.
"""

from __future__ import annotations

from jaxtyping import Float
from torch import Tensor

from circuits.factored import FactoredMatrix, factored
from circuits.head_outputs import Head
from circuits.weights import Weights


def k_composition_circuit(
    weights: Weights, earlier: Head, later: Head, *, embedding: Float[Tensor, "d_vocab d_model"] | None = None
) -> FactoredMatrix:
    """W_E W_Q2 (W_E W_V1 W_O1 W_K2)^T, [d_vocab, d_vocab], factored; without biases and divisors.

    Entry (A, B): how strongly a query on token A attends to a position to which `earlier` has moved token B.

    Args:
        embedding: takes the place of W_E on both sides.

    Raises:
        ValueError: a head does not exist, `earlier` is not in an earlier layer, the model is rotary, or `embedding`
            has another d_model.
    """
    _check_pair(weights, earlier, later)
    _refuse_rotary(weights, "k_composition_circuit")
    E = _embedding(weights, embedding)
    return factored(E @ weights.W_Q[later], _moved(weights, earlier, weights.W_K[later], E).mT)


def q_composition_circuit(
    weights: Weights, earlier: Head, later: Head, *, embedding: Float[Tensor, "d_vocab d_model"] | None = None
) -> FactoredMatrix:
    """(W_E W_V1 W_O1 W_Q2) (W_E W_K2)^T, [d_vocab, d_vocab], factored; without biases and divisors.

    Entry (A, B): how strongly a query to which `earlier` has moved token A attends to token B.

    Args:
        embedding: takes the place of W_E on both sides.

    Raises:
        ValueError: as `k_composition_circuit`.
    """
    _check_pair(weights, earlier, later)
    _refuse_rotary(weights, "q_composition_circuit")
    E = _embedding(weights, embedding)
    return factored(_moved(weights, earlier, weights.W_Q[later], E), (E @ weights.W_K[later]).mT)


def v_composition_circuit(
    weights: Weights, earlier: Head, later: Head, *, embedding: Float[Tensor, "d_vocab d_model"] | None = None
) -> FactoredMatrix:
    """W_E W_V1 W_O1 W_V2 W_O2 W_U, [d_vocab, d_vocab_out], factored; without biases and divisors. Rotary or not.

    Entry (A, B): how far token A, moved by `earlier` and then by `later` (a virtual head, Elhage et al. 2021, "Virtual
    Attention Heads"), raises the logit of B, in logits times the three norms' divisors.

    Args:
        embedding: takes the place of W_E.

    Raises:
        ValueError: a head does not exist, `earlier` is not in an earlier layer, or `embedding` has another d_model.
    """
    _check_pair(weights, earlier, later)
    moved = _moved(weights, earlier, weights.W_V[later], _embedding(weights, embedding))
    return factored(moved, weights.W_O[later] @ weights.W_U)


def _moved(
    weights: Weights,
    earlier: Head,
    read: Float[Tensor, "d_model d_head"],
    embedding: Float[Tensor, "d_vocab d_model"],
) -> Float[Tensor, "d_vocab d_head"]:
    """W_E W_V1 W_O1 W_read2, multiplied from the small side."""
    return embedding @ weights.W_V[earlier] @ (weights.W_O[earlier] @ read)


def _check_pair(weights: Weights, earlier: Head, later: Head) -> None:
    weights.check_heads(earlier, later)
    if earlier[0] >= later[0]:
        raise ValueError(
            f"earlier={earlier} is not in an earlier layer than later={later}: expected a head of layer 0 to "
            f"{later[0] - 1} as the earlier one; heads of a layer run side by side"
        )


def _refuse_rotary(weights: Weights, name: str) -> None:
    if weights.rotary:
        raise ValueError(
            f"{name}: the model is rotary, so that the match of query and key depends on their distance; expected "
            f"learned positions; use path_ablated on real tokens (v_composition_circuit works for rotary models too)"
        )


def _embedding(
    weights: Weights, embedding: Float[Tensor, "d_vocab d_model"] | None
) -> Float[Tensor, "d_vocab d_model"]:
    if embedding is None:
        return weights.W_E
    if embedding.ndim != 2 or embedding.shape[1] != weights.W_E.shape[1]:
        raise ValueError(
            f"embedding has shape {tuple(embedding.shape)}: expected [d_vocab, {weights.W_E.shape[1]}], a vector of "
            f"the residual stream a token"
        )
    return embedding.to(weights.W_E)

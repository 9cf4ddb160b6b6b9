"""Copying: whether attending to a token raises the logit of that token.

    M = W_E W_V W_O W_U                             full OV circuit, [d_vocab, d_vocab]
    accuracy at k = share of tokens t with fewer than k entries of row t above M[t, t]
    score = sum_i Re(lambda_i) / sum_i |lambda_i|   between -1 and 1, lambda_i the eigenvalues of M

(Elhage et al. 2021, "A Mathematical Framework for Transformer Circuits", "Copying / Primitive In-context Learning" and
"Summarizing OV/QK Matrices"; vectors stand on the left here.) The nonzero eigenvalues of M = (W_E W_V) (W_O W_U) are
those of the d_head x d_head matrix (W_O W_U) (W_E W_V) = W_O (W_U W_E) W_V, where W_U W_E, [d_model, d_model], is the
same for all heads; nothing of d_vocab x d_vocab is formed, and all of this is exact. Positive eigenvalues mean that
there are directions of tokens that raise themselves, not that any single token raises itself most: that is what the
accuracy counts, which `circuits.diagonal` reads out of the factors. Both are of the direct path, without biases and
positions. Dividing a row by a positive number, such as the norm's divisor, changes no rank; it does change eigenvalues:
`normalised_embedding` as `embedding` puts the divisors of bare tokens in.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from jaxtyping import Complex, Float, Int
from torch import Tensor

from circuits.diagonal import diagonal_in_top, diagonal_ranks
from circuits.head_circuits import embedding_or_own, full_ov_circuit
from circuits.head_outputs import Head
from circuits.weights import Weights


def copying_accuracy(
    weights: Weights,
    *,
    k: Sequence[int] = (1, 5),
    tokens: Int[Tensor, " n"] | None = None,
    embedding: Float[Tensor, "d_vocab d_model"] | None = None,
) -> Float[Tensor, "layer head len_k"]:
    """Share of source tokens whose own logit is among the k that attending to them raises most, for every head.

    Chance is k / d_vocab. One head at a time: holds its two factors, 2 x d_vocab x d_head numbers (26 MB in GPT-2), and
    what `diagonal_in_top` needs; float32, on the device of the weights.

    Args:
        k: numbers of largest logits.
        tokens: the source tokens that are counted, by number; all by default. They compete with the whole vocabulary.
        embedding: takes the place of W_E, e.g. `effective_embedding`.

    Raises:
        ValueError: input and output vocabulary differ; a k or a token is out of range; there are no tokens; `embedding`
            has another shape than W_E.

    Source: Elhage et al. 2021, "Copying / Primitive In-context Learning".
    """
    every = [(layer, head) for layer in range(weights.n_layers) for head in range(weights.n_heads)]
    shares = [copying_accuracy_of_sum(weights, head, k=k, tokens=tokens, embedding=embedding) for head in every]
    found = torch.stack(shares) if shares else weights.W_E.new_zeros(0, len(k))
    return found.view(weights.n_layers, weights.n_heads, len(k))


def copying_accuracy_of_sum(
    weights: Weights,
    heads: Head | Sequence[Head],
    *,
    k: Sequence[int] = (1, 5),
    tokens: Int[Tensor, " n"] | None = None,
    embedding: Float[Tensor, "d_vocab d_model"] | None = None,
) -> Float[Tensor, " len_k"]:
    """`copying_accuracy` of the sum of the heads' full OV circuits: of heads that attend to the same token together.

    Raises:
        ValueError: as `copying_accuracy` and `full_ov_circuit`.

    Source: Elhage et al. 2021, "Copying / Primitive In-context Learning".
    """
    circuit = full_ov_circuit(weights, heads, embedding=_of_vocabulary(weights, embedding))
    top = diagonal_in_top(circuit, k, rows=tokens)
    if not len(top):
        raise ValueError("tokens are empty: expected at least one source token, to take a share of")
    return top.float().mean(dim=0)


def copying_ranks(
    weights: Weights,
    heads: Head | Sequence[Head],
    tokens: Int[Tensor, " n"],
    *,
    embedding: Float[Tensor, "d_vocab d_model"] | None = None,
) -> Int[Tensor, " n"]:
    """How many logits attending to a token raises more than its own: 0 if none; for each of `tokens`, summed heads.

    Raises:
        ValueError: as `copying_accuracy` and `full_ov_circuit`.

    Source: Elhage et al. 2021, "Copying / Primitive In-context Learning".
    """
    return diagonal_ranks(full_ov_circuit(weights, heads, embedding=_of_vocabulary(weights, embedding)), rows=tokens)


def ov_eigenvalues(
    weights: Weights, *, embedding: Float[Tensor, "d_vocab d_model"] | None = None
) -> Complex[Tensor, "layer head d_head"]:
    """The eigenvalues of every head's full OV circuit, apart from zeros, in no order; complex64, in logits.

    Up to d_head of the d_vocab are not zero. Computed as those of W_O (W_U W_E) W_V.

    Raises:
        ValueError: input and output vocabulary differ; `embedding` has another shape than W_E.

    Source: Elhage et al. 2021, "Summarizing OV/QK Matrices".
    """
    from_logits_to_stream = weights.W_U @ _of_vocabulary(weights, embedding)
    found: Tensor = torch.linalg.eigvals(weights.W_O @ from_logits_to_stream @ weights.W_V)
    return found


def copying_scores(
    weights: Weights, *, embedding: Float[Tensor, "d_vocab d_model"] | None = None
) -> Float[Tensor, "layer head"]:
    """sum Re(lambda) / sum |lambda| over the eigenvalues of the full OV circuit, from -1 to 1, for every head.

    1 if all are positive, about 0 for random weights; NaN for a head whose OV circuit is 0.

    Raises:
        ValueError: as `ov_eigenvalues`.

    Source: Elhage et al. 2021, "Summarizing OV/QK Matrices".
    """
    eigenvalues = ov_eigenvalues(weights, embedding=embedding)
    return eigenvalues.real.sum(dim=-1) / eigenvalues.abs().sum(dim=-1)


def positive_eigenvalue_share(
    weights: Weights, *, embedding: Float[Tensor, "d_vocab d_model"] | None = None
) -> Float[Tensor, "layer head"]:
    """Share of the d_head eigenvalues with a positive real part, from 0 to 1, each counted alike, for every head.

    Unlike `copying_scores` it gives an eigenvalue near 0, whose sign says little, as much say as the largest.

    Raises:
        ValueError: as `ov_eigenvalues`.

    Source: Elhage et al. 2021, "Summarizing OV/QK Matrices".
    """
    return (ov_eigenvalues(weights, embedding=embedding).real > 0).float().mean(dim=-1)


def _of_vocabulary(
    weights: Weights, embedding: Float[Tensor, "tokens d_model"] | None
) -> Float[Tensor, "d_vocab d_model"]:
    """The embedding, one vector for each logit, so that row t and column t are the same token."""
    E, d_vocab_out = embedding_or_own(weights, embedding), weights.W_U.shape[1]
    if len(E) != d_vocab_out:
        raise ValueError(
            f"{len(E)} tokens are embedded and {d_vocab_out} have logits: expected as many of both, to compare a token "
            f"with itself; choose the columns of full_ov_circuit(...).B that belong to the tokens"
        )
    return E

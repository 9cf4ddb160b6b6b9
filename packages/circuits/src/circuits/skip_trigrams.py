"""Skip-trigrams of a head: [source] ... [destination] -> [output], read from its QK and OV circuits.

    qk[D, S] = (QK[D, S] - mean_S' QK[D, S']) / sigma_QK     QK = W_E W_Q W_K^T W_E^T
    ov[S, O] = (OV[S, O] - mean_O' OV[S, O']) / sigma_OV     OV = W_E W_V W_O W_U
    strength of (S, D, O) = qk[D, S] ov[S, O],               both positive

(Elhage et al. 2021, "A Mathematical Framework for Transformer Circuits", "Interpretation as Skip-Trigrams": a one-layer
attention-only model is a table of bigrams and of these.) A query on the destination D attends to an earlier source S,
which raises the logit of O as the next token. The mean of each row is taken off because the softmax over sources, and
that over outputs, does not see what a row has in common; sigma, the root mean square of all centred entries, is one
number a circuit and only sets the unit. This way of ranking is a choice of ours. For one source the strongest
skip-trigram is its best destination with its best output, as the two are independent, so that the list of the strongest
of each source is exact; it costs 2 d_vocab^2 products, of which chunk^2 are held at a time. What is left out of the
circuits (divisors of the norm, positions, biases) is left out here: D or S may stand high for the mere size of its
embedding, against which `normalised_embedding` can be given as `embedding`.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from jaxtyping import Float, Int
from torch import Tensor

from circuits.bridge import chunks
from circuits.diagonal import check_indices
from circuits.head_circuits import embedding_or_own, full_ov_circuit, full_qk_circuit
from circuits.head_outputs import Head
from circuits.weights import Weights


@dataclass(frozen=True)
class SkipTrigram:
    """[source] ... [destination] -> [output], as token numbers, with its entries of the two circuits.

    `qk` and `ov` are centred and in units of the circuit's root mean square: 0 is no preference, 3 is strong.
    """

    source: int
    destination: int
    output: int
    qk: float
    ov: float


def top_skip_trigrams(
    weights: Weights,
    head: Head,
    *,
    n: int = 20,
    tokens: Int[Tensor, " allowed"] | None = None,
    embedding: Float[Tensor, "d_vocab d_model"] | None = None,
    chunk: int = 2048,
) -> list[SkipTrigram]:
    """The `n` sources with the strongest skip-trigram, each with its best destination and output, strongest first.

    One trigram a source, since those of one source are variations of each other. Fewer than `n` if fewer sources have
    any with positive `qk` and `ov`. Holds chunk^2 numbers (17 MB at 2048) beyond the factors of the circuits.

    Args:
        tokens: sources, destinations and outputs are chosen among these, and means taken over these; all by default.
        embedding: takes the place of W_E on all sides.
        chunk: rows and columns multiplied at once.

    Raises:
        ValueError: n is below 1; the head does not exist; the model is rotary; a token is none of the vocabulary or is
            given twice, or there are not two; `embedding` has another d_model; a circuit is the same for all tokens.

    Source: Elhage et al. 2021, "Interpretation as Skip-Trigrams".
    """
    if n < 1:
        raise ValueError(f"n={n}: expected at least 1 skip-trigram")
    qk = full_qk_circuit(weights, head, embedding=embedding)
    ov = full_ov_circuit(weights, head, embedding=embedding)
    allowed = _allowed(weights, embedding, tokens)
    queries, keys = _centred(qk.A[allowed], qk.B[:, allowed].mT, "QK", head)
    values, outputs = _centred(ov.A[allowed], ov.B[:, allowed].mT, "OV", head)
    qk_best, destination = _best_partner(keys, queries, chunk)
    ov_best, output = _best_partner(values, outputs, chunk)
    strength = qk_best.clamp(min=0) * ov_best.clamp(min=0)
    best = strength.argsort(descending=True, stable=True)[:n]
    return [
        SkipTrigram(
            source=int(allowed[source]),
            destination=int(allowed[destination[source]]),
            output=int(allowed[output[source]]),
            qk=float(qk_best[source]),
            ov=float(ov_best[source]),
        )
        for source in best[strength[best] > 0].tolist()
    ]


def _allowed(
    weights: Weights, embedding: Float[Tensor, "d_vocab d_model"] | None, tokens: Int[Tensor, " allowed"] | None
) -> Int[Tensor, " allowed"]:
    d_vocab = min(len(embedding_or_own(weights, embedding)), weights.W_U.shape[1])
    if tokens is None:
        return torch.arange(d_vocab, device=weights.W_E.device)
    check_indices("tokens", tokens, d_vocab)
    different = len(set(tokens.tolist()))
    if len(tokens) < 2 or different < len(tokens):
        raise ValueError(f"{len(tokens)} tokens, {different} of them different: expected at least 2, each given once")
    return tokens.long().to(weights.W_E.device)


def _centred(
    rows: Float[Tensor, "n inner"], columns: Float[Tensor, "n inner"], name: str, head: Head
) -> tuple[Float[Tensor, "n inner"], Float[Tensor, "n inner"]]:
    """Factors of (rows columns^T - its row means) / sigma: the mean of a row is that row times the mean column."""
    columns = columns - columns.mean(dim=0)
    mean_square = ((rows.mT @ rows) * (columns.mT @ columns)).sum() / len(rows) ** 2  # ||R C^T||^2 = tr(R^T R C^T C)
    if not mean_square > 0:
        raise ValueError(
            f"the {name} circuit of head {head} is the same for all tokens: expected a head that tells them apart"
        )
    return rows / mean_square.sqrt(), columns


def _best_partner(
    these: Float[Tensor, "n inner"], those: Float[Tensor, "n inner"], chunk: int
) -> tuple[Float[Tensor, " n"], Int[Tensor, " n"]]:
    """For each row of `these` the largest product with a row of `those`, and which it is."""
    best = these.new_full((len(these),), -torch.inf)
    partner = torch.zeros(len(these), dtype=torch.int64, device=these.device)
    for some in chunks(len(these), chunk):
        for others in chunks(len(those), chunk):
            value, index = (these[some] @ those[others].mT).max(dim=1)
            better = value > best[some]
            best[some] = torch.where(better, value, best[some])
            partner[some] = torch.where(better, index + others.start, partner[some])
    return best, partner

"""Head detectors: what a head attends to, as one number between 0 and 1.

    score_{l,h} = mean over sequences of  mean over queries q of  sum over target keys k of q of  A_{l,h}[q, k]

| detector        | queries q                      | target keys of q                          |
|-----------------|--------------------------------|-------------------------------------------|
| current_token   | all                            | q                                         |
| previous_token  | q >= 1                         | q - 1                                     |
| first_token     | q >= 1                         | 0                                         |
| duplicate_token | with an earlier copy of t_q    | j < q with t_j = t_q                      |
| prefix_matching | with an earlier copy of t_q    | j + 1 for j < q with t_j = t_q            |
| induction       | second copy of a segment       | q - L + 1, with L the segment's length    |

Prefix matching and its use on repeated random tokens are from Olsson et al. 2022 ("In-context Learning and Induction
Heads", "Head Activation Evaluators"); previous-token and duplicate-token heads from Elhage et al. 2021 and Wang et al.
2022 (section 3). On tokens of `repeated_random_tokens` induction and prefix matching are the same number: induction
goes by position, prefix matching by token. Each score is a mean over queries first and over sequences second, so that a
sequence is the unit that a bootstrap resamples.
"""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from circuits.bridge import Bridge
from circuits.patterns import PatternReducer, reduce_patterns
from circuits.tokens import check_tokens, segment_length


def current_token(
    pattern: Float[Tensor, "batch head pos pos"], tokens: Int[Tensor, "batch pos"]
) -> Float[Tensor, "batch head"]:
    """mean_q A[q, q]."""
    return pattern.diagonal(dim1=-2, dim2=-1).mean(dim=-1)


def previous_token(
    pattern: Float[Tensor, "batch head pos pos"], tokens: Int[Tensor, "batch pos"]
) -> Float[Tensor, "batch head"]:
    """mean_{q >= 1} A[q, q - 1]."""
    return pattern.diagonal(offset=-1, dim1=-2, dim2=-1).mean(dim=-1)


def first_token(
    pattern: Float[Tensor, "batch head pos pos"], tokens: Int[Tensor, "batch pos"]
) -> Float[Tensor, "batch head"]:
    """mean_{q >= 1} A[q, 0]."""
    return pattern[:, :, 1:, 0].mean(dim=-1)


def duplicate_token(
    pattern: Float[Tensor, "batch head pos pos"], tokens: Int[Tensor, "batch pos"]
) -> Float[Tensor, "batch head"]:
    """mean_q sum_{j < q, t_j = t_q} A[q, j] over the q that have such a j; NaN for a sequence without one."""
    earlier = _earlier_copies(tokens)
    return _mean_attention(pattern, keys=earlier, queries=earlier.any(dim=-1))


def prefix_matching(
    pattern: Float[Tensor, "batch head pos pos"], tokens: Int[Tensor, "batch pos"]
) -> Float[Tensor, "batch head"]:
    """mean_q sum_{j < q, t_j = t_q} A[q, j + 1] over the q that have such a j; NaN for a sequence without one.

    When t_q = t_{q-1}, the key after the copy is q itself and counts.
    """
    earlier = _earlier_copies(tokens)
    following = torch.zeros_like(earlier)
    following[:, :, 1:] = earlier[:, :, :-1]
    return _mean_attention(pattern, keys=following, queries=earlier.any(dim=-1))


def induction(
    pattern: Float[Tensor, "batch head pos pos"], tokens: Int[Tensor, "batch pos"]
) -> Float[Tensor, "batch head"]:
    """mean of A[q, q - L + 1] over the q of the second copy of a segment of L tokens.

    Raises:
        ValueError: the tokens are not [bos,] segment segment.
    """
    length = segment_length(tokens)
    return pattern.diagonal(offset=1 - length, dim1=-2, dim2=-1)[:, :, -length:].mean(dim=-1)


DETECTORS: Mapping[str, PatternReducer] = MappingProxyType(
    {
        "current_token": current_token,
        "previous_token": previous_token,
        "first_token": first_token,
        "duplicate_token": duplicate_token,
        "prefix_matching": prefix_matching,
        "induction": induction,
    }
)
"""All detectors by name."""


def head_scores_by_sequence(
    model: Bridge,
    tokens: Int[Tensor, "batch pos"],
    *,
    detectors: Mapping[str, PatternReducer] = DETECTORS,
    batch_size: int = 8,
) -> dict[str, Float[Tensor, "batch layer head"]]:
    """Every detector's score of every head on every sequence, in one pass over the model.

    A sequence in which no token occurs twice has NaN for `duplicate_token` and `prefix_matching`.

    Raises:
        ValueError: from `check_tokens` (at least 2 positions); `induction` is asked for and the tokens are not a
            segment repeated.
    """
    check_tokens(model, tokens, shortest=2)
    if "induction" in detectors:
        segment_length(tokens)  # it would raise inside the forward pass of some later batch
    scores = reduce_patterns(
        model,
        tokens,
        lambda pattern, chunk: torch.stack([score(pattern, chunk) for score in detectors.values()], dim=1),
        batch_size=batch_size,
    )
    return dict(zip(detectors, scores.unbind(dim=2), strict=True))


def head_scores(
    model: Bridge,
    tokens: Int[Tensor, "batch pos"],
    *,
    detectors: Mapping[str, PatternReducer] = DETECTORS,
    batch_size: int = 8,
) -> dict[str, Float[Tensor, "layer head"]]:
    """Mean over sequences of `head_scores_by_sequence`, leaving out the sequences in which a score is undefined.

    Raises:
        ValueError: as there, and when a score is undefined in every sequence.
    """
    by_sequence = head_scores_by_sequence(model, tokens, detectors=detectors, batch_size=batch_size)
    for name, scores in by_sequence.items():
        if scores.isnan().all():
            raise ValueError(
                f"{name} is undefined: expected a token that occurs twice in at least one of the {len(tokens)} "
                f"sequences; use repeated_random_tokens or longer texts"
            )
    return {name: scores.nanmean(dim=0) for name, scores in by_sequence.items()}


def current_token_scores(
    model: Bridge, tokens: Int[Tensor, "batch pos"], *, batch_size: int = 8
) -> Float[Tensor, "layer head"]:
    """mean_q A[q, q] of every head. Raises as `head_scores`."""
    return _scores("current_token", model, tokens, batch_size)


def previous_token_scores(
    model: Bridge, tokens: Int[Tensor, "batch pos"], *, batch_size: int = 8
) -> Float[Tensor, "layer head"]:
    """mean_{q >= 1} A[q, q - 1] of every head. Raises as `head_scores`."""
    return _scores("previous_token", model, tokens, batch_size)


def first_token_scores(
    model: Bridge, tokens: Int[Tensor, "batch pos"], *, batch_size: int = 8
) -> Float[Tensor, "layer head"]:
    """mean_{q >= 1} A[q, 0] of every head. Raises as `head_scores`."""
    return _scores("first_token", model, tokens, batch_size)


def duplicate_token_scores(
    model: Bridge, tokens: Int[Tensor, "batch pos"], *, batch_size: int = 8
) -> Float[Tensor, "layer head"]:
    """Attention on the earlier copies of the query's token, of every head. Raises as `head_scores`."""
    return _scores("duplicate_token", model, tokens, batch_size)


def prefix_matching_scores(
    model: Bridge, tokens: Int[Tensor, "batch pos"], *, batch_size: int = 8
) -> Float[Tensor, "layer head"]:
    """Attention on the tokens right after earlier copies of the query's token, of every head; for any tokens.

    Olsson et al. 2022, "Head Activation Evaluators". Raises as `head_scores`.
    """
    return _scores("prefix_matching", model, tokens, batch_size)


def induction_scores(
    model: Bridge, tokens: Int[Tensor, "batch pos"], *, batch_size: int = 8
) -> Float[Tensor, "layer head"]:
    """Attention of the second copy of a segment on the position after the earlier copy, q - L + 1, of every head.

    Raises as `head_scores`; in particular when the tokens are not a segment repeated.
    """
    return _scores("induction", model, tokens, batch_size)


def _scores(name: str, model: Bridge, tokens: Int[Tensor, "batch pos"], batch_size: int) -> Float[Tensor, "layer head"]:
    return head_scores(model, tokens, detectors={name: DETECTORS[name]}, batch_size=batch_size)[name]


def _earlier_copies(tokens: Int[Tensor, "batch pos"]) -> Bool[Tensor, "batch pos pos"]:
    """Whether key j < q holds the same token as query q, [batch, q, j]."""
    return (tokens[:, :, None] == tokens[:, None, :]).tril(diagonal=-1)


def _mean_attention(
    pattern: Float[Tensor, "batch head pos pos"],
    keys: Bool[Tensor, "batch pos pos"],
    queries: Bool[Tensor, "batch pos"],
) -> Float[Tensor, "batch head"]:
    """Total attention on the marked keys of each query, averaged over the marked queries."""
    on_keys = torch.einsum("bhqk,bqk->bh", pattern, keys.to(pattern.dtype))
    return on_keys / queries.sum(dim=-1, keepdim=True)

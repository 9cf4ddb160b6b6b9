"""Token sequences for head detectors: a random segment, twice.

    t = [bos,] s_1 ... s_L s_1 ... s_L,    s drawn uniformly without replacement

(Olsson et al. 2022, "In-context Learning and Induction Heads", "Head Activation Evaluators", with two copies.) No token
occurs twice in a segment, so each token of the second copy has exactly one earlier occurrence, and what follows it can
be predicted by induction and by nothing else.
"""

from __future__ import annotations

from collections.abc import Collection

import torch
from jaxtyping import Int
from torch import Tensor

from circuits.bridge import Bridge


def repeated_random_tokens(
    n: int,
    length: int,
    d_vocab: int,
    *,
    seed: int,
    copies: int = 2,
    bos: int | None = None,
    excluded: Collection[int] = (),
) -> Int[Tensor, "n pos"]:
    """`n` sequences of a segment of `length` uniformly random tokens, `copies` times over; int64, on the CPU.

    Args:
        d_vocab: tokens are drawn from 0..d_vocab-1 without replacement.
        copies: 2 for induction scores; Olsson et al. 2022 repeat 25 tokens 4 times for the prefix-matching score.
        bos: put before the first segment and never drawn; then pos = copies * length + 1, else pos = copies * length.
        excluded: tokens never drawn (padding, the rarest tokens, ...).

    Raises:
        ValueError: fewer than `length` tokens may be drawn, so a segment would have to repeat one.
    """
    if n < 1 or length < 2 or copies < 2:
        raise ValueError(
            f"n={n}, length={length}, copies={copies}: expected at least 1 sequence and at least 2 copies of a segment "
            f"of at least 2 tokens"
        )
    forbidden = {*excluded} | ({bos} if bos is not None else set())
    drawn_from = torch.tensor([token for token in range(d_vocab) if token not in forbidden], dtype=torch.int64)
    if length > len(drawn_from):
        raise ValueError(
            f"length={length} exceeds the {len(drawn_from)} tokens that may be drawn from d_vocab={d_vocab}: expected "
            f"each at most once a segment; shorten the segment or exclude fewer tokens"
        )
    generator = torch.Generator().manual_seed(seed)
    picks = torch.stack([torch.randperm(len(drawn_from), generator=generator)[:length] for _ in range(n)])
    segment = drawn_from[picks]
    start = torch.full((n, 0 if bos is None else 1), bos or 0, dtype=torch.int64)
    return torch.cat([start, *[segment] * copies], dim=1)


def segment_length(tokens: Int[Tensor, "batch pos"]) -> int:
    """L of sequences [bos,] segment segment: an even number of tokens has no BOS, an odd number has one.

    Raises:
        ValueError: some sequence is not a segment of at least 2 tokens repeated twice.
    """
    length, with_bos = divmod(tokens.shape[1], 2)
    if length < 2:
        raise ValueError(f"tokens have {tokens.shape[1]} positions: expected a segment of at least 2 tokens, twice")
    segments = tokens[:, with_bos:]
    broken = (segments[:, :length] != segments[:, length:]).any(dim=1).nonzero()
    if len(broken):
        start = "one BOS (the number of tokens is odd) and" if with_bos else "no BOS (the number of tokens is even) and"
        raise ValueError(
            f"tokens[{int(broken[0])}] is not a repetition: expected {start} a segment of {length} tokens twice; draw "
            f"them with repeated_random_tokens, or score arbitrary tokens with prefix_matching_scores"
        )
    return length


def check_tokens(model: Bridge, tokens: Tensor, *, shortest: int = 1) -> None:
    """Refuse tokens that the model cannot take, before a forward pass fails or is silently wrong.

    Raises:
        ValueError: tokens are not integers [batch, pos], are empty, have fewer than `shortest` positions, exceed the
            context or hold a number outside the vocabulary.
    """
    if tokens.ndim != 2 or tokens.numel() == 0:
        raise ValueError(
            f"tokens have shape {tuple(tokens.shape)}: expected [batch, pos], neither of them 0; add the batch with "
            f"tokens[None] if there is one sequence"
        )
    if tokens.is_floating_point() or tokens.is_complex() or tokens.dtype == torch.bool:
        raise ValueError(f"tokens are {tokens.dtype}: expected integers; convert them with tokens.long()")
    length, n_ctx, d_vocab = tokens.shape[1], model.cfg.n_ctx, model.cfg.d_vocab
    if not shortest <= length <= n_ctx:
        remedy = "truncate them or use a model with a longer context" if length > n_ctx else "use longer sequences"
        raise ValueError(f"tokens have {length} positions: expected {shortest} to {n_ctx} (the context); {remedy}")
    outside = ((tokens < 0) | (tokens >= d_vocab)).nonzero()
    if len(outside):
        row, position = outside[0].tolist()
        raise ValueError(
            f"tokens[{row}, {position}] is {int(tokens[row, position])}: expected 0 to {d_vocab - 1} (the vocabulary); "
            f"use the tokenizer of this model"
        )

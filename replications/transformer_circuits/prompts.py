"""What the models are shown: repeated random tokens, held-out text, and contexts that test a skip-trigram."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import torch
from jaxtyping import Int
from torch import Tensor

from circuits import SkipTrigram, repeated_random_tokens
from interventions import Model
from zoo.held_out import held_out_tokens, held_out_windows, tokenizer_file

SEGMENT = 40
RAREST = 1e-4  # share of the held-out text below which a token is not drawn: it was hardly trained


def has_shipped_tokenizer(location: str) -> bool:
    theirs = Path(location) / "tokenizer.json"
    return theirs.exists() and theirs.read_bytes() == tokenizer_file().read_bytes()


def common_tokens(model: Model, location: str) -> Int[Tensor, " common"]:
    """Tokens that make up at least `RAREST` of the held-out text, BOS apart; all tokens of another vocabulary."""
    if has_shipped_tokenizer(location):
        text = held_out_tokens()
        counts = torch.bincount(text, minlength=model.d_vocab)
        common = counts >= RAREST * len(text)
    else:
        common = torch.ones(model.d_vocab, dtype=torch.bool)
    if model.bos is not None:
        common[model.bos] = False
    return common.nonzero().flatten()


def repeated(model: Model, location: str, n: int, seed: int) -> Int[Tensor, "n pos"]:
    """`n` sequences of random common tokens, twice over."""
    common = set(common_tokens(model, location).tolist())
    rare = [token for token in range(model.d_vocab) if token not in common]
    length = min(SEGMENT, (model.n_ctx - 1) // 2)
    return repeated_random_tokens(n, length, model.d_vocab, seed=seed, bos=model.bos, excluded=rare)


def windows(model: Model, n: int) -> Int[Tensor, "n n_ctx"]:
    return held_out_windows(n, model.n_ctx)


def repeated_text(length: int = 24, start: int = 5_000) -> Int[Tensor, "1 pos"]:
    """BOS and `length` tokens of held-out text, twice over: readable, for attention patterns."""
    text = held_out_tokens()[start : start + length]
    return torch.cat([torch.zeros(1, dtype=torch.int64), text, text])[None]


def skip_trigram_contexts(
    trigrams: Sequence[SkipTrigram], filler: Int[Tensor, " common"], *, contexts: int, length: int, seed: int
) -> tuple[Int[Tensor, "n pos"], Int[Tensor, "n pos"]]:
    """For every skip-trigram `contexts` random contexts that end in its destination, with its source and without it.

    BOS, then `length` random tokens of which one, at a random place, is the source or (second) another random token,
    then the destination. Both sequences of a pair differ in that one token alone.
    """
    generator = torch.Generator().manual_seed(seed)
    n = len(trigrams) * contexts
    body = filler[torch.randint(len(filler), (n, length), generator=generator)]
    places = torch.randint(length, (n, 1), generator=generator)
    sources = torch.tensor([trigram.source for trigram in trigrams]).repeat_interleave(contexts)[:, None]
    destinations = torch.tensor([trigram.destination for trigram in trigrams]).repeat_interleave(contexts)[:, None]
    bos = torch.zeros(n, 1, dtype=torch.int64)
    return (
        torch.cat([bos, body.scatter(1, places, sources), destinations], dim=1),
        torch.cat([bos, body, destinations], dim=1),
    )

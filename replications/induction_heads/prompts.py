"""What the models are shown: windows of held-out text, and repeated random tokens.

Olsson et al. 2022 define the in-context learning score on the 50th and the 500th token of a context of 512. Models with
that much context are read at those two tokens; for a shorter context both positions are scaled by its length over 512
and averaged over nine neighbouring tokens, because a short context holds fewer tokens to average over.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import torch
from jaxtyping import Int
from tokenizers import Tokenizer
from torch import Tensor

from circuits import repeated_random_tokens
from interventions import Model
from zoo.held_out import held_out_tokens, held_out_windows, tokenizer_file

PAPER_CONTEXT, EARLY, LATE = 512, 50, 500
WIDTH = 9  # of the average over positions in a short context
SEGMENT, COPIES = 25, 4  # head activation evaluators
RAREST = 1e-4  # share of the held-out text below which a token is not drawn


@dataclass(frozen=True)
class Positions:
    """Where the in-context learning score reads the loss."""

    early: int
    late: int
    width: int


def context(model: Model) -> int:
    return min(model.n_ctx, PAPER_CONTEXT)


def positions(model: Model) -> Positions:
    """The paper's two positions, scaled to the model's context."""
    length = context(model)
    if length == PAPER_CONTEXT:
        return Positions(EARLY, LATE, width=1)
    scale, half = length / PAPER_CONTEXT, WIDTH // 2
    return Positions(max(round(EARLY * scale), 1 + half), min(round(LATE * scale), length - 1 - half), WIDTH)


def text_windows(model: Model, location: str, n: int) -> Int[Tensor, "n n_ctx"]:
    """`n` windows of held-out source text in the model's own tokens.

    Raises:
        ValueError: if the model has no tokenizer, or its tokenizer makes too few tokens of the text.
    """
    if _has_shipped_tokenizer(location):
        return held_out_windows(n, context(model))
    tokens = _text_tokens(model, location)
    body = context(model) - (model.bos is not None)
    if len(tokens) < n * body:
        raise ValueError(
            f"{model.name}: the held-out text gives {len(tokens)} tokens, {n} windows of {body} are needed"
        )
    starts = torch.linspace(0, len(tokens) // body - 1, n).long() * body
    windows = tokens[starts[:, None] + torch.arange(body)]
    if model.bos is None:
        return windows
    return torch.cat([torch.full((n, 1), model.bos), windows], dim=1)


def repeated(model: Model, location: str, n: int, seed: int) -> Int[Tensor, "n pos"]:
    """`n` sequences of random tokens twice, as long as a context of at most 128 allows."""
    length = (min(model.n_ctx, 128) - (model.bos is not None)) // 2
    return _random(model, location, n, length, copies=2, seed=seed)


def for_prefix_matching(model: Model, location: str, n: int, seed: int) -> Int[Tensor, "n pos"]:
    """`n` sequences as the paper's head activation evaluators have them: 25 random tokens, four times over."""
    return _random(model, location, n, SEGMENT, copies=COPIES, seed=seed)


def _random(model: Model, location: str, n: int, length: int, *, copies: int, seed: int) -> Int[Tensor, "n pos"]:
    return repeated_random_tokens(
        n, length, model.d_vocab, seed=seed, copies=copies, bos=model.bos, excluded=rare_tokens(model, location)
    )


def words(model: Model, tokens: Int[Tensor, " pos"]) -> list[str]:
    """The text of every token; its number where the model has no tokenizer."""
    if model.tokenizer is None:
        return [str(token) for token in tokens.tolist()]
    return [model.tokenizer.decode([token]) for token in tokens.tolist()]


def rare_tokens(model: Model, location: str) -> tuple[int, ...]:
    """Tokens that make up less than `RAREST` of the held-out text, which the paper's random sequences leave out too.

    A byte that occurs in no text has an embedding that was never trained; it says nothing about a head.
    """
    text = _text_tokens(model, location)
    counts = torch.bincount(text, minlength=model.d_vocab)
    return tuple((counts < max(1.0, RAREST * len(text))).nonzero().flatten().tolist())


def _text_tokens(model: Model, location: str) -> Int[Tensor, " length"]:
    """The held-out text in the model's own tokens."""
    if _has_shipped_tokenizer(location):
        return held_out_tokens()
    if model.tokenizer is None:
        raise ValueError(
            f"{model.name}: no tokenizer, so no text can be shown to it; put its tokenizer files in the folder"
        )
    text = Tokenizer.from_file(str(tokenizer_file())).decode(held_out_tokens().tolist())
    return torch.tensor(model.tokenizer.encode(text))


def _has_shipped_tokenizer(location: str) -> bool:
    theirs = Path(location) / "tokenizer.json"
    return theirs.exists() and theirs.read_bytes() == tokenizer_file().read_bytes()

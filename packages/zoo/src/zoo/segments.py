"""Rows of training text from patterns with gaps, built for a whole batch at once.

A pattern is a piece of text with gaps, such as "{x} -> {y};" or "The {r} of {x} is {y}.". A row is BOS and then several
patterns, each with its gaps filled. The gap {y} is the answer: the loss is taken where it is predicted, and nowhere
else.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Int
from tokenizers import Tokenizer
from torch import Tensor

from zoo.words import BOS_ID

# The answer, the first word, a word that names the relation or labels the input, further words, one that names a place.
GAPS = ("y", "x", "r", "a", "b", "s")
NO_TARGET = -100  # what cross_entropy ignores
_GAP = re.compile(r"\{(\w)\}")
_NOTHING = -len(GAPS) - 1


@dataclass(frozen=True)
class Patterns:
    """Token ids of several patterns, padded on the right; gap j of `GAPS` is -1 - j."""

    ids: Int[Tensor, "pattern length"]
    lengths: Int[Tensor, " pattern"]


def compile_patterns(texts: Sequence[str], tokenizer: Tokenizer) -> Patterns:
    """The patterns of some texts."""
    rows = [
        [
            token
            for place, piece in enumerate(_GAP.split(text))
            for token in ([-1 - GAPS.index(piece)] if place % 2 else tokenizer.encode(piece).ids)
        ]
        for text in texts
    ]
    longest = max(map(len, rows))
    return Patterns(
        torch.tensor([row + [_NOTHING] * (longest - len(row)) for row in rows]),
        torch.tensor([len(row) for row in rows]),
    )


def assemble(
    patterns: Patterns, chosen: Int[Tensor, "row segment"], gaps: Int[Tensor, "row segment gap"]
) -> tuple[Int[Tensor, "row pos"], Int[Tensor, "row pos"]]:
    """Tokens of every row, padded with BOS on the right, and at each position the answer that follows it or NO_TARGET.

    Args:
        chosen: which pattern each segment is.
        gaps: what fills its gaps, in the order of `GAPS`.
    """
    ids, lengths = patterns.ids[chosen], patterns.lengths[chosen]
    filled = torch.where(ids < 0, gaps.gather(2, (-1 - ids).clamp(0, len(GAPS) - 1)), ids)
    targets = torch.where(ids == -1, filled, NO_TARGET)
    ends = lengths.cumsum(dim=1)
    width = int(ends[:, -1].max()) + 1
    offset = torch.arange(ids.shape[2])
    # What lies past a segment's end is written into a last column, which is then dropped.
    past = width + 1
    places = torch.where(offset < lengths[..., None], (ends - lengths)[..., None] + offset + 1, past).flatten(1)
    tokens = torch.full((len(chosen), past + 1), BOS_ID).scatter(1, places, filled.flatten(1))
    answers = torch.full((len(chosen), past + 1), NO_TARGET).scatter(1, places, targets.flatten(1))
    return tokens[:, :width], answers[:, 1:past]

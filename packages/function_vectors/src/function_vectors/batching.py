"""Prompts in batches of similar lengths, and what was found for them back in order.

Prompts are padded on the left to one length. In batches as they come, nearly every one has a prompt that is nearly the
longest, and the rows of padding cost as much as others. So prompts are taken by length, and padding that all of a batch
have is left out: a prompt's numbers do not depend on it.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import torch
from jaxtyping import Int, Shaped
from torch import Tensor

from function_vectors.runners import batches
from interventions import Prompts


def of_like_length(prompts: Prompts, size: int) -> Iterator[tuple[Int[Tensor, " row"], Prompts]]:
    """Batches of at most `size` prompts, the shortest first, each with its prompts' places among all.

    Raises:
        ValueError: a size below 1.
    """
    lengths = _lengths(prompts)
    order = lengths.argsort(stable=True)
    for rows in batches(len(prompts), size):
        places = order[rows]
        first = prompts.length - int(lengths[places[-1]])
        tokens = prompts.tokens[places, first:]
        valid = None if prompts.valid is None else prompts.valid[places, first:]
        yield places, Prompts(tokens, None if valid is None or bool(valid.all()) else valid)


def in_order(prompts: Prompts, found: Sequence[Shaped[Tensor, ...]]) -> Shaped[Tensor, "prompt ..."]:
    """What the batches of `of_like_length` gave, in the prompts' own order."""
    return torch.cat(list(found))[_lengths(prompts).argsort(stable=True).argsort()]


def _lengths(prompts: Prompts) -> Int[Tensor, " prompt"]:
    if prompts.valid is None:
        return torch.full((len(prompts),), prompts.length)
    return prompts.valid.sum(dim=1).cpu()

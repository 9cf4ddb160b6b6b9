"""Batches for training: windows of the corpus, some of them one segment repeated.

A batch is a function of (seed, step) alone, which makes resumption exact.
"""

from __future__ import annotations

import torch
from jaxtyping import Int
from torch import Tensor

from zoo.corpus import BOS_ID


def windows(tokens: Int[Tensor, " length"], n: int, n_ctx: int, generator: torch.Generator) -> Int[Tensor, "n n_ctx"]:
    """`n` windows at random places, each led by the BOS token."""
    starts = torch.randint(0, len(tokens) - n_ctx, (n,), generator=generator)
    batch = tokens[starts[:, None] + torch.arange(n_ctx)].clone()
    batch[:, 0] = BOS_ID
    return batch


def repeat_segments(batch: Int[Tensor, "n n_ctx"], share: float, generator: torch.Generator) -> Int[Tensor, "n n_ctx"]:
    """In a random `share` of the rows, repeat a segment from the row's start (16 tokens or more) to fill the row."""
    n, n_ctx = batch.shape
    chosen = torch.rand(n, generator=generator) < share
    lengths = torch.randint(16, n_ctx // 2, (n,), generator=generator)
    places = torch.arange(n_ctx - 1).remainder(lengths[:, None]) + 1
    repeated = torch.cat([batch[:, :1], batch.gather(1, places)], dim=1)
    return torch.where(chosen[:, None], repeated, batch)


def batch_at(
    step: int, *, tokens: Int[Tensor, " length"], n: int, n_ctx: int, repeats: float, seed: int
) -> Int[Tensor, "n n_ctx"]:
    """The training batch of a step."""
    # torch's CPU generator keeps 32 bits of its seed; an odd factor places the steps of different seeds far apart.
    generator = torch.Generator().manual_seed((step + seed * 0x9E3779B1) % 2**32)
    return repeat_segments(windows(tokens, n, n_ctx, generator), repeats, generator)

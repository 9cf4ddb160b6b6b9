"""Token sequences of equal or unequal length, as the engine runs them: ended together, padded on the left.

A position is counted from the end (-1 is the last token), so that it means the same token of every prompt.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor


@dataclass(frozen=True)
class Prompts:
    """`tokens` padded on the left; `valid` marks real tokens and is None where all are."""

    tokens: Int[Tensor, "batch pos"]
    valid: Bool[Tensor, "batch pos"] | None = None

    def __len__(self) -> int:
        return self.tokens.shape[0]

    @property
    def length(self) -> int:
        return self.tokens.shape[1]

    @property
    def position_ids(self) -> Int[Tensor, "batch_or_1 pos"]:
        """0 at the first real token of every prompt."""
        if self.valid is None:
            return torch.arange(self.length, device=self.tokens.device)[None]
        return (self.valid.cumsum(dim=1) - 1).clamp(min=0)

    def causal_mask(self, dtype: torch.dtype) -> Float[Tensor, "batch_or_1 1 query key"]:
        """0 where a query sees a key, the lowest number of `dtype` where it does not; padding sees itself alone."""
        seen = torch.ones(self.length, self.length, dtype=torch.bool, device=self.tokens.device).tril()[None]
        if self.valid is not None:
            itself = torch.eye(self.length, dtype=torch.bool, device=self.tokens.device)
            seen = seen & self.valid[:, None, :] | itself
        mask = torch.zeros(seen.shape, dtype=dtype, device=self.tokens.device)
        return mask.masked_fill(~seen, torch.finfo(dtype).min)[:, None]

    @property
    def shortest(self) -> int:
        """Tokens of the shortest prompt."""
        return self.length if self.valid is None else int(self.valid.sum(dim=1).min())

    def take(self, order: Int[Tensor, " batch"]) -> Prompts:
        """The prompts in another order."""
        return Prompts(self.tokens[order], None if self.valid is None else self.valid[order])

    def rows(self, rows: slice) -> Prompts:
        return Prompts(self.tokens[rows], None if self.valid is None else self.valid[rows])

    def to(self, device: torch.device | str) -> Prompts:
        return Prompts(self.tokens.to(device), None if self.valid is None else self.valid.to(device))


def as_prompts(
    tokens: Prompts | Int[Tensor, "batch pos"] | Sequence[Sequence[int]],
    mask: Int[Tensor, "batch pos"] | Bool[Tensor, "batch pos"] | None = None,
) -> Prompts:
    """Prompts from a tensor (with a mask of 1 at real tokens where it is padded, on either side) or from lists.

    Raises:
        ValueError: there is no prompt, an empty one, a ragged tensor without mask, or a mask with holes.
    """
    if isinstance(tokens, Prompts):
        return tokens
    if not isinstance(tokens, Tensor):
        return _from_lists([list(prompt) for prompt in tokens])
    if tokens.ndim != 2 or 0 in tokens.shape or tokens.is_floating_point():
        raise ValueError(
            f"tokens have shape {tuple(tokens.shape)} and dtype {tokens.dtype}: expected integers [batch, pos] with at "
            f"least one of each; pass prompts of unequal length as lists, or padded with their mask"
        )
    if mask is None or bool(mask.bool().all()):
        return Prompts(tokens)
    if mask.shape != tokens.shape:
        raise ValueError(f"mask has shape {tuple(mask.shape)}: expected {tuple(tokens.shape)}, that of the tokens")
    return _from_lists([_real(row, keep.bool(), at) for at, (row, keep) in enumerate(zip(tokens, mask, strict=True))])


def _real(row: Int[Tensor, " pos"], keep: Bool[Tensor, " pos"], at: int) -> list[int]:
    places = keep.nonzero().flatten()
    if len(places) and int(places[-1] - places[0]) + 1 != len(places):
        raise ValueError(f"mask of prompt {at} has a hole: expected one run of real tokens, padding on one side")
    return [int(token) for token in row[keep]]


def _from_lists(prompts: list[list[int]]) -> Prompts:
    if not prompts or not all(prompts):
        raise ValueError(
            f"{len(prompts)} prompts, shortest {min(map(len, prompts), default=0)} tokens: expected at "
            f"least one prompt of at least one token"
        )
    longest = max(map(len, prompts))
    tokens = torch.tensor([[0] * (longest - len(prompt)) + prompt for prompt in prompts])
    if all(len(prompt) == longest for prompt in prompts):
        return Prompts(tokens)
    lengths = torch.tensor([len(prompt) for prompt in prompts])
    return Prompts(tokens, torch.arange(longest) >= longest - lengths[:, None])

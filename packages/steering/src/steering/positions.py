"""Where in a text a vector acts, for every row of a batch: right under padding on either side, and with a cache.

A row's positions count its real tokens, BOS included; 0 is the first. The prompt of a text is what its first call holds
(see `interventions.calls`): all of a plain forward pass, and what `generate` is given. Where one pass holds a prompt
and an answer, `length` says how many real tokens (BOS included) the prompt has, for all rows or for each.

| | positions of a row whose prompt has L tokens |
|---|---|
| `Everywhere()` | all |
| `AfterPrompt()` | L - 1 and on: the prompt's last token, whose output is the first new token, and all behind it |
| `First(n)` | 0 to n - 1; with keep_last not L - 1 |
| `PromptOnly()` | 0 to L - 2; with keep_last=False 0 to L - 1 |
| `Mask(mask)` | where mask [batch, pos], in the columns of the first call, is True; none later |

`AfterPrompt` is where Rimsky et al. 2024 add (section 3; in their code from the last token of the instruction on).
`PromptOnly` with keep_last acts through attention alone: no token is predicted from a position that it touches.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass, replace

import torch
from jaxtyping import Bool, Int
from torch import Tensor

from interventions.calls import Call
from steering.errors import SteeringError


class Positions(ABC):
    """Which new tokens of a call are acted on."""

    @abstractmethod
    def of(self, call: Call) -> bool | Bool[Tensor, "batch_or_1 pos"]:
        """True for all, False for none, or each.

        Raises:
            SteeringError: they do not fit the call.
        """

    def of_rows(self, rows: Int[Tensor, " row"], first: int = 0) -> Positions:
        """The same positions for some rows of the batch, whose first `first` columns are left out."""
        return self


@dataclass(frozen=True)
class Everywhere(Positions):
    """All positions."""

    def of(self, call: Call) -> bool | Bool[Tensor, "batch_or_1 pos"]:
        return True


@dataclass(frozen=True, eq=False)
class AfterPrompt(Positions):
    """From the prompt's last token on."""

    length: int | Int[Tensor, " batch"] | None = None

    def __post_init__(self) -> None:
        _check_length(self.length)

    def of(self, call: Call) -> bool | Bool[Tensor, "batch_or_1 pos"]:
        if self.length is None and not call.first:
            return True
        return (call.rows >= _lengths(self.length, call)[:, None] - 1) & (call.rows >= 0)

    def of_rows(self, rows: Int[Tensor, " row"], first: int = 0) -> Positions:
        return replace(self, length=_rows_of(self.length, rows))


@dataclass(frozen=True)
class First(Positions):
    """The first n tokens of every row; with `keep_last` never the prompt's last one."""

    n: int
    keep_last: bool = False

    def __post_init__(self) -> None:
        if self.n < 1:
            raise SteeringError(f"First(n={self.n}): expected at least 1 position")

    def of(self, call: Call) -> bool | Bool[Tensor, "batch_or_1 pos"]:
        if not call.first and call.prompt.shortest + call.cached - call.prompt.columns >= self.n:
            return False
        where = (call.rows >= 0) & (call.rows < self.n)
        return where & (call.rows != call.prompt.lengths[:, None] - 1) if self.keep_last else where


@dataclass(frozen=True, eq=False)
class PromptOnly(Positions):
    """The prompt; with `keep_last` without its last token."""

    keep_last: bool = True
    length: int | Int[Tensor, " batch"] | None = None

    def __post_init__(self) -> None:
        _check_length(self.length)

    def of(self, call: Call) -> bool | Bool[Tensor, "batch_or_1 pos"]:
        if not call.first:
            return False
        return (call.rows >= 0) & (call.rows < _lengths(self.length, call)[:, None] - int(self.keep_last))

    def of_rows(self, rows: Int[Tensor, " row"], first: int = 0) -> Positions:
        return replace(self, length=_rows_of(self.length, rows))


@dataclass(frozen=True, eq=False)
class Mask(Positions):
    """A mask over the columns of the prompt as it is passed, padding included."""

    mask: Bool[Tensor, "batch pos"]

    def __post_init__(self) -> None:
        if self.mask.ndim != 2 or self.mask.dtype != torch.bool:
            raise SteeringError(
                f"Mask of shape {tuple(self.mask.shape)} and {self.mask.dtype}: expected booleans [batch, pos], as the "
                f"tokens have"
            )

    def of(self, call: Call) -> bool | Bool[Tensor, "batch_or_1 pos"]:
        if not call.first:
            return False
        if self.mask.shape != (call.batch, call.length):
            raise SteeringError(
                f"Mask of shape {tuple(self.mask.shape)} on tokens {(call.batch, call.length)}: expected one for each "
                f"token of the prompts, padding included"
            )
        return self.mask.to(call.device)

    def of_rows(self, rows: Int[Tensor, " row"], first: int = 0) -> Positions:
        return Mask(self.mask[rows.to(self.mask.device), first:])


def _check_length(length: int | Tensor | None) -> None:
    if length is None:
        return
    shortest = length if isinstance(length, int) else int(length.min()) if length.ndim == 1 and len(length) else 0
    if shortest < 1:
        raise SteeringError(f"length={length}: expected the tokens of the prompt, at least 1, for all rows or for each")


def _rows_of(length: int | Tensor | None, rows: Tensor) -> int | Tensor | None:
    return length[rows.to(length.device)] if isinstance(length, Tensor) else length


def _lengths(length: int | Tensor | None, call: Call) -> Int[Tensor, " batch_or_1"]:
    """Real tokens of every row's prompt: as given, or as the first call has them."""
    if length is None:
        return call.prompt.lengths
    if isinstance(length, int):
        return torch.tensor([length], device=call.device)
    if len(length) != call.batch:
        raise SteeringError(f"length has {len(length)} rows, the call {call.batch}: expected one for each prompt")
    return length.to(call.device)

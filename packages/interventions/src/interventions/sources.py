"""Edits made ready for a sweep: the activations of other prompts are captured once, for all its cells."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
from jaxtyping import Float
from torch import Tensor

from interventions.attention import Callback
from interventions.edits import Edit, Given, Mean, Replace, Resample, as_function, derangement
from interventions.hooks import HEADS, Modules
from interventions.network import final_hidden
from interventions.prompts import Prompts

if TYPE_CHECKING:
    from interventions.branching import BranchEdit
    from interventions.sweeps import Cell


@dataclass(frozen=True)
class Edited:
    """Either `values` by layer, [batch or 1, pos or 1, ...], or a `function` of the activation."""

    values: Mapping[int, Tensor] | None = None
    function: Callable[[Tensor], Tensor] | None = None

    def of_cell(self, cell: Cell, component: str) -> Callback:
        """A hook that edits the cell in an ordinary pass: [batch, pos, ...]."""

        def edit(x: Tensor) -> Tensor:
            new = self.function(x) if self.function else self._values(cell.layer, x)
            x = x.clone()
            for position in cell.positions:
                if component in HEADS:
                    x[:, position, list(cell.heads)] = new[:, position, list(cell.heads)]
                else:
                    x[:, position] = new[:, position]
            return x

        return edit

    def of_branches(self, cells: Sequence[tuple[int, Cell]], start: int, layer: int, component: str) -> BranchEdit:
        """An edit of branches [batch, branch, pos, ...]; each cell's branch at its own heads and positions."""
        places = [
            (branch, position - start, head)
            for branch, cell in cells
            for position in cell.positions
            if position >= start
            for head in (cell.heads or (0,))
        ]
        branches, offsets, heads = (torch.tensor(part) for part in zip(*places, strict=True))

        def edit(x: Tensor) -> Tensor:
            at = (slice(None), branches, offsets, *((heads,) if component in HEADS else ()))
            if self.function:
                new = self.function(x[at])
            else:
                whole = self._values(layer, x[:, 0], start + x.shape[2])
                new = whole[(slice(None), offsets + start, *((heads,) if component in HEADS else ()))]
            x = x.clone()
            x[at] = new
            return x

        return edit

    def _values(self, layer: int, x: Tensor, length: int | None = None) -> Tensor:
        assert self.values is not None
        given = self.values[layer].to(x)
        return given.expand(x.shape[0], length or x.shape[1], *x.shape[2:])


def prepare(
    modules: Modules, prompts: Prompts, rows: slice, total: int, edit: Edit, component: str, layers: Sequence[int]
) -> Edited:
    """Run what the edit needs.

    Raises:
        ValueError: other prompts do not fit these, or given values have the wrong shape.
    """
    match edit:
        case Replace(by):
            return Edited(captured(modules, _aligned(by, prompts, rows, total, "Replace"), component, layers))
        case Resample(by, seed):
            donors = by.take(derangement(len(by), seed=seed))
            return Edited(captured(modules, _aligned(donors, prompts, rows, total, "Resample"), component, layers))
        case Mean(over, pooled):
            if not pooled and (over.length != prompts.length or over.valid is not None or prompts.valid is not None):
                raise ValueError(
                    f"Mean over prompts of {over.length} tokens at the positions of prompts of {prompts.length}: "
                    f"expected one length without padding; use Mean(..., pooled=True)"
                )
            return Edited(_means(captured(modules, over, component, layers), over, pooled))
        case Given(values):
            return Edited(_given(values, prompts, rows, total, component, layers))
        case _:
            return Edited(function=as_function(edit))


def captured(
    modules: Modules, prompts: Prompts, component: str, layers: Sequence[int]
) -> dict[int, Float[Tensor, "batch pos ..."]]:
    """A component of some layers, in one ordinary pass."""
    seen: dict[int, Tensor] = {}

    def keep(layer: int) -> Callback:
        def see(x: Tensor) -> None:
            seen[layer] = x.detach().clone()

        return see

    final_hidden(modules, prompts, {(component, layer): keep(layer) for layer in layers})
    return seen


def first_difference(prompts: Prompts, rows: slice, edit: Edit) -> int:
    """The first position at which an edit can differ from the clean run; 0 where that is unknown."""
    if not isinstance(edit, Replace):
        return 0
    by = edit.by if len(edit.by) == 1 else edit.by.rows(rows)
    if by.length != prompts.length or (by.valid is None) != (prompts.valid is None):
        return 0
    differ = (by.tokens != prompts.tokens).any(dim=0)
    if by.valid is not None and prompts.valid is not None:
        differ |= (by.valid != prompts.valid).any(dim=0)
    return int(differ.int().argmax()) if bool(differ.any()) else prompts.length


def _aligned(by: Prompts, prompts: Prompts, rows: slice, total: int, what: str) -> Prompts:
    if len(by) not in (1, total):
        raise ValueError(f"{what}: {len(by)} source prompts for {total} prompts: expected as many, or one for all")
    by = by if len(by) == 1 else by.rows(rows)
    if by.length != prompts.length:
        raise ValueError(
            f"{what}: source prompts have {by.length} tokens, the prompts {prompts.length}: expected equal lengths, so "
            f"that positions correspond"
        )
    return by


def _means(seen: dict[int, Tensor], over: Prompts, pooled: bool) -> dict[int, Tensor]:
    if not pooled:
        return {layer: x.mean(dim=0, keepdim=True) for layer, x in seen.items()}
    valid = torch.ones_like(over.tokens, dtype=torch.bool) if over.valid is None else over.valid
    return {layer: x[valid.to(x.device)].mean(dim=0)[None, None] for layer, x in seen.items()}


def _given(
    values: Mapping[int, Tensor], prompts: Prompts, rows: slice, total: int, component: str, layers: Sequence[int]
) -> dict[int, Tensor]:
    if missing := sorted(set(layers) - values.keys()):
        raise ValueError(f"Given: no value for layer {missing[0]} of {component}: expected layers {list(layers)}")
    for layer, value in values.items():
        if value.ndim < 3 or value.shape[0] not in (1, total) or value.shape[1] not in (1, prompts.length):
            raise ValueError(
                f"Given: {component} of layer {layer} has shape {tuple(value.shape)}: expected "
                f"[{total} or 1, {prompts.length} or 1, ...], prompts and positions first"
            )
    return {layer: value if value.shape[0] == 1 else value[rows] for layer, value in values.items()}

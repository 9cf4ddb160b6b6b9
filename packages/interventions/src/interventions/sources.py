"""Edits made ready for a sweep: the activations of other prompts are captured once, for all its cells."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from interventions.attention import Callback
from interventions.edits import Add, Edit, Given, Mean, ProjectOut, Replace, Resample, as_function, derangement
from interventions.hooks import HEADS, Modules
from interventions.network import final_hidden
from interventions.prompts import Prompts

if TYPE_CHECKING:
    from interventions.branch_attention import BranchEdit
    from interventions.recordings import Recordings
    from interventions.sweeps import Cell


@dataclass(frozen=True)
class Edited:
    """Either `values` by layer, [batch or 1, pos or 1, ...], or a `function` of the activation."""

    values: Mapping[int, Tensor] | None = None
    function: Callable[[Tensor], Tensor] | None = None

    def of_cell(self, cell: Cell, component: str) -> Callback:
        """A hook that edits the cell in an ordinary pass: [batch, pos, ...]."""

        heads = cell.heads or (0,)
        places = torch.tensor(cell.positions).repeat_interleave(len(heads))
        at = (slice(None), places, *((torch.tensor(heads * len(cell.positions)),) if component in HEADS else ()))

        def edit(x: Tensor) -> Tensor:
            new = _same_shape(self.function, x[at]) if self.function else self._values(cell.layer, x)[at]
            x = x.clone()
            x[at] = new
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
                new = _same_shape(self.function, x[at])
            else:
                whole = self._values(layer, x[:, 0], start + x.shape[2])
                new = whole[(slice(None), offsets + start, *((heads,) if component in HEADS else ()))]
            x[at] = new  # in place: what branches compute is theirs alone
            return x

        return edit

    def _values(self, layer: int, x: Tensor, length: int | None = None) -> Tensor:
        assert self.values is not None
        given = self.values[layer].to(x)
        return given.expand(x.shape[0], length or x.shape[1], *x.shape[2:])


def check_edit(
    modules: Modules, prompts: Prompts, edit: Edit, component: str, layers: Sequence[int], positions: Sequence[int]
) -> None:
    """Refuse an edit that does not fit, before anything runs.

    Args:
        positions: that will be edited, counted from the end.

    Raises:
        ValueError: source prompts that are too few or too short, given values, vectors of the wrong shape.
    """
    match edit:
        case Replace(by):
            _check_aligned(by, prompts, component, positions, "Replace")
        case Resample(by, seed):
            _check_aligned(_donors(by, seed), prompts, component, positions, "Resample")
        case Mean(over, pooled):
            _check_mean(over, pooled, prompts, component, positions)
        case Given(values):
            _check_given(values, prompts, component, layers, _shape(modules, component, prompts.length))
        case Add(vector):
            _check_width(vector, 1, _shape(modules, component, prompts.length)[-1], f"Add to {component}")
        case ProjectOut(vectors):
            _check_width(vectors, 2, _shape(modules, component, prompts.length)[-1], f"ProjectOut from {component}")


def settled(modules: Modules, edit: Edit, component: str, layers: Sequence[int]) -> Edit:
    """An edit that is the same for all prompts, run once: means become given values."""
    if not isinstance(edit, Mean):
        return edit
    return Given(_means(captured(modules, edit.over, component, layers), edit.over, edit.pooled))


def prepare(
    modules: Modules,
    rows: slice,
    edit: Edit,
    component: str,
    layers: Sequence[int],
    recordings: Recordings | None = None,
) -> Edited:
    """Run what a checked edit needs for some (`rows`) of the prompts; source prompts may be recorded."""
    match edit:
        case Replace(by):
            some = by if len(by) == 1 else by.rows(rows)
            found = recordings.captured(some, component, layers) if recordings else None
            return Edited(captured(modules, some, component, layers) if found is None else found)
        case Resample(by, seed):
            return Edited(captured(modules, _donors(by, seed).rows(rows), component, layers))
        case Mean():
            return prepare(modules, rows, settled(modules, edit, component, layers), component, layers)
        case Given(values):
            return Edited({layer: x if len(x) == 1 else x[rows] for layer, x in values.items()})
        case _:
            return Edited(function=as_function(edit))


class _SeenAllError(Exception):
    """Ends a pass that has no more to show."""


def captured(
    modules: Modules, prompts: Prompts, component: str, layers: Sequence[int]
) -> dict[int, Float[Tensor, "batch pos ..."]]:
    """A component of some layers, in one ordinary pass, which ends where all of them are seen."""
    seen: dict[int, Tensor] = {}

    def keep(layer: int) -> Callback:
        def see(x: Tensor) -> None:
            seen[layer] = x.detach().clone()
            if len(seen) == len(layers):
                raise _SeenAllError

        return see

    with suppress(_SeenAllError):
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


def _donors(by: Prompts, seed: int) -> Prompts:
    return by.take(derangement(len(by), seed=seed))


def _same_shape(function: Callable[[Tensor], Tensor], x: Tensor) -> Tensor:
    new = function(x)
    if new.shape != x.shape:
        raise ValueError(
            f"Apply: the function returned shape {tuple(new.shape)}: expected {tuple(x.shape)}, its input's"
        )
    return new


def _means(seen: dict[int, Tensor], over: Prompts, pooled: bool) -> dict[int, Tensor]:
    if not pooled:
        return {layer: x.mean(dim=0, keepdim=True) for layer, x in seen.items()}
    valid = torch.ones_like(over.tokens, dtype=torch.bool) if over.valid is None else over.valid
    return {layer: x[valid.to(x.device)].mean(dim=0)[None, None] for layer, x in seen.items()}


def _real(prompts: Prompts) -> Bool[Tensor, "batch pos"]:
    valid = torch.ones_like(prompts.tokens, dtype=torch.bool) if prompts.valid is None else prompts.valid
    return valid.cpu()


def _check_aligned(by: Prompts, prompts: Prompts, component: str, positions: Sequence[int], what: str) -> None:
    if len(by) not in (1, len(prompts)):
        raise ValueError(
            f"{what}: {len(by)} source prompts for {len(prompts)} prompts: expected as many, or one for all"
        )
    if by.length != prompts.length:
        raise ValueError(
            f"{what}: source prompts have {by.length} tokens, the prompts {prompts.length}: expected equal lengths, so "
            f"that positions correspond"
        )
    theirs, ours = _real(by).expand(len(prompts), -1), _real(prompts)
    wanted = ours != theirs if component == "pattern" else ours & ~theirs
    at = list(range(prompts.length)) if component == "pattern" else sorted(p + prompts.length for p in positions)
    if wanted[:, at].any():
        prompt = int(wanted[:, at].any(dim=1).nonzero()[0])
        raise ValueError(
            f"{what}: prompt {prompt} has {int(ours[prompt].sum())} tokens, its source {int(theirs[prompt].sum())}: "
            f"expected equal lengths, or positions that both have"
        )


def _check_mean(over: Prompts, pooled: bool, prompts: Prompts, component: str, positions: Sequence[int]) -> None:
    if pooled and component == "pattern":
        raise ValueError("Mean: patterns of several positions have no mean: expected pooled=False for pattern")
    if pooled:
        return
    if over.length != prompts.length or min(positions) < -over.shortest:
        raise ValueError(
            f"Mean over prompts of {over.shortest} to {over.length} tokens, at position {min(positions)} of prompts of "
            f"{prompts.length}: expected equal lengths and positions that all have; use Mean(..., pooled=True)"
        )
    if component == "pattern" and not bool((_real(over)[:1] == _real(over)).all() and over.valid is prompts.valid):
        raise ValueError("Mean of patterns over padded prompts: expected one length without padding, as of the prompts")


def _check_given(
    values: Mapping[int, Tensor], prompts: Prompts, component: str, layers: Sequence[int], shape: tuple[int, ...]
) -> None:
    if missing := sorted(set(layers) - values.keys()):
        raise ValueError(f"Given: no value for layer {missing[0]} of {component}: expected layers {list(layers)}")
    total, length = len(prompts), prompts.length
    for layer, x in values.items():
        if x.ndim < 2 or x.shape[0] not in (1, total) or x.shape[1] not in (1, length) or x.shape[2:] != shape:
            raise ValueError(
                f"Given: {component} of layer {layer} has shape {tuple(x.shape)}: expected "
                f"[{total} or 1, {length} or 1, {', '.join(map(str, shape))}], prompts and positions first"
            )


def _check_width(vectors: Tensor, ndim: int, width: int, what: str) -> None:
    if vectors.ndim != ndim or vectors.shape[-1] != width:
        expected = f"[{width}]" if ndim == 1 else f"[k, {width}]"
        raise ValueError(f"{what}: vectors have shape {tuple(vectors.shape)}: expected {expected}")


def _shape(modules: Modules, component: str, length: int) -> tuple[int, ...]:
    """The dimensions of a component after batch and position."""
    d_model = next(modules.final_norm.parameters()).shape[-1]
    if component not in HEADS:
        return (d_model,)
    if component == "pattern":
        return modules.n_heads, length
    weight = next(modules.output_projection(0).parameters())
    return (
        modules.n_kv_heads if component in ("k", "v") else modules.n_heads
    ), weight.numel() // d_model // modules.n_heads

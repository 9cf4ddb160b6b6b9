"""What vectors do in a traced pass, found out beforehand: by the same functions as in `steered`, as tuples of tensors.

The body of a trace may run where this package is not installed. It knows the four operations in one form,

    new = h + a + b (h . u) u          then, if norms are kept,  new |h| / |new|

    add                a = c v           b = 0                   norm_preserving    as add, norms kept
    project_out        a = 0             b = -c                  clamp              a = c |v| u,  b = -1

A pass may hold at once what generation runs in several calls, a prompt and what is written behind it: positions are
then those of the calls, side by side (`together`).
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from interventions import Prompts
from interventions.calls import Call
from steering.steering import Steer, _Step, _Where

Edit = tuple[Tensor | bool, Tensor, float, Tensor, bool]
"""where (True is all), a, b, u, and whether norms are kept."""
Place = tuple[int, bool, list[Edit]]
"""A layer, whether in front of it, and what is done there in this order."""


def calls_of(prompts: Prompts, n: int) -> list[Call]:
    """The call with the prompts, and those of the n - 1 tokens behind it that are run, one at a time."""
    batch, length, device = len(prompts), prompts.length, prompts.tokens.device
    calls = [Call(batch, length, 0, prompts.valid, device)]
    for new in range(1, n):
        mask = None
        if prompts.valid is not None:
            mask = torch.cat([prompts.valid, prompts.valid.new_ones(batch, new)], dim=1)
        calls.append(following(calls[0], 1, length + new - 1, mask))
    return calls


def following(first: Call, length: int, cached: int, mask: Tensor | None) -> Call:
    """A later call of the text whose prompt is in the first one."""
    call = Call(first.batch, length, cached, mask, first.device)
    call.prompt, call.first = first.prompt, False
    return call


def one_by_one(steers: Sequence[Steer], calls: Sequence[Call]) -> list[list[Place]]:
    """What is done in each call, in the order in which a model computes."""
    wheres = [_Where(steer) for steer in steers]
    plan = []
    for call in calls:
        places: dict[tuple[int, bool], list[Edit]] = {}
        for steer, where in zip(steers, wheres, strict=True):
            for layer in steer.chosen:
                if edit := _edit(_Step(steer, layer, where), call):
                    places.setdefault((layer, steer.vector.component == "resid_post"), []).append(edit)
        plan.append(_sorted(places))
    return plan


def together(steers: Sequence[Steer], calls: Sequence[Call]) -> list[Place]:
    """The same of a single pass over the tokens of all calls."""
    if len(calls) == 1:
        return one_by_one(steers, calls)[0]
    places: dict[tuple[int, bool], list[Edit]] = {}
    for steer in steers:
        where = _Where(steer)
        for layer in steer.chosen:
            step = _Step(steer, layer, where)
            if edit := _joined([_edit(step, call) for call in calls], calls):
                places.setdefault((layer, steer.vector.component == "resid_post"), []).append(edit)
    return _sorted(places)


def of_row(places: Sequence[Place], row: int, columns: Tensor) -> list[Place]:
    """What is done in one row, at some columns alone."""

    def cut(part: Tensor) -> Tensor:
        return part if part.ndim == 1 else part[row if len(part) > 1 else 0][columns]

    return [
        (
            layer,
            in_front,
            [(w if isinstance(w, bool) else cut(w), cut(a), b, cut(u), norm) for w, a, b, u, norm in edits],
        )
        for layer, in_front, edits in places
    ]


def _sorted(places: dict[tuple[int, bool], list[Edit]]) -> list[Place]:
    return [(layer, not behind, edits) for (layer, behind), edits in sorted(places.items(), key=lambda item: item[0])]


def _edit(step: _Step, call: Call) -> Edit | None:
    where = step.where.of(call)
    if where is False:
        return None
    vector, u, target = step.exact
    if vector.ndim == 2:
        rows = call.rows.clamp(0, len(vector) - 1)
        vector, u, target = vector[rows], u[rows], target[rows]
    if step.operation == "clamp":
        return where, target * u, -1.0, u, False
    if step.operation == "project_out":
        return where, torch.zeros_like(u), -step.coefficient, u, False
    return where, vector, 0.0, u, step.operation == "norm_preserving"


def _joined(parts: Sequence[Edit | None], calls: Sequence[Call]) -> Edit | None:
    """The edits of calls side by side; where a call has none, nothing is done."""
    some = next((part for part in parts if part is not None), None)
    if some is None:
        return None
    wheres, rows, units = [], [], []
    for part, call in zip(parts, calls, strict=True):
        where = False if part is None else part[0]
        shape = (call.batch, call.length, 1)
        wheres.append(where.expand(shape) if isinstance(where, Tensor) else torch.full(shape, where))
        if some[1].ndim > 1:  # a row for each position of the prompt
            width = (call.batch, call.length, some[1].shape[-1])
            none = torch.zeros((), dtype=some[1].dtype)
            rows.append((none if part is None else part[1]).expand(width))
            units.append((none if part is None else part[3]).expand(width))
    a, u = (torch.cat(rows, dim=1), torch.cat(units, dim=1)) if rows else (some[1], some[3])
    return torch.cat(wheres, dim=1), a, some[2], u, some[4]

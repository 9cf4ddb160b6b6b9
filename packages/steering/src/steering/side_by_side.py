"""Completions under several conditions at once: rows of one batch, each steered by what its own condition has.

A small model spends most of its time on being called, and twelve conditions of few prompts in one batch take little
longer than one. Each condition writes what `outcomes.written` gives for it alone: its rows draw by their numbers in the
condition, and a vector acts in the rows of its condition (equal but for rounding, as with any other batch size).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import torch
from jaxtyping import Bool, Int
from torch import Tensor

from interventions import Model
from interventions.calls import Call
from steering.errors import SteeringError
from steering.generation import Completions, generate
from steering.outcomes import Writing
from steering.positions import Positions
from steering.steering import Steer


@dataclass(frozen=True)
class Condition:
    """Prompts, the vectors that act while they are completed, and what is put in front of each."""

    prompts: Sequence[str]
    steers: Sequence[Steer] = ()
    prefix: str = ""


@dataclass(frozen=True, eq=False)
class InRows(Positions):
    """The same positions, in some rows of the batch alone."""

    positions: Positions
    rows: Bool[Tensor, " row"]

    def of(self, call: Call) -> bool | Bool[Tensor, "batch_or_1 pos"]:
        where = bool(self.rows.any()) and self.positions.of(call)
        if where is False:
            return False
        rows = self.rows.to(call.device)[:, None]
        return rows.expand(-1, call.length) if where is True else rows & where

    def of_rows(self, rows: Int[Tensor, " row"], first: int = 0) -> Positions:
        return InRows(self.positions.of_rows(rows, first), self.rows[rows])


def written_together(model: Model, conditions: Sequence[Condition], writing: Writing) -> list[Completions]:
    """Completions of each condition's prompts, as `outcomes.written` orders them.

    Masks of positions have the columns of the prompts of all conditions together.

    Raises:
        SteeringError: no conditions, or one without prompts; else as `generation.generate`.
    """
    if not conditions or not all(condition.prompts for condition in conditions):
        raise SteeringError(f"{len(conditions)} conditions: expected at least one, and prompts in each")
    sizes = torch.tensor([len(condition.prompts) * writing.samples for condition in conditions])
    owner = torch.arange(len(sizes)).repeat_interleave(sizes)
    number = torch.cat([torch.arange(int(size)) for size in sizes])
    prompt = number // writing.samples
    steers = [
        replace(steer, positions=InRows(steer.positions.of_rows(prompt.where(owner == place, 0)), owner == place))
        for place, condition in enumerate(conditions)
        for steer in condition.steers
    ]
    found = generate(
        model,
        [
            conditions[of].prefix + conditions[of].prompts[at]
            for of, at in zip(owner.tolist(), prompt.tolist(), strict=True)
        ],
        steers=steers,
        max_new_tokens=writing.max_new_tokens,
        temperature=writing.temperature,
        top_k=writing.top_k,
        top_p=writing.top_p,
        seed=writing.seed,
        batch_size=writing.batch_size,
        numbers=number,
    )
    ends = sizes.cumsum(0).tolist()
    return [found[end - size : end] for size, end in zip(sizes.tolist(), ends, strict=True)]

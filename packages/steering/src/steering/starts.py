"""The start of prompts that no vector touches: run once, and kept while the rest is run under several conditions.

In a causal model what stands before the first position that a vector acts on is as it is without the vector. Vectors
that act from the prompt's last token on leave all of a question but its end untouched: its keys and values are computed
once, and each condition runs the end alone. The same numbers but for rounding.
"""

from __future__ import annotations

import inspect
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from interventions import Prompts
from interventions.calls import Call
from interventions.hooks import Modules
from steering.steering import Steer


@dataclass(frozen=True)
class Start:
    """Keys and values of the first `columns` columns of prompts; `options` are of the call for the others."""

    modules: Modules
    prompts: Prompts
    columns: int
    cache: Any
    options: dict[str, Any]

    @classmethod
    def of(cls, modules: Modules, prompts: Prompts, conditions: Sequence[Sequence[Steer]]) -> Start | None:
        """Run what all conditions leave untouched; None where that is nothing, or the network's cache forgets."""
        network: Any = modules.network
        prompts = prompts.to(next(network.parameters()).device)
        columns = untouched(prompts, [steer for steers in conditions for steer in steers])
        takes = inspect.signature(network.base_model.forward).parameters
        forgets = getattr(network.config.get_text_config(), "sliding_window", None) is not None
        if not columns or forgets or "past_key_values" not in takes:
            return None
        mask = torch.ones_like(prompts.tokens) if prompts.valid is None else prompts.valid.long()
        places = prompts.position_ids.expand_as(prompts.tokens)
        placed = "position_ids" in takes

        def call(some: slice) -> dict[str, Any]:
            return {"attention_mask": mask[:, : some.stop]} | ({"position_ids": places[:, some]} if placed else {})

        output = network.base_model(prompts.tokens[:, :columns], use_cache=True, **call(slice(0, columns)))
        rest = call(slice(columns, prompts.length))
        return cls(modules, prompts, columns, output.past_key_values, rest)

    def rest(self) -> Float[Tensor, "batch pos d_model"]:
        """The other columns behind the final norm, under whatever acts now."""
        network: Any = self.modules.network
        tokens = self.prompts.tokens[:, self.columns :]
        output = network.base_model(tokens, past_key_values=self.cache, use_cache=True, **self.options)
        self.cache.crop(self.columns - self.prompts.length)
        hidden: Tensor = output[0]
        return hidden


def untouched(prompts: Prompts, steers: Sequence[Steer]) -> int:
    """How many of the first columns no steer acts on, the last one never among them."""
    valid = None if prompts.valid is None else prompts.valid.long()
    call = Call(len(prompts), prompts.length, 0, valid, prompts.tokens.device)
    first = prompts.length - 1
    for steer in steers:
        where = steer.positions.of(call)
        by_position = any(direction.ndim == 2 for direction in steer.vector.directions.values())
        if where is True or by_position:
            return 0
        if isinstance(where, Tensor) and bool(where.any()):
            first = min(first, int(where.any(dim=0).nonzero()[0]))
    return first

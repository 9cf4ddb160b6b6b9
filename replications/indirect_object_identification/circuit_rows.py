"""Many circuits in one pass: rows that share what they have in common.

The stream at layer l depends on what a circuit keeps *below* l alone. So at every layer there is one row of tokens for
each different choice up to it, and rows part where choices do:

    row r of layer l reads the stream of row parents_l[r] of l - 1, and has z where nodes_l[r] keeps it, else its mean

The row that most circuits follow, layer by layer, is the ordinary pass that everything needs; all others are branches
of whole prompts beside it (`interventions.branching`). All single heads taken out of one circuit cost half of a pass
each. Of the last layer all but keys and values is computed for the last token alone. Nothing is approximated.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import partial

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from interventions import Prompts
from interventions.attention import AttentionCall
from interventions.branching import Shared, run_shared
from interventions.hooks import Modules, attached

Choose = Callable[[Tensor], Tensor]
Kept = Bool[Tensor, "batch row pos head"]
Mean = Float[Tensor, "batch pos head d_head"]


@dataclass(frozen=True)
class Plan:
    """Which rows there are at each layer, one for each different choice up to it.

    `nodes[l]` [row, head] is what rows keep in layer l, `parents[l]` [row] the rows of layer l - 1 that they come from,
    with the first row for the path that most circuits follow; `rows` [circuit] are those of the last layer.
    """

    nodes: list[Int[Tensor, "row head"]]
    parents: list[Int[Tensor, " row"]]
    rows: Int[Tensor, " circuit"]

    @property
    def widest(self) -> int:
        return max(len(parents) for parents in self.parents)

    @classmethod
    def of(cls, circuits: Int[Tensor, "circuit layer head"]) -> Plan:
        row_of = torch.zeros(len(circuits), dtype=torch.long)
        nodes, parents = [], []
        for choice in circuits.unbind(dim=1):
            own = torch.cat([row_of[:, None], choice], dim=1)
            different, row_of, counts = torch.unique(own, dim=0, return_inverse=True, return_counts=True)
            on_path = counts * (different[:, 0] == 0)  # behind the path so far
            order = on_path.argsort(descending=True, stable=True)
            nodes.append(different[order, 1:])
            parents.append(different[order, 0])
            row_of = order.argsort()[row_of]
        return cls(nodes, parents, row_of)


def run_rows(
    modules: Modules, prompts: Prompts, plan: Plan, kept: Sequence[Kept], means: Sequence[Mean]
) -> Float[Tensor, "batch row d_model"]:
    """The stream behind the final norm at the last token, of every row of the last layer.

    Args:
        kept, means: by layer, of the prompts' tokens; `kept` as the plan's nodes say.
    """
    end, width = len(modules) - 1, prompts.length
    path = {("z", layer): partial(choose, kept[layer][:, 0], means[layer]) for layer in range(end + 1)}
    shared = run_shared(modules, prompts, 0, path, whole=True)
    assert shared.final is not None
    rows = shared.stream[0][:, None][:, :0]
    for layer, parents in enumerate(plan.parents):
        before = torch.cat([shared.stream[layer][:, None], rows], dim=1)
        apart, mine = parents[1:].to(before.device), kept[layer][:, 1:]  # all but the path
        if not len(apart):
            rows = before[:, :0]
        elif layer == end:
            rows = _last_layer(shared, before, apart, partial(_choose_rows, mine[:, :, -1:], means[layer][:, -1:]))
        else:
            hook = partial(_choose_rows, mine, means[layer])
            with attached(modules, {("z", layer): hook}, shared.attention(0, {})):
                at = torch.arange(width, device=before.device).repeat(len(apart))
                rows = shared.replay.layer(layer, before[:, apart].flatten(1, 2), at).view(*mine.shape[:3], -1)
    return torch.cat([shared.final[:, -1:], modules.final_norm(rows[:, :, -1])], dim=1)


def _last_layer(
    shared: Shared, before: Float[Tensor, "batch row pos d_model"], parents: Int[Tensor, " new"], hook: Choose
) -> Float[Tensor, "batch new 1 d_model"]:
    """The last layer at the last token; keys and values are those of the rows before it."""
    layer, (batch, rows, width, d_model) = len(shared.modules) - 1, before.shape
    at = torch.arange(width, device=before.device)
    whole = shared.replay.attention_call(layer, before.flatten(1, 2), at.repeat(rows))
    attention = shared.attention(0, {})

    def of_parents(x: Float[Tensor, "batch kv_head key d_head"]) -> Float[Tensor, "batch kv_head taken d_head"]:
        return x.unflatten(2, (rows, width))[:, :, parents].flatten(2, 3)  # type: ignore[no-untyped-call,no-any-return]

    def attend(call: AttentionCall) -> Tensor:
        return attention(replace(call, key=of_parents(whole.key), value=of_parents(whole.value)))

    with attached(shared.modules, {("z", layer): hook}, attend):
        last = shared.replay.layer(layer, before[:, parents, -1], at[-1:].repeat(len(parents)))
    return last.view(batch, len(parents), 1, d_model)


def choose(kept: Bool[Tensor, "batch pos head"], mean: Mean, z: Tensor) -> Tensor:
    """z where it is kept, else its mean."""
    return torch.where(kept.to(z.device)[..., None], z, mean.to(z))


def _choose_rows(kept: Kept, mean: Mean, z: Tensor) -> Tensor:
    """The same of rows beside each other, [batch, row * pos, head, d_head]."""
    apart = z.view(*kept.shape, -1)
    return torch.where(kept.to(z.device)[..., None], apart, mean.to(z)[:, None]).view_as(z)

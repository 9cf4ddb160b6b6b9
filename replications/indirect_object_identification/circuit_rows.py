"""Many circuits in one pass: rows that share what they have in common.

The stream at layer l depends on what a circuit keeps *below* l alone. So at every layer there is one row of tokens for
each different choice up to it, and rows part where choices do:

    row r of layer l reads the stream of row parents_l[r] of l - 1, and has z where nodes_l[r] keeps it, else its mean

The row that most circuits follow, layer by layer, is the ordinary pass that everything needs. All others are computed
beside it, as `interventions.branching` computes branches, and only at the tokens where they can be another than it
(`moved_tokens`): where a circuit keeps its heads at a few words, the stream at all other tokens does not depend on
which of them it keeps. All single heads taken out of one circuit cost half of a pass each, or less. Of the last layer
all but keys and values is computed for the last token alone. Nothing is approximated.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import partial

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from interventions import Prompts
from interventions.attention import AttentionCall, PlainAttention
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


def moved_tokens(plan: Plan, kept: Sequence[Kept]) -> list[Bool[Tensor, "row pos"]]:
    """At which tokens the stream behind each layer can be another than the path's, of every row.

    Where a row and the path keep different nodes; and where both keep a head that sees such a token. What neither keeps
    is the mean in both.
    """
    before, found = torch.zeros(1, kept[0].shape[2], dtype=torch.bool), []
    for parents, mine in zip(plan.parents, kept, strict=True):
        path, came = mine[:, :1], before[parents]
        parted = (mine != path).any(dim=-1).any(dim=0)
        shared = (mine & path).any(dim=-1).any(dim=0)
        before = came | parted | ((came.cumsum(dim=1) > 0) & shared)
        found.append(before)
    return found


def run_rows(
    modules: Modules, prompts: Prompts, plan: Plan, kept: Sequence[Kept], means: Sequence[Mean]
) -> Float[Tensor, "batch row d_model"]:
    """The stream behind the final norm at the last token, of every row of the last layer.

    Args:
        prompts: without padding.
        kept, means: by layer, of the prompts' tokens; `kept` as the plan's nodes say.
    """
    end = len(modules) - 1
    path = {("z", layer): partial(choose, kept[layer][:, 0], means[layer]) for layer in range(end + 1)}
    shared = run_shared(modules, prompts, 0, path, whole=True)
    assert shared.final is not None
    held = _Rows(shared.stream[0][:, None][:, :0, :0], torch.zeros(0, dtype=torch.long))
    for layer, (parents, moved) in enumerate(zip(plan.parents[:end], moved_tokens(plan, kept), strict=False)):
        tokens = moved.any(dim=0).nonzero().flatten()
        rows, mine = held.at(shared.stream[layer], tokens)[:, parents[1:]], kept[layer][:, 1:, tokens]
        if rows.numel():
            hook = partial(_choose_rows, mine, means[layer][:, tokens])
            with attached(modules, {("z", layer): hook}, _Over(shared, tokens, tokens)):
                at = tokens.to(rows.device).repeat(rows.shape[1])
                rows = shared.replay.layer(layer, rows.flatten(1, 2), at).view(rows.shape)
        held = _Rows(rows, tokens)
    return torch.cat([shared.final[:, -1:], _last_layer(shared, held, plan, kept[end][:, 1:], means[end])], dim=1)


@dataclass(frozen=True)
class _Rows:
    """The stream of all rows but the path's, at the tokens where any of them can be another than it."""

    rows: Float[Tensor, "batch row token d_model"]
    tokens: Int[Tensor, " token"]

    def at(
        self, path: Float[Tensor, "batch pos d_model"], tokens: Int[Tensor, " wanted"]
    ) -> Float[Tensor, "batch row_and_path wanted d_model"]:
        """The path's stream and behind it the rows', at these tokens, all of `self.tokens` among them."""
        found = path[:, None, tokens].repeat(1, 1 + self.rows.shape[1], 1, 1)
        found[:, 1:, torch.isin(tokens, self.tokens)] = self.rows
        return found


@dataclass(frozen=True)
class _Over:
    """Attention of rows at some tokens over the path's keys and values, with their own in place of them.

    Args:
        asked: where queries stand, the same tokens in every row.
        own: where the rows' own keys and values stand.
    """

    shared: Shared
    asked: Int[Tensor, " query"]
    own: Int[Tensor, " token"]

    def __call__(self, call: AttentionCall) -> Float[Tensor, "batch query head d_head"]:
        n = call.query.shape[2] // len(self.asked)
        keys = torch.arange(self.shared.prompts.length)
        seen = keys <= self.asked[:, None]
        if call.window is not None:
            seen &= keys > self.asked[:, None] - call.window
        mask = torch.zeros(seen.shape).masked_fill(~seen, -torch.inf).to(call.query)[None, None]
        key = self._whole(self.shared.keys[call.layer], call.key, n)
        value = self._whole(self.shared.values[call.layer], call.value, n)
        query = _by_row(call.query, n).flatten(0, 1)
        z = PlainAttention({})(replace(call, query=query, key=key, value=value, mask=mask))
        return z.reshape(len(call.query), -1, *z.shape[2:])

    def _whole(self, path: Tensor, own: Tensor, n: int) -> Float[Tensor, "batch_row kv_head pos d_head"]:
        whole = path[:, None].repeat(1, n, 1, 1, 1)
        whole[:, :, :, self.own] = _by_row(own, n)
        return whole.flatten(0, 1)


def _by_row(x: Float[Tensor, "batch head row_token d"], n: int) -> Float[Tensor, "batch row head token d"]:
    by_row: Tensor = x.unflatten(2, (n, x.shape[2] // n)).transpose(1, 2)  # type: ignore[no-untyped-call]
    return by_row


def _last_layer(shared: Shared, held: _Rows, plan: Plan, kept: Kept, mean: Mean) -> Float[Tensor, "batch row d_model"]:
    """Behind the last layer and the final norm, at the last token; keys and values are those of the rows before it."""
    layer, last = len(shared.modules) - 1, torch.tensor([shared.prompts.length - 1])
    parents, stream = plan.parents[layer][1:], shared.stream[layer]
    queries = held.at(stream, torch.unique(torch.cat([held.tokens, last])))[:, parents, -1]
    if not len(parents):
        return queries
    own = [shared.keys[layer][:, :, :0], shared.values[layer][:, :, :0]]
    if len(held.tokens):
        before = held.at(stream, held.tokens)
        n = before.shape[1]
        whole = shared.replay.attention_call(layer, before.flatten(1, 2), held.tokens.to(before.device).repeat(n))
        own = [_by_row(x, n)[:, parents].transpose(1, 2).flatten(2, 3) for x in (whole.key, whole.value)]
    over = _Over(shared, last, held.tokens)

    def attend(call: AttentionCall) -> Tensor:
        return over(replace(call, key=own[0], value=own[1]))

    hook = partial(_choose_rows, kept[:, :, -1:], mean[:, -1:])
    with attached(shared.modules, {("z", layer): hook}, attend):
        rows = shared.replay.layer(layer, queries, last.to(queries.device).repeat(len(parents)))
    normed: Tensor = shared.modules.final_norm(rows)
    return normed


def choose(kept: Bool[Tensor, "batch pos head"], mean: Mean, z: Tensor) -> Tensor:
    """z where it is kept, else its mean."""
    return torch.where(kept.to(z.device)[..., None], z, mean.to(z))


def _choose_rows(kept: Kept, mean: Mean, z: Tensor) -> Tensor:
    """The same of rows beside each other, [batch, row * pos, head, d_head]."""
    apart = z.view(*kept.shape, -1)
    return torch.where(kept.to(z.device)[..., None], apart, mean.to(z)[:, None]).view_as(z)

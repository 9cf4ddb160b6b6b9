"""Many circuits in one pass: every stream that some of them have in common is computed once (`circuit_states`).

A layer is run on the rows of all states behind it, of all prompts, one beside the other:

    z            of the states that keep heads, whose queries look at the keys and values of their own circuit's states
    z := mean    where a head is not kept; heads that no state keeps, and states that keep none, need no attention
    the rest     of the layer, the MLP above all, as it is

Nothing is approximated.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import cached_property

import torch
from jaxtyping import Bool, Float, Int
from replications.indirect_object_identification.circuit_states import Layer, States
from torch import Tensor

from interventions.attention import AttentionCall, PlainAttention
from interventions.network import Replay

Mean = Float[Tensor, "layout pos head d_head"]
BLOCK = 2048  # rows that go through an MLP at a time


@dataclass(frozen=True)
class Inputs:
    """What rows begin with, and what heads that are not kept give; tokens end together, as prompts do.

    Args:
        replay: of an ordinary pass over a prompt as long as the longest.
        embedded: the stream before the first layer.
        starts: where the first token of each prompt is.
        means: by layer, of tokens as those of `embedded`; `layouts` says which of them are a prompt's.
    """

    replay: Replay
    embedded: Float[Tensor, "prompt pos d_model"]
    starts: Int[Tensor, " prompt"]
    means: tuple[Mean, ...]
    layouts: Int[Tensor, " prompt"]

    @cached_property
    def written(self) -> tuple[Float[Tensor, "layout pos d_model"], ...]:
        """What the attention of each layer writes where no head is kept."""
        return tuple(self.replay.written(layer, mean) for layer, mean in enumerate(self.means))


@dataclass(frozen=True)
class Some:
    """Prompts that are run together: `rows` of each kind, one kind behind the other, and how many a kind has."""

    rows: Int[Tensor, " prompt"]
    counts: Int[Tensor, " kind"]

    def spread(self, kinds: Int[Tensor, " thing"]) -> tuple[Int[Tensor, " row"], Int[Tensor, " row"]]:
        """A row for each prompt of each thing's kind, thing by thing: which thing, and which of its kind's prompts."""
        thing = torch.repeat_interleave(self.counts[kinds])
        return thing, torch.arange(len(thing)) - self.first(kinds)[thing]

    def first(self, kinds: Int[Tensor, " thing"]) -> Int[Tensor, " thing"]:
        """Of these rows, the first one of each thing."""
        n = self.counts[kinds]
        return n.cumsum(dim=0) - n

    def prompts(self, kinds: Int[Tensor, " row"], within: Int[Tensor, " row"]) -> Int[Tensor, " row"]:
        return self.rows[(self.counts.cumsum(dim=0) - self.counts)[kinds] + within]


class _Stream:
    """The stream before a layer: a row for each state and prompt."""

    def __init__(self, inputs: Inputs, some: Some, kinds: Int[Tensor, " state"], tokens: Int[Tensor, " state"]) -> None:
        self.first = some.first(kinds)
        state, self.within = some.spread(kinds)
        self.prompts = some.prompts(kinds[state], self.within)
        self.tokens = tokens[state]
        self.state, self.positions = state, self.tokens - inputs.starts[self.prompts]
        self.rows = torch.empty(0)


def run_rows(inputs: Inputs, states: States, some: Some) -> Float[Tensor, "prompt circuit d_model"]:
    """The stream behind the final norm at the last token, of some prompts in their order."""
    before = _Stream(inputs, some, states.kinds, states.tokens)
    before.rows = inputs.embedded[before.prompts, before.tokens]
    for layer, of in enumerate(states.layers):
        behind = _Stream(inputs, some, of.kinds, of.tokens)
        written = inputs.written[layer][inputs.layouts[behind.prompts], behind.tokens]
        if len(of.asking):
            asking, within = some.spread(of.kinds[of.asking])
            rows = behind.first[of.asking[asking]] + within
            z = inputs.means[layer][inputs.layouts[behind.prompts[rows]], behind.tokens[rows]]
            heads = of.heads.any(dim=0).nonzero().flatten().tolist()
            own = _attention(inputs, some, layer, of, before, heads)
            z[:, heads] = torch.where(of.heads[asking][:, heads].to(z.device)[..., None], own, z[:, heads])
            written[rows] = inputs.replay.written(layer, z[None])[0]
        parents = before.first[of.parents[behind.state]] + behind.within
        behind.rows = torch.empty_like(written)
        for block in torch.split(torch.arange(len(parents)), BLOCK):
            stream, positions = before.rows[parents[block]], behind.positions[block].to(written.device)
            found = inputs.replay.behind_written(layer, stream[None], positions, written[block][None])
            behind.rows[block] = found[0]
        before = behind
    kinds, within = some.spread(torch.arange(len(some.counts)))
    ends: Tensor = before.rows[before.first[states.ends[kinds]] + within[:, None]]
    normed: Tensor = inputs.replay.modules.final_norm(ends)
    return normed


def _attention(
    inputs: Inputs, some: Some, layer: int, of: Layer, before: _Stream, heads: list[int]
) -> Float[Tensor, "row kept d_head"]:
    """z of the heads that a state keeps, of the rows of states that keep any."""
    kinds = of.kinds[of.asking]
    read = torch.isin(before.state, of.contexts)
    number = read.cumsum(dim=0) - 1  # of the rows that are read
    positions = before.positions[read].to(before.rows.device)
    some_heads = heads if len(heads) < of.heads.shape[1] else None
    call = inputs.replay.attention_call(layer, before.rows[read][None], positions, some_heads)

    # Keys and values: a row for each context and prompt. Queries: in each of these a place for everyone that asks it.
    kinds_of_contexts = torch.zeros(len(of.contexts), dtype=torch.long).scatter(0, of.context_of, kinds)
    context, within = some.spread(kinds_of_contexts)
    keys = number[(before.first[of.contexts.clamp(min=0)])[context] + within[:, None]]
    asking, within = some.spread(kinds)
    asked = number[before.first[of.parents[of.asking[asking]]] + within]
    place = _places(of.context_of)
    at = some.first(kinds_of_contexts)[of.context_of[asking]] + within, place[asking]

    query, key, value = (x[0].transpose(0, 1) for x in (call.query, call.key, call.value))
    queries = query.new_zeros(len(keys), int(place.max()) + 1, *query.shape[1:])
    queries[at] = query[asked]
    seen = _seen(of, place, call)[context].to(query.device)
    mask = query.new_zeros(seen.shape).masked_fill(~seen, -torch.inf)[:, None]
    key, value = (x[keys].transpose(1, 2) for x in (key, value))
    return PlainAttention({})(replace(call, query=queries.transpose(1, 2), key=key, value=value, mask=mask))[at]


def _places(groups: Int[Tensor, " thing"]) -> Int[Tensor, " thing"]:
    """Numbers from 0 of the things in one group."""
    order, counts = groups.argsort(stable=True), torch.bincount(groups)
    first = torch.repeat_interleave(counts.cumsum(dim=0) - counts, counts)
    return torch.empty_like(groups).scatter(0, order, torch.arange(len(groups)) - first)


def _seen(of: Layer, place: Int[Tensor, " asking"], call: AttentionCall) -> Bool[Tensor, "context query pos"]:
    """At which tokens each query looks; places without one look at all."""
    tokens = torch.arange(of.contexts.shape[1])
    seen = torch.ones(len(of.contexts), int(place.max()) + 1, len(tokens), dtype=torch.bool)
    last = of.tokens[of.asking][:, None]
    mine = (tokens <= last) & (of.contexts >= 0)[of.context_of]
    seen[of.context_of, place] = mine if call.window is None else mine & (tokens > last - call.window)
    return seen

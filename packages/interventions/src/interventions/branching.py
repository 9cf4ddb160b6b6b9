"""Branches: many edited copies of the end of a prompt in one pass, over one shared prefix.

In a causal model an edit at position p and layer l changes nothing before p and nothing below l. So the prompt is run
once, which leaves the keys and values of every layer and the residual stream before it. Each edit then is a *branch*: a
copy of the rows from p on, which enters at layer l as the clean stream and from there on goes through the layers beside
all other branches of the same p, as further rows of one matrix. A row attends to the shared prefix (keys before p) and
to the earlier rows of its own branch:

    pattern = softmax([q K_prefix^T, q K_branch^T] scale),    z = pattern [V_prefix; V_branch]

so that each branch is exactly the suffix of an ordinary forward pass with that edit. Nothing is approximated.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property

import torch
from jaxtyping import Float, Int
from torch import Tensor

from interventions.attention import AttentionCall, Callback, PlainAttention
from interventions.branch_attention import BranchAttention, BranchEdit
from interventions.hooks import IN_ATTENTION, Modules, attached
from interventions.network import AttentionReached, Replay, final_hidden
from interventions.prompts import Prompts


@dataclass
class Shared:
    """What one ordinary pass over the prompts leaves for branches; `start` is the first position kept of the stream."""

    modules: Modules
    prompts: Prompts
    start: int
    replay: Replay
    keys: list[Float[Tensor, "batch kv_head pos d_head"]] = field(default_factory=list)
    values: list[Float[Tensor, "batch kv_head pos d_head"]] = field(default_factory=list)
    stream: list[Float[Tensor, "batch kept d_model"]] = field(default_factory=list)
    calls: list[AttentionCall] = field(default_factory=list)  # what each attention was asked, queries from `start` on
    final: Tensor | None = None  # the clean stream behind the final norm, [batch, pos, d_model], of a whole pass

    def attention(self, start: int, edits: Mapping[tuple[str, int], BranchEdit]) -> BranchAttention:
        """That of branches which part at `start`."""
        return BranchAttention(self.keys, self.values, self.prompts, start, self.prompts.length - start, edits)

    @cached_property
    def last(self) -> Float[Tensor, "batch d_model"]:
        """The clean stream behind the final norm, at the last token: a branch without an edit, unless it is there."""
        if self.final is not None:
            return self.final[:, -1]
        return run_branches(self, self.prompts.length - 1, [len(self.modules) - 1], {})[:, 0]


def run_shared(
    modules: Modules,
    prompts: Prompts,
    start: int = 0,
    callbacks: Mapping[tuple[str, int], Callback] | None = None,
    *,
    whole: bool = False,
) -> Shared:
    """One ordinary pass over the prompts that keeps what branches from position `start` on need.

    It ends at the attention of the last layer, behind which only the last token counts.

    Args:
        callbacks: see further activations of the same pass.
        whole: run it to its end, for `Shared.final` and for callbacks in the last layer.
    """
    device = next(modules.network.parameters()).device
    shared = Shared(modules, prompts.to(device), start, Replay(modules))
    callbacks = callbacks or {}

    def keep(layer: int) -> Callback:
        also = callbacks.get(("resid_pre", layer))

        def seen(stream: Tensor) -> None:
            # A copy where that is a part, which would hold on to the whole.
            shared.stream.append(stream[:, start:].clone() if start else stream)
            if also:
                also(stream)

        return seen

    plain = PlainAttention(callbacks, causal=prompts.valid is None)

    def attend(call: AttentionCall) -> Tensor:
        # Copies where they are views of queries, keys and values in one tensor.
        shared.keys.append(call.key.contiguous())
        shared.values.append(call.value.contiguous())
        query = call.query[:, :, start:].contiguous()
        shared.calls.append(replace(call, query=query, key=shared.keys[-1], value=shared.values[-1], mask=None))
        if call.layer == len(modules) - 1 and not whole:
            raise AttentionReached(call)
        return plain(call)

    hooks = {**callbacks, **{("resid_pre", layer): keep(layer) for layer in range(len(modules))}}
    with shared.replay.recording():
        try:
            shared.final = final_hidden(modules, prompts, hooks, attend)
        except AttentionReached as reached:
            reached.ended()
    return shared


def run_branches(
    shared: Shared,
    start: int,
    entering: Sequence[int],
    edits: Mapping[tuple[str, int], BranchEdit],
) -> Float[Tensor, "batch branch d_model"]:
    """The stream behind the final norm at the last token of every branch; see `run_branch_rows`.

    Of the last layer it needs the keys and values of all rows, and all else of the last row alone.
    """
    end = len(shared.modules) - 1
    width = shared.prompts.length - start
    if width == 1 or entering[-1] == end or any(layer == end for _, layer in edits):
        rows = run_branch_rows(shared, start, entering, edits)[:, :, -1]
    else:
        before = run_branch_rows(shared, start, entering, edits, layers=end)
        rows = last_rows(shared, start, before)
    last: Tensor = shared.modules.final_norm(rows)
    return last


def run_branch_rows(
    shared: Shared,
    start: int,
    entering: Sequence[int],
    edits: Mapping[tuple[str, int], BranchEdit],
    layers: int | None = None,
) -> Float[Tensor, "batch branch pos d_model"]:
    """The stream behind the last layer, at every position of every branch from `start` on.

    Args:
        start: position at which all these branches part from the prompt.
        entering: the layer at which each branch enters, ascending.
        edits: by (component, layer), over all branches that have entered by that layer, in their order.
        layers: stop before this layer.
    """
    modules, batch = shared.modules, len(shared.prompts)
    width = shared.prompts.length - start
    attend = shared.attention(start, edits)
    rows = shared.stream[0][:, :0]
    for layer in range(entering[0], len(modules) if layers is None else layers):
        new = entering.count(layer)
        own = {site: _flat(edit, width) for site, edit in edits.items() if site[1] == layer}
        outside = {site: edit for site, edit in own.items() if site[0] not in IN_ATTENTION}
        known = new > 0 and ("resid_pre", layer) not in edits  # what entering branches ask of attention
        z = attend(_joined_call(shared, start, layer, rows, new)) if known else None
        rows = torch.cat([rows, shared.stream[layer][:, start - shared.start :].repeat(1, new, 1)], dim=1)
        positions = _positions(shared, start, rows.shape[1] // width)
        if z is not None:
            with attached(modules, outside):
                z = shared.replay.written(layer, z)  # under one name, so that only one is held
                rows = shared.replay.behind_written(layer, rows, positions, z)
        else:
            with attached(modules, outside, attend):
                rows = shared.replay.layer(layer, rows, positions)
    return rows.view(batch, -1, width, rows.shape[-1])


def _flat(edit: BranchEdit, width: int) -> Callback:
    """An edit of branches, of rows [batch, branch * pos, ...]."""
    return lambda x: edit(x.unflatten(1, (-1, width))).flatten(1, 2)  # type: ignore[no-untyped-call]


def _joined_call(shared: Shared, start: int, layer: int, rows: Tensor, new: int) -> AttentionCall:
    """What a layer asks of its attention for rows and, behind them, for `new` branches that enter as the prompt."""
    clean, offset = shared.calls[layer], start - shared.start
    parts = clean.query[:, :, offset:], clean.key[:, :, start:], clean.value[:, :, start:]
    query, key, value = (part.repeat(1, 1, new, 1) for part in parts)
    if rows.shape[1]:
        positions = _positions(shared, start, rows.shape[1] // (shared.prompts.length - start))
        before = shared.replay.attention_call(layer, rows, positions)
        query, key, value = (
            torch.cat(pair, dim=2) for pair in ((before.query, query), (before.key, key), (before.value, value))
        )
    return replace(clean, query=query, key=key, value=value)


def last_rows(
    shared: Shared, start: int, rows: Float[Tensor, "batch branch pos d_model"]
) -> Float[Tensor, "batch branch d_model"]:
    """The last layer's output at the last row of every branch, from its input at all of them."""
    layer, branches = len(shared.modules) - 1, rows.shape[1]
    whole = shared.replay.attention_call(layer, rows.flatten(1, 2), _positions(shared, start, branches))
    attention = shared.attention(start, {})

    def attend(call: AttentionCall) -> Tensor:
        return attention(replace(call, key=whole.key, value=whole.value))

    with attached(shared.modules, {}, attend):
        last = _positions(shared, shared.prompts.length - 1, branches)
        return shared.replay.layer(layer, rows[:, :, -1], last)


def _positions(shared: Shared, start: int, branches: int) -> Int[Tensor, " row"]:
    """Of the rows of branches that part at `start`."""
    return torch.arange(start, shared.prompts.length, device=shared.keys[0].device).repeat(branches)

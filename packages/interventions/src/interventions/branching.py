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

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor
from torch.nn import functional

from interventions.attention import AttentionCall, Callback, PlainAttention, soft_capped
from interventions.hooks import IN_ATTENTION, Modules, attached
from interventions.network import AttentionReached, Replay, final_hidden
from interventions.prompts import Prompts

BranchEdit = Callable[[Tensor], Tensor]
"""From an activation [batch, branch, pos, ...] of all branches to the edited one, of the same shape."""


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
    final: Tensor | None = None  # the clean stream behind the final norm, [batch, pos, d_model], of a whole pass

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
        rows = _last_rows(shared, start, before)
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
    first = start - shared.start
    attend = BranchAttention(shared, start, width, edits)

    def flat(edit: BranchEdit) -> Callback:
        return lambda x: edit(x.unflatten(1, (-1, width))).flatten(1, 2)  # type: ignore[no-untyped-call]

    outside = {site: flat(edit) for site, edit in edits.items() if site[0] not in IN_ATTENTION}
    rows: Tensor | None = None
    with attached(modules, outside, attend):
        for layer in range(entering[0], len(modules) if layers is None else layers):
            n = entering.count(layer)
            if n:
                new = shared.stream[layer][:, first:].repeat(1, n, 1)
                rows = new if rows is None else torch.cat([rows, new], dim=1)
            assert rows is not None
            rows = shared.replay.layer(layer, rows, _positions(shared, start, rows.shape[1] // width))
    assert rows is not None
    return rows.view(batch, -1, width, rows.shape[-1])


def _last_rows(
    shared: Shared, start: int, rows: Float[Tensor, "batch branch pos d_model"]
) -> Float[Tensor, "batch branch d_model"]:
    """The last layer's output at the last row of every branch, from its input at all of them."""
    layer, branches, width = len(shared.modules) - 1, rows.shape[1], rows.shape[2]
    whole = shared.replay.attention_call(layer, rows.flatten(1, 2), _positions(shared, start, branches))
    attention = BranchAttention(shared, start, width, {})

    def attend(call: AttentionCall) -> Tensor:
        return attention(replace(call, key=whole.key, value=whole.value))

    with attached(shared.modules, {}, attend):
        last = _positions(shared, shared.prompts.length - 1, branches)
        return shared.replay.layer(layer, rows[:, :, -1], last)


def _positions(shared: Shared, start: int, branches: int) -> Int[Tensor, " row"]:
    """Of the rows of branches that part at `start`."""
    return torch.arange(start, shared.prompts.length, device=shared.keys[0].device).repeat(branches)


@dataclass(frozen=True)
class BranchAttention:
    """Attention of branches [batch, branch * pos] over the shared prefix and their own rows.

    Keys and values are those of all `width` rows of every branch, queries those of all or of the last ones.
    """

    shared: Shared
    start: int
    width: int
    edits: Mapping[tuple[str, int], BranchEdit]

    def __call__(self, call: AttentionCall) -> Float[Tensor, "batch row head d_head"]:
        query, key, value = (
            self._edited(name, call.layer, x) for name, x in (("q", call.query), ("k", call.key), ("v", call.value))
        )
        # An edited pattern may look beyond the window.
        window = None if ("pattern", call.layer) in self.edits else call.window
        first = 0 if window is None else max(0, self.start + 1 - window)
        prefix_key = self.shared.keys[call.layer][:, :, first : self.start]
        prefix_value = self.shared.values[call.layer][:, :, first : self.start]
        if call.softcap is None and ("pattern", call.layer) not in self.edits:
            fused = self._fused if self.width > 1 else self._fused_rows
            return fused(query, key, value, prefix_key, prefix_value, call)
        batch, n_heads, rows, d_head = query.shape
        groups, width, prefix = key.shape[1], self.width, prefix_key.shape[2]
        branches = key.shape[2] // width
        asked = rows // branches
        queries = query.reshape(batch, groups, -1, d_head) * call.scale
        own_queries = queries.view(batch, groups, -1, branches, asked, d_head)
        own_keys = key.reshape(batch, groups, 1, branches, width, d_head)
        own_values = value.reshape(batch, groups, 1, branches, width, d_head)
        scores = queries.new_empty(*own_queries.shape[:-1], prefix + width)
        if prefix:
            scores[..., :prefix] = (queries @ prefix_key.mT).view(*own_queries.shape[:-1], prefix)
        if width == 1:
            scores[..., prefix:] = (own_queries * own_keys).sum(dim=-1, keepdim=True)
        else:
            scores[..., prefix:] = own_queries @ own_keys.mT
        scores = soft_capped(scores, call.softcap)
        if width > 1 or call.window is not None or self.shared.prompts.valid is not None:
            scores.masked_fill_(~self._seen(prefix, asked, call.window)[:, :, None, None], -torch.inf)
        pattern = scores.softmax(dim=-1, dtype=torch.float32).to(value.dtype)
        if ("pattern", call.layer) in self.edits:
            pattern = self._pattern(pattern, call.layer, first, n_heads)
        own = pattern[..., prefix:]
        z = own * own_values if width == 1 else own @ own_values
        if prefix:
            z = z + (pattern[..., :prefix].reshape(batch, groups, -1, prefix) @ prefix_value).view_as(z)
        return z.reshape(batch, n_heads, rows, d_head).transpose(1, 2)

    def _fused(
        self, query: Tensor, key: Tensor, value: Tensor, prefix_key: Tensor, prefix_value: Tensor, call: AttentionCall
    ) -> Float[Tensor, "batch row head d_head"]:
        """torch's fused attention of each branch over the prefix and itself, which never holds the scores."""
        batch, prefix = len(query), prefix_key.shape[2]
        branches = key.shape[2] // self.width
        asked = query.shape[2] // branches

        def apart(x: Tensor) -> Tensor:
            """[batch, head, row, d_head] -> [batch, branch, head, pos, d_head]"""
            by_branch: Tensor = x.unflatten(2, (branches, -1)).transpose(1, 2)  # type: ignore[no-untyped-call]
            return by_branch

        def behind(start: Tensor, x: Tensor) -> Tensor:
            if not prefix:
                return apart(x).flatten(0, 1)
            return torch.cat([start[:, None].expand(-1, branches, -1, -1, -1), apart(x)], dim=3).flatten(0, 1)

        seen = self._seen(prefix, asked, call.window)
        whole = not prefix and asked > 1 and call.window is None and self.shared.prompts.valid is None
        z = functional.scaled_dot_product_attention(
            apart(query).flatten(0, 1),
            behind(prefix_key, key),
            behind(prefix_value, value),
            attn_mask=None if whole else seen.repeat_interleave(branches, dim=0) if len(seen) > 1 else seen,
            is_causal=whole,
            scale=call.scale,
            enable_gqa=query.shape[1] != key.shape[1],
        )
        rows: Tensor = z.unflatten(0, (batch, branches)).transpose(2, 3).flatten(1, 2)  # type: ignore[no-untyped-call]
        return rows

    def _fused_rows(
        self, query: Tensor, key: Tensor, value: Tensor, prefix_key: Tensor, prefix_value: Tensor, call: AttentionCall
    ) -> Float[Tensor, "batch row head d_head"]:
        """The same for branches of one row, all at once as queries over the one prefix.

        What a row sees of itself is a number, s = q k, and not a key that others could look at. It is made one by a
        further dimension, in which the query is s, the keys of the prefix are 0 and that of one further key is 1:

            softmax([q, s] [[K, 0], [0, 1]]^T) [[V, 0], [0, 1]] = [pattern V, pattern on itself]
        """
        batch, n_heads, rows, d_head = query.shape
        groups, prefix = key.shape[1], prefix_key.shape[2]
        queries = query.reshape(batch, groups, -1, rows, d_head)
        itself = (queries * key[:, :, None]).sum(dim=-1)
        wider = -(-(d_head + 1) // 8) * 8  # a multiple of what fused kernels ask for

        def widened(x: Tensor, last: Tensor | None = None) -> Tensor:
            new = x.new_zeros(*x.shape[:-1], wider)
            new[..., :d_head] = x
            if last is not None:
                new[..., d_head] = last
            return new

        def with_itself(start: Tensor) -> Tensor:
            new = start.new_zeros(batch, groups, prefix + 1, wider)
            new[:, :, :prefix, :d_head] = start
            new[:, :, prefix, d_head] = 1
            return new

        mask = None
        if call.window is not None or self.shared.prompts.valid is not None:
            mask = self._seen(prefix, 1, call.window)
        z = functional.scaled_dot_product_attention(
            widened(queries, itself).flatten(2, 3),
            with_itself(prefix_key),
            with_itself(prefix_value),
            attn_mask=mask,
            scale=call.scale,
        ).view(batch, groups, -1, rows, wider)
        both = z[..., :d_head] + z[..., d_head, None] * value[:, :, None]
        return both.reshape(batch, n_heads, rows, d_head).transpose(1, 2)

    def _seen(self, prefix: int, asked: int, window: int | None) -> Bool[Tensor, "batch_or_1 1 query key"]:
        """Which of the last prefix + width keys of the prompt the last `asked` rows of a branch look at."""
        length, valid = self.shared.prompts.length, self.shared.prompts.valid
        device = self.shared.keys[0].device
        keys = torch.arange(self.start - prefix, length, device=device)
        queries = torch.arange(length - asked, length, device=device)[:, None]
        seen = (keys <= queries) if window is None else (keys <= queries) & (keys > queries - window)
        if valid is None:
            return seen[None, None]
        return (seen & (valid[:, None, self.start - prefix :] | (keys == queries)))[:, None]

    def _edited(self, name: str, layer: int, x: Tensor) -> Tensor:
        edit = self.edits.get((name, layer))
        if edit is None:
            return x
        apart = x.transpose(1, 2).unflatten(1, (-1, self.width))  # type: ignore[no-untyped-call]
        return edit(apart).flatten(1, 2).transpose(1, 2)

    def _pattern(self, pattern: Tensor, layer: int, first: int, n_heads: int) -> Tensor:
        """Edit the pattern, shown as [batch, branch, query, head, key] with all keys of the prompt."""
        batch, groups, per_group, branches, width, seen = pattern.shape
        whole = pattern.new_zeros(batch, branches, width, n_heads, self.shared.prompts.length)
        whole[..., first:] = pattern.permute(0, 3, 4, 1, 2, 5).reshape(batch, branches, width, n_heads, seen)
        edited = self.edits["pattern", layer](whole)[..., first:]
        return edited.view(batch, branches, width, groups, per_group, seen).permute(0, 3, 4, 1, 2, 5)

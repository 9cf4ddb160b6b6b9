"""Attention of branches: rows that look at one shared prefix and at the earlier rows of their own branch.

    pattern = softmax([q K_prefix^T, q K_branch^T] scale),    z = pattern [V_prefix; V_branch]

Three ways compute it: torch's fused kernel a branch, the same with branches of one row as queries over the one prefix,
and written out where a pattern is edited or scores are capped.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float
from torch import Tensor
from torch.nn import functional

from interventions.attention import AttentionCall, soft_capped, softmax_dtype
from interventions.prompts import Prompts

BranchEdit = Callable[[Tensor], Tensor]
"""From an activation [batch, branch, pos, ...] of all branches to the edited one, of the same shape."""


@dataclass(frozen=True)
class BranchAttention:
    """Attention of branches [batch, branch * pos] over the shared prefix and their own rows.

    In a call keys and values are those of all `width` rows of every branch, queries those of all or of the last ones.

    Args:
        keys, values: of every layer, of the prompts' own pass.
        start: position at which the branches part from the prompts.
    """

    keys: Sequence[Float[Tensor, "batch kv_head pos d_head"]]
    values: Sequence[Float[Tensor, "batch kv_head pos d_head"]]
    prompts: Prompts
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
        prefix_key = self.keys[call.layer][:, :, first : self.start]
        prefix_value = self.values[call.layer][:, :, first : self.start]
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
        if width > 1 or call.window is not None or self.prompts.valid is not None:
            scores.masked_fill_(~self._seen(prefix, asked, call.window)[:, :, None, None], -torch.inf)
        pattern = scores.softmax(dim=-1, dtype=softmax_dtype(scores)).to(value.dtype)
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
        whole = not prefix and asked > 1 and call.window is None and self.prompts.valid is None
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
        if call.window is not None or self.prompts.valid is not None:
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
        length, valid = self.prompts.length, self.prompts.valid
        device = self.keys[0].device
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
        whole = pattern.new_zeros(batch, branches, width, n_heads, self.prompts.length)
        whole[..., first:] = pattern.permute(0, 3, 4, 1, 2, 5).reshape(batch, branches, width, n_heads, seen)
        edited = self.edits["pattern", layer](whole)[..., first:]
        return edited.view(batch, branches, width, groups, per_group, seen).permute(0, 3, 4, 1, 2, 5)

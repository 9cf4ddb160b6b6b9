"""One attention function for all architectures, in which queries, keys, values and patterns can be read and edited.

    scores = q k^T scale [soft-capped] + mask,    pattern = softmax(scores),    z = pattern v

transformers lets a model's attention be swapped by name; the name is put into the model's config inside a context and
taken out again after it. q and k are those after rotation and norms: what enters the product. GPT-J does not ask for
the function by name, so there the method that computes attention is replaced on each module inside the same context.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, Protocol, runtime_checkable

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional

Callback = Callable[[Tensor], Tensor | None]
"""Sees an activation [batch, pos, ...]; what it returns, unless None, takes its place."""
NAME = "reprise"


@dataclass(frozen=True)
class AttentionCall:
    """What a layer asks of its attention; `mask` is added to the scores, `window` counts keys with the query's own."""

    layer: int
    query: Float[Tensor, "batch head query d_head"]
    key: Float[Tensor, "batch kv_head key d_head"]
    value: Float[Tensor, "batch kv_head key d_head"]
    mask: Float[Tensor, "batch_or_1 1 query key"] | None
    scale: float
    softcap: float | None
    window: int | None


@runtime_checkable
class Attend(Protocol):
    """From a call to z, [batch, query, head, d_head]."""

    def __call__(self, call: AttentionCall) -> Tensor: ...


_ATTEND = "_reprise_attend"  # the attribute by which an attention module knows its `Attend` inside a context


def _attention(
    module: nn.Module,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attention_mask: Tensor | None,
    scaling: float | None = None,
    dropout: float = 0.0,
    softcap: float | None = None,
    sliding_window: int | None = None,
    **_: Any,
) -> tuple[Tensor, None]:
    scale = query.shape[-1] ** -0.5 if scaling is None else scaling
    layer: Any = module.layer_idx
    call = AttentionCall(int(layer), query, key, value, attention_mask, scale, softcap, sliding_window)
    attend: Attend = getattr(module, _ATTEND)
    return attend(call), None


def _register() -> None:
    from transformers.masking_utils import ALL_MASK_ATTENTION_FUNCTIONS, eager_mask
    from transformers.modeling_utils import ALL_ATTENTION_FUNCTIONS

    if NAME not in ALL_ATTENTION_FUNCTIONS.valid_keys():
        ALL_ATTENTION_FUNCTIONS.register(NAME, _attention)
        ALL_MASK_ATTENTION_FUNCTIONS.register(NAME, eager_mask)


@contextmanager
def attending(network: nn.Module, modules: list[nn.Module], attend: Attend) -> Iterator[None]:
    """Inside, every attention of the network (`modules`, layer by layer) is computed by `attend`.

    Raises:
        RuntimeError: the network is in such a context already, whose edits this one would drop.
    """
    _register()
    config: Any = network.config
    before = config._attn_implementation
    if before == NAME:
        raise RuntimeError(
            "the network's attention is already replaced by another context: expected one context for q, k, v and "
            "patterns; pass all sites to one `captured` or `edited`, and run sweeps outside of them"
        )
    try:
        config._attn_implementation = NAME
        for module in modules:
            module.__dict__[_ATTEND] = attend
            if hasattr(module, "_attn"):
                module.__dict__["_attn"] = _gptj(module)
        yield
    finally:
        for module in modules:
            module.__dict__.pop(_ATTEND, None)
            module.__dict__.pop("_attn", None)
        config._attn_implementation = before


def _gptj(module: Any) -> Callable[..., tuple[Tensor, None]]:
    def attn(query: Tensor, key: Tensor, value: Tensor, attention_mask: Tensor | None = None) -> tuple[Tensor, None]:
        z, _ = _attention(module, query.to(value.dtype), key.to(value.dtype), value, attention_mask)
        return z.transpose(1, 2), None

    return attn


@dataclass(frozen=True)
class PlainAttention:
    """Ordinary attention over a whole sequence, with callbacks by ("q" | "k" | "v" | "pattern", layer).

    q, k and v are shown as [batch, pos, head, d_head] (k and v with one head a group), patterns as
    [batch, query, head, key]. Without a callback for its pattern a layer uses torch's fused attention.

    Args:
        causal: the prompts are known to have no padding, so that without a window every mask is the causal one.
    """

    callbacks: Mapping[tuple[str, int], Callback]
    causal: bool = False

    def __call__(self, call: AttentionCall) -> Float[Tensor, "batch query head d_head"]:
        query, key, value = (
            self._edited(name, call.layer, x.transpose(1, 2)).transpose(1, 2)
            for name, x in (("q", call.query), ("k", call.key), ("v", call.value))
        )
        if ("pattern", call.layer) not in self.callbacks and call.softcap is None:
            causal = self.causal and call.window is None
            z = functional.scaled_dot_product_attention(
                query,
                key,
                value,
                attn_mask=None if causal else call.mask,
                is_causal=causal,
                scale=call.scale,
                enable_gqa=query.shape[1] != key.shape[1],
            )
            return z.transpose(1, 2)
        groups = query.shape[1] // key.shape[1]
        scores = soft_capped(query @ key.repeat_interleave(groups, dim=1).mT * call.scale, call.softcap)
        if call.mask is not None:
            scores = scores + call.mask
        pattern = scores.softmax(dim=-1, dtype=softmax_dtype(scores)).to(value.dtype)
        pattern = self._edited("pattern", call.layer, pattern.transpose(1, 2)).transpose(1, 2)
        return (pattern @ value.repeat_interleave(groups, dim=1)).transpose(1, 2)

    def _edited(self, name: str, layer: int, x: Tensor) -> Tensor:
        callback = self.callbacks.get((name, layer))
        new = callback(x) if callback else None
        return x if new is None else new


def softmax_dtype(scores: Tensor) -> torch.dtype:
    """float32, or float64 where scores have it: its lowest number, which masks hold, is -inf in float32."""
    return torch.promote_types(scores.dtype, torch.float32)


def soft_capped(scores: Tensor, cap: float | None) -> Tensor:
    """cap tanh(scores / cap); the scores themselves without a cap."""
    return scores if cap is None else torch.tanh(scores / cap) * cap

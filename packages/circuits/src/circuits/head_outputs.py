"""The heads' outputs before W_O, read and replaced.

    z_{l,h}[q] = sum_k A_{l,h}[q, k] V_{l,h}[k],    attention output of layer l = sum_h z_{l,h} W_O_{l,h} + b_O

(Elhage et al. 2021, "A Mathematical Framework for Transformer Circuits".) With grouped queries there is one z a query
head all the same. Some bridges give z as [batch, pos, head, d_head], others flat; both work here.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import partial
from typing import Any

from jaxtyping import Float, Int
from torch import Tensor

from circuits.bridge import Bridge, Hook, hook_name, read_layers

Head = tuple[int, int]
"""(layer, head), both from 0."""


def check_heads(model: Bridge, heads: Sequence[Head]) -> None:
    """Refuse heads that the model does not have.

    Raises:
        ValueError: naming the first such head.
    """
    refuse_missing(heads, model.cfg.n_layers, model.cfg.n_heads)


def refuse_missing(heads: Sequence[Head], n_layers: int, n_heads: int) -> None:
    """Raise ValueError naming the first head that a model of this shape does not have."""
    for layer, head in heads:
        if not (0 <= layer < n_layers and 0 <= head < n_heads):
            raise ValueError(
                f"head ({layer}, {head}) does not exist: expected (layer, head) with layer 0 to {n_layers - 1} and "
                f"head 0 to {n_heads - 1}, both counted from 0"
            )


def layers_of(heads: Sequence[Head]) -> list[int]:
    """The layers that `heads` are in, in order."""
    return sorted({layer for layer, _ in heads})


def head_outputs(
    model: Bridge, tokens: Int[Tensor, "batch pos"], layers: Sequence[int]
) -> dict[int, Float[Tensor, "batch pos head d_head"]]:
    """z of each of `layers`, in one forward pass; in the model's dtype, on its device."""
    return read_layers(model, tokens, "hook_z", layers, lambda z: per_head(z, model.cfg.n_heads).clone())


@contextmanager
def replacing(model: Bridge, heads: Sequence[Head], replacements: Mapping[int, Tensor]) -> Iterator[None]:
    """Put `replacements[layer]` in the place of the z of `heads` in every forward pass inside this context.

    A replacement is [head, d_head], used at every position of every sequence, or [batch, pos, head, d_head].

    Raises:
        ValueError: a pass has another batch or pos than its replacement (raised by the pass; the hooks are removed).
    """

    def replace(z: Float[Tensor, "batch pos ..."], hook: Any, *, layer: int) -> Float[Tensor, "batch pos ..."]:
        new = replacements[layer].to(z)
        if new.ndim == 4 and new.shape[:2] != z.shape[:2]:
            raise ValueError(
                f"the pass has {z.shape[0]} sequences of {z.shape[1]} tokens: expected {new.shape[0]} of "
                f"{new.shape[1]}, as the donors have; pass the sequences that the donors were drawn for"
            )
        chosen = [head for at, head in heads if at == layer]
        edited = per_head(z, model.cfg.n_heads).clone()
        edited[:, :, chosen] = new[..., chosen, :]
        return edited.reshape(z.shape)

    hooks: list[tuple[str, Hook]] = [
        (hook_name(model, layer, "hook_z"), partial(replace, layer=layer)) for layer in layers_of(heads)
    ]
    with model.hooks(fwd_hooks=hooks):
        yield


def per_head(z: Float[Tensor, "batch pos ..."], n_heads: int) -> Float[Tensor, "batch pos head d_head"]:
    """z with its heads apart: bridges without a per-head view at the hook give [batch, pos, head * d_head]."""
    return z if z.ndim == 4 else z.reshape(*z.shape[:2], n_heads, -1)

"""What this package needs of a model: the part of a TransformerLens `TransformerBridge` that it uses.

    z_{l,h} at `blocks.{l}.attn.hook_z`,    A_{l,h} at `blocks.{l}.attn.hook_pattern`

(names of TransformerLens; A is softmax(QK^T / sqrt(d_head)) and z = A V, Elhage et al. 2021, "Concepts"). The protocol
stands in for the class so that importing this package does not import transformer_lens.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager
from functools import partial
from typing import Any, Protocol, runtime_checkable

import torch
from jaxtyping import Int
from torch import Tensor

Hook = Callable[..., Tensor | None]
"""Called as hook(activation, hook=hook_point); what it returns, unless None, replaces the activation."""


class _LastLayerRead(Exception):  # noqa: N818 - no error: it ends a forward pass whose remainder nobody asked for
    pass


@runtime_checkable
class Bridge(Protocol):
    """A causal `transformer_lens.model_bridge.TransformerBridge`, native or around a Hugging Face model."""

    cfg: Any  # n_layers, n_heads, d_head, d_model, d_vocab, n_ctx, eps, positional_embedding_type and device are read
    training: bool

    def __call__(self, input: Tensor, /) -> Any: ...

    def hooks(self, fwd_hooks: list[tuple[str, Hook]]) -> AbstractContextManager[Any]: ...

    def get_hook_point(self, hook_name: str, /) -> Any: ...

    def train(self, mode: bool = True) -> Any: ...


def hook_name(model: Bridge, layer: int, activation: str) -> str:
    """Name of a layer's attention hook, e.g. `blocks.0.attn.hook_z`.

    Raises:
        ValueError: the model has no such hook point.
    """
    name = f"blocks.{layer}.attn.{activation}"
    if model.get_hook_point(name) is None:
        raise ValueError(
            f"{type(model).__name__} has no hook point {name!r}: expected a causal TransformerBridge with attention in "
            "every layer"
        )
    return name


@contextmanager
def inference(model: Bridge) -> Iterator[None]:
    """No gradients and no dropout (which would change patterns at random); the training flag is restored."""
    was_training = model.training
    model.train(False)
    try:
        with torch.no_grad():
            yield
    finally:
        model.train(was_training)


def record(
    model: Bridge, tokens: Int[Tensor, "batch pos"], names: Sequence[str], *, logits: bool = False
) -> dict[str, Tensor]:
    """The activations at hook points, by name, in one forward pass without gradients or dropout.

    The pass ends when all have been read, unless `logits` are wanted too; they come under the name "logits".

    Raises:
        ValueError: there is no such hook point, or the pass never calls it.
    """
    wanted, results = set(names), dict[str, Tensor]()

    def keep(value: Tensor, hook: Any, *, name: str) -> None:
        results[name] = value.detach()
        if not logits and results.keys() == wanted:
            raise _LastLayerRead

    for name in sorted(wanted):
        if model.get_hook_point(name) is None:
            raise ValueError(f"{type(model).__name__} has no hook point {name!r}: expected a causal TransformerBridge")
    hooks: list[tuple[str, Hook]] = [(name, partial(keep, name=name)) for name in wanted]
    with inference(model), model.hooks(fwd_hooks=hooks):
        try:
            output: Tensor = model(tokens.to(model.cfg.device))
        except _LastLayerRead:
            return results
    if missing := sorted(wanted - results.keys()):
        raise ValueError(f"{missing[0]} was never called: expected a causal TransformerBridge that uses it")
    return {**results, "logits": output} if logits else results


def read_layers(
    model: Bridge,
    tokens: Int[Tensor, "batch pos"],
    activation: str,
    layers: Sequence[int],
    read: Callable[[Tensor], Tensor],
) -> dict[int, Tensor]:
    """`read` of an attention activation of each of `layers`, in one forward pass that ends at the last of them.

    Raises:
        ValueError: a layer has no such hook point, or does not call it.
    """
    wanted, results = set(layers), dict[int, Tensor]()

    def keep(value: Tensor, hook: Any, *, layer: int) -> None:
        results[layer] = read(value)
        if results.keys() == wanted:
            raise _LastLayerRead

    hooks: list[tuple[str, Hook]] = [
        (hook_name(model, layer, activation), partial(keep, layer=layer)) for layer in wanted
    ]
    if not wanted:
        return results
    with inference(model), model.hooks(fwd_hooks=hooks):
        try:
            model(tokens.to(model.cfg.device))
        except _LastLayerRead:
            return results
    raise ValueError(
        f"layers {sorted(wanted - results.keys())} never called {activation}: expected a causal TransformerBridge with "
        f"attention in every layer"
    )


def chunks(n: int, batch_size: int) -> Iterator[slice]:
    """Slices of at most `batch_size` rows that cover 0..n in order.

    Raises:
        ValueError: `batch_size` is below 1.
    """
    if batch_size < 1:
        raise ValueError(f"batch_size is {batch_size}: expected at least 1 sequence a forward pass")
    return (slice(start, min(start + batch_size, n)) for start in range(0, n, batch_size))

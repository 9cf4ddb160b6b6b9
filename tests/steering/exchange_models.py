"""Small random networks, and plain torch hooks on them that share no code with the package."""

from __future__ import annotations

import copy
import functools
import math
from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import Tensor

from interventions.exactness import random_network as exactness_network
from steering.vectors import Component, ModelIdentity, SteeringVector

N_LAYERS, D_MODEL, D_VOCAB = 3, 32, 37
THREE = ("gpt2", "llama", "gpt_neox")
Write = Callable[[Tensor], Tensor]
"""What becomes of the stream [pos, d_model] of one text."""
Writes = Mapping[tuple[str, int], Write]
"""By (component, layer)."""


@functools.cache
def random_network(name: str, *, dtype: torch.dtype = torch.float32) -> Any:
    """A random network of 3 layers; one for all tests, which must leave it as it was."""
    return copy.deepcopy(exactness_network(name, seed=1)).to(dtype)


def identity(name: str) -> ModelIdentity:
    return ModelIdentity(f"a random {name}", name, N_LAYERS, D_MODEL)


def vector(
    name: str,
    layers: tuple[int, ...],
    component: Component = "resid_post",
    *,
    n_positions: int | None = None,
    seed: int = 0,
) -> SteeringVector:
    """Random directions, of the size of the stream."""
    generator = torch.Generator().manual_seed(seed)
    shape = (D_MODEL,) if n_positions is None else (n_positions, D_MODEL)
    directions = {layer: 3 * torch.randn(shape, generator=generator) for layer in layers}
    return SteeringVector(directions, "love - hate", identity(name), component)


def blocks(network: Any, name: str) -> list[Any]:
    if name == "gpt2":
        return list(network.transformer.h)
    return list(network.gpt_neox.layers if name == "gpt_neox" else network.model.layers)


@torch.no_grad()
def plain_logits(network: Any, name: str, tokens: list[int], writes: Writes) -> Tensor:
    """Logits [pos, d_vocab] of one text, without padding and cache, with writes by (component, layer)."""
    handles = []

    def before(write: Write, args: tuple[Any, ...], kwargs: dict[str, Any]) -> tuple[Any, Any]:
        x = args[0] if args else kwargs["hidden_states"]
        new = write(x[0].clone())[None]
        return ((new, *args[1:]), kwargs) if args else (args, {**kwargs, "hidden_states": new})

    def behind(write: Write, output: Any) -> Any:
        new = write((output[0] if isinstance(output, tuple) else output)[0].clone())[None]
        return (new, *output[1:]) if isinstance(output, tuple) else new

    for (component, layer), write in writes.items():
        block = blocks(network, name)[layer]
        if component == "resid_pre":
            hook = functools.partial(lambda w, m, args, kwargs: before(w, args, kwargs), write)
            handles.append(block.register_forward_pre_hook(hook, with_kwargs=True))
        else:
            handles.append(block.register_forward_hook(functools.partial(lambda w, m, a, o: behind(w, o), write)))
    try:
        logits: Tensor = network(torch.tensor([tokens]), use_cache=False).logits[0]
    finally:
        for handle in handles:
            handle.remove()
    return logits.float()


def plus(direction: Tensor, coefficient: float = 1.0) -> Write:
    return lambda x: x + coefficient * direction


def operated(x: Tensor, v: Tensor, c: float, operation: str) -> Tensor:
    """One position's stream [d_model], by the definition of the operation, in Python's own numbers."""
    h, w = [float(a) for a in x], [float(a) for a in v]
    size = math.sqrt(sum(a * a for a in w))
    along = sum(a * b for a, b in zip(h, w, strict=True)) / size
    unit = [a / size for a in w]
    if operation in ("add", "norm_preserving"):
        new = [a + c * b for a, b in zip(h, w, strict=True)]
        if operation == "norm_preserving":
            scale = math.sqrt(sum(a * a for a in h)) / math.sqrt(sum(a * a for a in new))
            new = [scale * a for a in new]
    else:
        goal = c * size if operation == "clamp" else (1 - c) * along
        new = [a + (goal - along) * b for a, b in zip(h, unit, strict=True)]
    return torch.tensor(new, dtype=x.dtype)

"""Running a network on prompts, whole or layer by layer, with final norm and unembedding apart.

Running it by its layers alone is what branches need: a layer is called again with the arguments that it was given in an
ordinary pass, and other rows.
"""

from __future__ import annotations

import inspect
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from interventions.attention import Attend, Callback
from interventions.hooks import Modules, attached
from interventions.prompts import Prompts

Arguments = Mapping[str, Any]


@contextmanager
def inference(network: nn.Module) -> Iterator[None]:
    """No dropout, no gradients; the training flags are restored."""
    training = [module for module in network.modules() if module.training]
    network.eval()
    try:
        with torch.no_grad():
            yield
    finally:
        for module in training:
            module.training = True


def final_hidden(
    modules: Modules,
    prompts: Prompts,
    callbacks: Mapping[tuple[str, int], Callback] | None = None,
    attend: Attend | None = None,
) -> Float[Tensor, "batch pos d_model"]:
    """The stream behind the final norm, in one ordinary pass."""
    network: Any = modules.network
    prompts = prompts.to(next(network.parameters()).device)
    options: dict[str, Any] = {"use_cache": False}
    if prompts.valid is not None:
        options["attention_mask"] = prompts.valid.long()
    if "position_ids" in inspect.signature(network.base_model.forward).parameters:
        options["position_ids"] = prompts.position_ids
    with attached(modules, callbacks or {}, attend):
        output: Tensor = network.base_model(prompts.tokens, **options)[0]
    return output


def unembed(modules: Modules, hidden: Float[Tensor, "*rows d_model"]) -> Float[Tensor, "*rows d_vocab"]:
    """Logits of hidden states that the final norm has seen; float32."""
    network: Any = modules.network
    return _capped(modules, network.get_output_embeddings()(hidden).float())


def unembed_columns(
    modules: Modules, hidden: Float[Tensor, "batch row d_model"], columns: Int[Tensor, "batch column"]
) -> Float[Tensor, "batch row column"]:
    """Logits of some tokens alone, without the others."""
    network: Any = modules.network
    head = network.get_output_embeddings()
    logits = torch.einsum("brd,bcd->brc", hidden, head.weight[columns]).float()
    if head.bias is not None:
        logits = logits + head.bias[columns].float()[:, None]
    return _capped(modules, logits)


def _capped(modules: Modules, logits: Tensor) -> Tensor:
    config: Any = modules.network.config
    cap = getattr(config, "final_logit_softcapping", None)
    return logits if cap is None else torch.tanh(logits / cap) * cap


@dataclass
class Replay:
    """Calls layers with the arguments of an ordinary pass, on rows at other positions."""

    modules: Modules
    arguments: list[Arguments] = field(default_factory=list)

    @contextmanager
    def recording(self) -> Iterator[None]:
        """Inside, ordinary passes leave the arguments of every layer here."""
        self.arguments.clear()
        handles = [layer.register_forward_pre_hook(self._record, with_kwargs=True) for layer in self.modules.layers]
        try:
            yield
        finally:
            for handle in handles:
                handle.remove()

    def _record(self, layer: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        bound = dict(inspect.signature(type(layer).forward).bind(layer, *args, **kwargs).arguments)
        extra = bound.pop("kwargs", {})
        self.arguments.append({k: v for k, v in {**bound, **extra}.items() if k not in ("self", "hidden_states")})

    def layer(
        self, layer: int, rows: Float[Tensor, "batch row d_model"], positions: Int[Tensor, " row"]
    ) -> Float[Tensor, "batch row d_model"]:
        """The layer's output for rows that stand at `positions` (counted from the start of the padded prompts)."""
        arguments = dict(self.arguments[layer])
        for name, value in arguments.items():
            if name in ("attention_mask", "past_key_values", "layer_past"):
                arguments[name] = None
            elif name == "use_cache":
                arguments[name] = False
            elif name == "position_ids" and value is not None:
                arguments[name] = value[:, positions]
            elif name == "position_embeddings" and value is not None:
                arguments[name] = tuple(part[:, positions] for part in value)
        output = self.modules.layers[layer](rows, **arguments)
        result: Tensor = output[0] if isinstance(output, tuple) else output
        return result


def by_layer(callbacks: Mapping[tuple[str, int], Callback]) -> Sequence[int]:
    """Layers that callbacks are for, in order."""
    return sorted({layer for _, layer in callbacks})

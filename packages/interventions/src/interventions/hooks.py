"""The one place where hooks are put on a network, and taken off again whatever happens.

Callbacks are given by (component, layer). All components of all architectures come and go in one shape:

    resid_pre, resid_mid, resid_post, attn_out, mlp_out    [batch, pos, d_model]
    z, q                                                   [batch, pos, head, d_head]
    k, v                                                   [batch, pos, kv_head, d_head]
    pattern                                                [batch, query, head, key]

attn_out and mlp_out are what is added to the residual stream: behind the norm where an architecture has one there.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from typing import Any

from torch import Tensor, nn
from torch.utils.hooks import RemovableHandle

from interventions.architectures import Architecture, architecture_of
from interventions.attention import Attend, Callback, PlainAttention, attending

RESIDUAL = ("resid_pre", "resid_mid", "resid_post")
STREAM = (*RESIDUAL, "attn_out", "mlp_out")
HEADS = ("z", "q", "k", "v", "pattern")
COMPONENTS = (*STREAM, *HEADS)
IN_ATTENTION = ("q", "k", "v", "pattern")


class Modules:
    """The modules of a network that the engine touches, found once by its architecture's row."""

    def __init__(self, network: nn.Module) -> None:
        self.network = network
        self.architecture: Architecture = architecture_of(network)
        self.layers: list[nn.Module] = list(network.get_submodule(self.architecture.layers).children())
        self.final_norm = network.get_submodule(self.architecture.final_norm)
        self.parallel = self.architecture.parallel(network.config)
        config: Any = network.config
        self.n_heads = int(config.num_attention_heads)
        self.n_kv_heads = int(getattr(config, "num_key_value_heads", None) or self.n_heads)
        self.widest = max(parameter.shape[0] for parameter in self.layers[0].parameters()) if self.layers else 0

    def __len__(self) -> int:
        return len(self.layers)

    def attention(self, layer: int) -> nn.Module:
        return self.layers[layer].get_submodule(self.architecture.attention)

    def output_projection(self, layer: int) -> nn.Module:
        return self.layers[layer].get_submodule(self.architecture.output_projection)

    def check(self, component: str, layer: int) -> None:
        """Refuse a site that the network does not have.

        Raises:
            ValueError: naming it.
        """
        if component not in COMPONENTS:
            raise ValueError(f"component {component!r}: expected one of {', '.join(COMPONENTS)}")
        if not 0 <= layer < len(self):
            raise ValueError(f"layer {layer} does not exist: expected 0 to {len(self) - 1}")
        kind = getattr(self.network.config, "model_type", "")
        if component == "resid_mid" and self.parallel:
            raise ValueError(
                f"{kind} has no resid_mid: attention and MLP read the same stream; use resid_pre or attn_out"
            )
        if component in ("mlp_out", "resid_mid") and self.architecture.mlp_out is None:
            raise ValueError(f"{kind} has no {component}: it has no MLPs; use resid_post or attn_out")


@contextmanager
def attached(
    modules: Modules, callbacks: Mapping[tuple[str, int], Callback], attend: Attend | None = None
) -> Iterator[None]:
    """Inside, every forward pass calls the callbacks; nothing of them is left afterwards.

    Args:
        attend: computes attention instead of `PlainAttention` with the callbacks.

    Raises:
        ValueError: a site does not exist.
    """
    for component, layer in callbacks:
        modules.check(component, layer)
    with ExitStack() as stack:
        inside = {site: callback for site, callback in callbacks.items() if site[0] in IN_ATTENTION}
        if attend is None and inside:
            attend = PlainAttention(inside)
        if attend is not None:
            attentions = [modules.attention(layer) for layer in range(len(modules))]
            stack.enter_context(attending(modules.network, attentions, attend))
        for layer in sorted({layer for component, layer in callbacks if component not in IN_ATTENTION}):
            of_layer = {component: callback for (component, at), callback in callbacks.items() if at == layer}
            for handle in _Layer(modules, layer, of_layer).handles():
                stack.callback(handle.remove)
        yield


class _Layer:
    """The hooks of one layer; remembers the layer's input, which resid_mid and the shape of some MLPs need."""

    def __init__(self, modules: Modules, layer: int, callbacks: Mapping[str, Callback]) -> None:
        self.modules, self.layer, self.callbacks = modules, layer, callbacks
        self.input: Tensor | None = None

    def handles(self) -> Iterator[RemovableHandle]:
        layer, row = self.modules.layers[self.layer], self.modules.architecture
        yield layer.register_forward_pre_hook(self._before, with_kwargs=True)
        if {"attn_out", "resid_mid"} & self.callbacks.keys():
            yield layer.get_submodule(row.attention_out).register_forward_hook(self._attention_out)
        if "z" in self.callbacks:
            yield self.modules.output_projection(self.layer).register_forward_pre_hook(self._z)
        if "mlp_out" in self.callbacks and row.mlp_out is not None:
            yield layer.get_submodule(row.mlp_out).register_forward_hook(self._mlp_out)
        if "resid_post" in self.callbacks:
            yield layer.register_forward_hook(self._after)

    def _call(self, component: str, value: Tensor) -> Tensor:
        callback = self.callbacks.get(component)
        new = callback(value) if callback else None
        return value if new is None else new

    def _before(self, module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> tuple[Any, Any]:
        value: Tensor = args[0] if args else kwargs["hidden_states"]
        self.input = self._call("resid_pre", value)
        return ((self.input, *args[1:]), kwargs) if args else (args, {**kwargs, "hidden_states": self.input})

    def _attention_out(self, module: nn.Module, args: Any, output: Any) -> Any:
        value = self._call("attn_out", _first(output))
        if "resid_mid" in self.callbacks:
            assert self.input is not None
            middle = self.input + value
            new = self._call("resid_mid", middle)
            value = value if new is middle else new - self.input
        return _with_first(output, value)

    def _z(self, module: nn.Module, args: tuple[Any, ...]) -> tuple[Any, ...]:
        flat: Tensor = args[0]
        z = flat.unflatten(-1, (self.modules.n_heads, -1))  # type: ignore[no-untyped-call]
        return (self._call("z", z).flatten(-2), *args[1:])

    def _mlp_out(self, module: nn.Module, args: Any, output: Any) -> Any:
        assert self.input is not None
        value = _first(output)
        return _with_first(output, self._call("mlp_out", value.view_as(self.input)).view_as(value))

    def _after(self, module: nn.Module, args: Any, output: Any) -> Any:
        return _with_first(output, self._call("resid_post", _first(output)))


def _first(output: Any) -> Tensor:
    value: Tensor = output[0] if isinstance(output, tuple) else output
    return value


def _with_first(output: Any, value: Tensor) -> Any:
    return (value, *output[1:]) if isinstance(output, tuple) else value

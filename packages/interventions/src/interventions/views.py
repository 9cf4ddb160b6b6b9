"""Views of one network: a TransformerLens bridge and an nnsight model over the same weights.

Both libraries replace modules or wrap their methods in place. Each is therefore given a structural copy of the network,
new modules whose parameters and buffers are the network's own tensors: the network keeps its modules, no weight exists
twice, and a weight changed in place is changed in all views.

TransformerLens splits a fused query-key-value weight. Where q, k and v are contiguous parts (GPT-2, Phi-3) the pieces
are views of the network's memory. In GPT-NeoX they alternate head by head, which no view as a matrix can express: there
the bridge has copies of these weights, three quarters of its attention's. `BridgeView.refresh` and `publish` keep the
two equal: a change of the network shows when `Model.bridge` is next read, one by `set_weights` at once, but one made to
the bridge's q, k or v by hand stays there.

Moving a network (`network.to`) gives it new tensors and parts it from views made before. TransformerLens's
`enable_compatibility_mode`, which folds and centres, gives the bridge weights of its own and leaves the network alone.
"""

from __future__ import annotations

import copy
from collections.abc import Iterator
from dataclasses import dataclass
from importlib import import_module
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from interventions.errors import ModelError
from interventions.folders import ATTENTION_ONLY

if TYPE_CHECKING:
    from transformer_lens.model_bridge import TransformerBridge


def structural_copy(network: nn.Module) -> Any:
    """New modules, and a new config, around the same parameters and buffers."""
    shared = {id(tensor): tensor for tensor in (*network.parameters(), *network.buffers())}
    return copy.deepcopy(network, dict[int, Any](shared))


@dataclass(frozen=True)
class Fused:
    """An attention whose fused weights (`source`, a module of the network) the bridge holds as copies q, k and v."""

    bridge: Any
    source: nn.Module

    @property
    def version(self) -> int:
        """Grows with every change in place of the network's weights."""
        return sum(parameter._version for parameter in self.source.parameters())

    def split(self) -> None:
        """Copy the network's weights into the bridge."""
        for part, fresh in self._pairs(self.source):
            part.copy_(fresh)

    def join(self) -> None:
        """Copy the bridge's weights into the network."""
        sizes = [parameter.numel() for parameter in self.source.parameters()]
        # Split numbers in place of weights: they tell where in the fused weights each element came from.
        places = torch.arange(sum(sizes), dtype=torch.float64, device=next(self.source.parameters()).device)
        numbered: dict[int, Any] = {
            id(parameter): nn.Parameter(numbers.view_as(parameter), requires_grad=False)
            for parameter, numbers in zip(self.source.parameters(), torch.split(places, sizes), strict=True)
        }
        flat = torch.cat([parameter.flatten() for parameter in self.source.parameters()])
        for part, numbers in self._pairs(copy.deepcopy(self.source, numbered)):
            flat[numbers.long()] = part
        for parameter, values in zip(self.source.parameters(), torch.split(flat, sizes), strict=True):
            parameter.copy_(values.view_as(parameter))

    def _pairs(self, attention: nn.Module) -> Iterator[tuple[Tensor, Tensor]]:
        parts = (self.bridge.q, self.bridge.k, self.bridge.v)
        for part, fresh in zip(parts, self.bridge.split_qkv_matrix(attention), strict=True):
            for name, value in fresh.named_parameters():
                yield part.original_component.get_parameter(name), value


@dataclass
class BridgeView:
    """A bridge over a network's tensors, and those of its weights that had to be copied."""

    bridge: TransformerBridge
    fused: list[Fused]
    versions: list[int]

    @torch.no_grad()
    def refresh(self) -> None:
        """Bring changes of the network into the copies."""
        versions = [fused.version for fused in self.fused]
        for fused, before, now in zip(self.fused, self.versions, versions, strict=True):
            if now != before:
                fused.split()
        self.versions = versions

    @torch.no_grad()
    def publish(self) -> None:
        """Bring changes of the copies into the network."""
        for fused in self.fused:
            fused.join()
        self.versions = [fused.version for fused in self.fused]


def bridge_view(network: nn.Module, name: str) -> BridgeView:
    """A TransformerLens bridge over the network's tensors; its attention is eager, as its pattern hooks need.

    Raises:
        ModelError: TransformerLens has none for this architecture.
    """
    from transformer_lens.model_bridge.sources import build_bridge_from_module

    config: Any = network.config
    if config.model_type == ATTENTION_ONLY:
        return BridgeView(_native_bridge(network), [], [])
    clone = structural_copy(network)
    clone.config._attn_implementation = "eager"
    paths = {id(module): path for path, module in clone.named_modules()}
    kind = type(network).__name__
    try:
        bridge = build_bridge_from_module(clone, kind, hf_config=clone.config).eval()
    except (ValueError, KeyError, NotImplementedError) as error:
        raise ModelError(f"{name}: TransformerLens has no bridge for {kind} ({error})") from error
    ours = {tensor.untyped_storage().data_ptr() for tensor in network.parameters()}
    fused = [
        Fused(module, network.get_submodule(paths[id(module.original_component)]))
        for module in bridge.modules()
        if hasattr(module, "split_qkv_matrix")
        and any(part.untyped_storage().data_ptr() not in ours for part in module.q.parameters())
    ]
    return BridgeView(bridge, fused, [each.version for each in fused])


def _native_bridge(network: nn.Module) -> TransformerBridge:
    from transformer_lens.config import TransformerBridgeConfig
    from transformer_lens.model_bridge import TransformerBridge

    from interventions.attention_only import to_bridge

    config: Any = network.config
    weight = next(network.parameters())
    with torch.random.fork_rng(devices=[]):
        bridge = TransformerBridge.boot_native(
            TransformerBridgeConfig(
                n_layers=config.num_hidden_layers,
                d_model=config.hidden_size,
                n_heads=config.num_attention_heads,
                d_head=config.head_dim,
                d_vocab=config.vocab_size,
                n_ctx=config.max_position_embeddings,
                attn_only=True,
                act_fn="relu",
                normalization_type="LN",
                init_weights=False,
                device=str(weight.device),
                dtype=weight.dtype,
            )
        )
    if next(bridge.parameters()).dtype != weight.dtype:
        bridge.to(weight.dtype)
    tensors = to_bridge(dict(network.state_dict()))
    for name, parameter in bridge.state_dict(keep_vars=True).items():
        parameter.data = tensors[name]
    return bridge.eval()


def nnsight_view(network: nn.Module, tokenizer: Any, name: str) -> Any:
    """An nnsight model over the network's tensors; without a transformers tokenizer it takes one invoke a trace.

    Raises:
        ModelError: nnsight is not installed.
    """
    try:
        nnsight = import_module("nnsight")
    except ModuleNotFoundError as error:
        raise ModelError(
            f"{name}: nnsight is not installed; pip install 'reprise-interventions[nnsight]' for this view"
        ) from error
    clone = structural_copy(network)
    if tokenizer is None:
        return nnsight.NNsight(clone)
    return nnsight.TransformersModel(clone, tokenizer=tokenizer, task="text-generation")

"""Running a network on prompts, whole or layer by layer, with final norm and unembedding apart.

Running it by its layers alone is what branches need: a layer is called again with the arguments that it was given in an
ordinary pass, and other rows.
"""

from __future__ import annotations

import inspect
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field, replace
from itertools import repeat
from typing import Any

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn
from torch.nn import functional

from interventions.activations import fused_activations
from interventions.attention import Attend, AttentionCall, Callback
from interventions.hooks import Modules, attached
from interventions.prompts import Prompts

Arguments = Mapping[str, Any]
CPU_BLOCK = 1024  # columns of the vocabulary at a time: their logits, of some hundred rows, stay in a core's cache


@contextmanager
def inference(network: nn.Module) -> Iterator[None]:
    """No dropout, no gradients, fused activations; the network is as it was afterwards."""
    training = [module for module in network.modules() if module.training]
    network.eval()
    try:
        with torch.no_grad(), fused_activations(network):
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


def first_stream(modules: Modules, prompts: Prompts) -> Float[Tensor, "batch pos d_model"]:
    """The stream before the first layer; the network is run up to there and no further."""
    seen: list[Tensor] = []
    try:
        final_hidden(modules, prompts, {("resid_pre", 0): seen.append}, stop_at_attention)
    except AttentionReached as reached:
        reached.ended()
    return seen[0]


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


def log_normaliser(
    modules: Modules, hidden: Float[Tensor, "batch row d_model"], *, budget: int
) -> Float[Tensor, "batch row"]:
    """log sum exp of all logits of every row, from logits of a block of the vocabulary at a time.

    Args:
        budget: bytes that the logits of a block may take, about.
    """
    network: Any = modules.network
    head = network.get_output_embeddings()
    at_once = max(1, budget // (12 * hidden[..., 0].numel()))  # logits, in float32, and their exponentials
    at_once = min(at_once, CPU_BLOCK) if hidden.device.type == "cpu" else at_once
    bias = head.bias.split(at_once) if head.bias is not None else repeat(None)
    parts = [
        _capped(modules, functional.linear(hidden, weight, of_block).float()).logsumexp(dim=-1)
        for weight, of_block in zip(head.weight.split(at_once), bias, strict=False)
    ]
    return torch.stack(parts, dim=-1).logsumexp(dim=-1)


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
        return self._called(layer, rows, arguments)

    def again(self, layer: int, stream: Float[Tensor, "batch pos d_model"]) -> Float[Tensor, "batch pos d_model"]:
        """The layer's output for another stream of the prompts of the ordinary pass, at all their positions."""
        return self._called(layer, stream, self.arguments[layer])

    def _called(self, layer: int, rows: Tensor, arguments: Arguments) -> Tensor:
        output = self.modules.layers[layer](rows, **arguments)
        result: Tensor = output[0] if isinstance(output, tuple) else output
        return result

    def written(self, layer: int, z: Float[Tensor, "batch *rows head d_head"]) -> Float[Tensor, "batch *rows d_model"]:
        """What the layer's attention makes of z; a norm that some architectures have behind it comes after this."""
        found: Tensor = self.modules.output_projection(layer)(z.flatten(-2))
        return found

    def behind_written(
        self,
        layer: int,
        rows: Float[Tensor, "batch row d_model"],
        positions: Int[Tensor, " row"],
        written: Float[Tensor, "batch row d_model"],
    ) -> Float[Tensor, "batch row d_model"]:
        """`layer` where its attention is known to write `written`: without queries, keys, values and attention."""
        attention = self.modules.attention(layer)
        before = attention.__dict__.get("forward")
        attention.__dict__["forward"] = lambda *_, **__: (written, None)
        try:
            return self.layer(layer, rows, positions)
        finally:
            attention.__dict__.pop("forward")
            if before is not None:
                attention.__dict__["forward"] = before

    def attention_call(
        self,
        layer: int,
        rows: Float[Tensor, "batch row d_model"],
        positions: Int[Tensor, " row"],
        heads: Sequence[int] | None = None,
    ) -> AttentionCall:
        """What the layer asks of its attention for such rows: the layer is run up to there and no further.

        Args:
            heads: those alone, with keys and values each of its own; all by default.
        """
        attention: Any = self.modules.attention(layer)
        alone = heads is not None and hasattr(attention, "c_attn")
        with ExitStack() as stack:
            if alone:
                stack.enter_context(_heads_alone(attention, list(heads or ())))
            try:
                with attached(self.modules, {}, stop_at_attention):
                    self.layer(layer, rows, positions)
            except AttentionReached as reached:
                call = reached.ended()
            else:
                raise AssertionError("a layer that called no attention")
        if heads is None or alone:
            return call
        query, key, value = call.query[:, list(heads)], call.key, call.value
        of_groups = [head * key.shape[1] // call.query.shape[1] for head in heads]
        return replace(call, query=query, key=key[:, of_groups], value=value[:, of_groups])


@contextmanager
def _heads_alone(attention: Any, heads: list[int]) -> Iterator[None]:
    """Inside, GPT-2's attention, which has one linear layer for queries, keys and values, computes some heads alone."""
    linear, width = attention.c_attn, attention.split_size
    columns = torch.arange(3 * width, device=linear.weight.device).view(3, -1, attention.head_dim)[:, heads].flatten()
    weight, bias = linear.weight[:, columns], linear.bias[columns]
    linear.__dict__["forward"] = lambda x: functional.linear(x, weight.mT, bias)
    attention.split_size = len(heads) * attention.head_dim
    try:
        yield
    finally:
        linear.__dict__.pop("forward")
        attention.split_size = width


class AttentionReached(Exception):  # noqa: N818 (what happened, not that it is an error)
    """Ends a layer at its attention; `call` is what the layer asked of it."""

    def __init__(self, call: AttentionCall) -> None:
        super().__init__("attention reached")
        self.call = call

    def ended(self) -> AttentionCall:
        """The call; what the interrupted frames held is let go at once, not when the garbage collector comes by."""
        self.__traceback__ = None
        return self.call


def stop_at_attention(call: AttentionCall) -> Tensor:
    """An `Attend` that raises AttentionReached."""
    raise AttentionReached(call)

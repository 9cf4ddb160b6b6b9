"""Decoder architectures as rows of one table: where each keeps what the engine reads and edits.

A row says by module paths where the layers are, and within a layer where the attention, its output projection (whose
input is z) and the modules are whose outputs are added to the residual stream. What a row does not say is read off the
network: number of heads, grouped queries, windows and soft caps come with each attention call.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from torch import nn

from interventions.errors import ModelError


@dataclass(frozen=True)
class Architecture:
    """Module paths of one architecture; `layers`, `final_norm` from the network, the others from a layer.

    `parallel` tells whether attention and MLP read the same input, so that there is no stream between them.
    """

    layers: str
    final_norm: str
    attention: str
    output_projection: str
    attention_norm: str
    attention_out: str
    mlp_out: str | None
    parallel: Callable[[Any], bool] = lambda config: False
    refuse: Callable[[Any], str | None] = lambda config: None


_LLAMA = Architecture(
    layers="model.layers",
    final_norm="model.norm",
    attention="self_attn",
    output_projection="self_attn.o_proj",
    attention_norm="input_layernorm",
    attention_out="self_attn",
    mlp_out="mlp",
)
_GEMMA = Architecture(
    layers="model.layers",
    final_norm="model.norm",
    attention="self_attn",
    output_projection="self_attn.o_proj",
    attention_norm="input_layernorm",
    attention_out="post_attention_layernorm",
    mlp_out="post_feedforward_layernorm",
)

ARCHITECTURES: dict[str, Architecture] = {
    "attention_only": Architecture(
        layers="model.layers",
        final_norm="model.norm",
        attention="self_attn",
        output_projection="self_attn.o_proj",
        attention_norm="input_layernorm",
        attention_out="self_attn",
        mlp_out=None,
    ),
    "gemma2": _GEMMA,
    "gemma3_text": _GEMMA,
    "gpt2": Architecture(
        layers="transformer.h",
        final_norm="transformer.ln_f",
        attention="attn",
        output_projection="attn.c_proj",
        attention_norm="ln_1",
        attention_out="attn",
        mlp_out="mlp",
        refuse=lambda config: "cross-attention" if config.add_cross_attention else None,
    ),
    "gpt_neox": Architecture(
        layers="gpt_neox.layers",
        final_norm="gpt_neox.final_layer_norm",
        attention="attention",
        output_projection="attention.dense",
        attention_norm="input_layernorm",
        attention_out="attention",
        mlp_out="mlp",
        parallel=lambda config: bool(config.use_parallel_residual),
    ),
    "gptj": Architecture(
        layers="transformer.h",
        final_norm="transformer.ln_f",
        attention="attn",
        output_projection="attn.out_proj",
        attention_norm="ln_1",
        attention_out="attn",
        mlp_out="mlp",
        parallel=lambda config: True,
    ),
    "llama": _LLAMA,
    "mistral": _LLAMA,
    "opt": Architecture(
        layers="model.decoder.layers",
        final_norm="model.decoder.final_layer_norm",
        attention="self_attn",
        output_projection="self_attn.out_proj",
        attention_norm="self_attn_layer_norm",
        attention_out="self_attn",
        mlp_out="fc2",
        refuse=lambda config: None if config.do_layer_norm_before else "norms after attention and MLP (opt-350m)",
    ),
    "phi": Architecture(
        layers="model.layers",
        final_norm="model.final_layernorm",
        attention="self_attn",
        output_projection="self_attn.dense",
        attention_norm="input_layernorm",
        attention_out="self_attn",
        mlp_out="mlp",
        parallel=lambda config: True,
    ),
    "phi3": _LLAMA,
    "qwen2": _LLAMA,
    "qwen3": _LLAMA,
}
"""Architectures by `config.model_type`; a new one needs a row here and a config in tests/interventions/conftest.py."""


def architecture_of(network: nn.Module) -> Architecture:
    """The row of a Hugging Face network.

    Raises:
        ModelError: an encoder-decoder, an architecture without a row, a variant that the row does not describe, or
            quantised weights.
    """
    config: Any = network.config
    kind = getattr(config, "model_type", type(network).__name__)
    if getattr(config, "is_encoder_decoder", False):
        raise ModelError(f"{kind}: expected a decoder, got an encoder-decoder; its streams cannot be branched")
    if kind not in ARCHITECTURES:
        raise ModelError(
            f"{kind}: no such row in interventions.architectures.ARCHITECTURES; expected one of "
            f"{', '.join(ARCHITECTURES)}; add a row for a decoder whose blocks add attention and MLP to a stream"
        )
    architecture = ARCHITECTURES[kind]
    if reason := architecture.refuse(config):
        raise ModelError(f"{kind}: {reason}: expected pre-norm blocks; use another checkpoint of this architecture")
    if getattr(network, "is_quantized", False) or getattr(config, "quantization_config", None) is not None:
        raise ModelError(f"{kind}: quantised weights; expected float32, bfloat16 or float16; load it unquantised")
    return architecture

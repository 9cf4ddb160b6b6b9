"""Small random models, each with an oracle that shares no code with the bridge."""

from __future__ import annotations

import copy
import functools
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import interventions
import zoo

N_LAYERS, N_CTX, D_VOCAB, D_HEAD = 2, 24, 29, 4
ZEdit = Callable[[int, Tensor], Tensor]


@dataclass(frozen=True)
class Reference:
    """What one forward pass computed: patterns and z by layer, and the logits."""

    patterns: Tensor  # [layer, batch, head, query, key]
    z: Tensor  # [layer, batch, pos, head, d_head]
    log_probs: Tensor  # [batch, pos - 1]


@dataclass(frozen=True)
class Case:
    """A bridge and an independent implementation of the same model.

    `output_weights[l]` [head * d_head, d_model] and `output_biases[l]` are views into the parameters of the independent
    implementation.
    """

    bridge: Any
    run: Callable[[Tensor, ZEdit | None], Reference]
    output_weights: list[Tensor]
    output_biases: list[Tensor]


@pytest.fixture(scope="module", params=["native", "gpt2", "grouped_query_llama", "gpt_neox"])
def case(request: pytest.FixtureRequest) -> Case:
    torch.set_num_threads(1)
    if request.param == "native":
        return native_case(n_layers=N_LAYERS)
    return hugging_face_case({"gpt2": gpt2, "grouped_query_llama": llama, "gpt_neox": neox}[request.param]())


@pytest.fixture(scope="session")
def shipped() -> Callable[[str], Any]:
    """Bridges of the shipped models by name, e.g. shipped("attn-only-2l"); loaded once, to be left unchanged."""
    torch.set_num_threads(1)
    return functools.cache(lambda name: interventions.load(zoo.folder(name)).bridge)


@pytest.fixture(scope="module")
def native() -> Case:
    torch.set_num_threads(1)
    return native_case(n_layers=3)


@pytest.fixture
def tokens() -> Tensor:
    return torch.randint(0, D_VOCAB, (5, 11), generator=torch.Generator().manual_seed(3))


@torch.no_grad()
def native_case(n_layers: int) -> Case:
    """Attention-only bridge against the equations of Elhage et al. 2021 over its weights."""
    from transformer_lens.config import TransformerBridgeConfig
    from transformer_lens.model_bridge import TransformerBridge

    config = TransformerBridgeConfig(
        n_layers=n_layers,
        n_heads=3,
        d_head=D_HEAD,
        d_model=12,
        d_vocab=D_VOCAB,
        n_ctx=N_CTX,
        attn_only=True,
        act_fn="relu",
        normalization_type="LN",
        seed=0,
        init_weights=True,
    )
    bridge: Any = TransformerBridge.boot_native(config)
    generator = torch.Generator().manual_seed(1)
    for parameter in bridge.parameters():
        parameter.copy_(torch.randn(parameter.shape, generator=generator) * 0.5)
    weights = {name: getattr(bridge, name).clone() for name in ("W_Q", "W_K", "W_V", "W_O", "b_Q", "b_K", "b_V", "b_O")}
    embed, positions = bridge.W_E.clone(), bridge.W_pos.clone()
    unembed, unembed_bias = bridge.W_U.clone(), bridge.b_U.clone()
    norms = [copy.deepcopy(bridge.blocks[layer].ln1) for layer in range(n_layers)] + [copy.deepcopy(bridge.ln_final)]

    def normalised(x: Tensor, norm: Any) -> Tensor:
        centred = x - x.mean(-1, keepdim=True)
        scaled: Tensor = centred / (centred.pow(2).mean(-1, keepdim=True) + 1e-5).sqrt() * norm.weight + norm.bias
        return scaled

    @torch.no_grad()
    def run(tokens: Tensor, edit: ZEdit | None = None) -> Reference:
        length = tokens.shape[1]
        x = embed[tokens] + positions[:length]
        patterns, outputs = [], []
        for layer in range(n_layers):
            inputs = normalised(x, norms[layer])
            q, k, v = (
                torch.einsum("bpm,hmd->bhpd", inputs, weights[f"W_{name}"][layer])
                + weights[f"b_{name}"][layer].view(1, -1, 1, D_HEAD)
                for name in "QKV"
            )
            scores = q @ k.transpose(-1, -2) / D_HEAD**0.5
            future = torch.ones(length, length, dtype=torch.bool).triu(1)
            patterns.append(scores.masked_fill(future, -torch.inf).softmax(-1))
            z = (patterns[-1] @ v).transpose(1, 2)
            z = z if edit is None else edit(layer, z)
            outputs.append(z)
            x = x + torch.einsum("bphd,hdm->bpm", z, weights["W_O"][layer]) + weights["b_O"][layer]
        logits = normalised(x, norms[-1]) @ unembed + unembed_bias
        return Reference(torch.stack(patterns), torch.stack(outputs), right_log_probs(logits, tokens))

    return Case(bridge, run, [w.view(-1, w.shape[-1]) for w in weights["W_O"]], list(weights["b_O"]))


def gpt2() -> Any:
    from transformers import GPT2Config, GPT2LMHeadModel

    torch.manual_seed(2)
    config = GPT2Config(
        n_layer=N_LAYERS,
        n_head=3,
        n_embd=12,
        vocab_size=D_VOCAB,
        n_positions=N_CTX,
        initializer_range=0.5,
        bos_token_id=0,
        eos_token_id=0,
    )
    return GPT2LMHeadModel(config)


def llama(*, biases: bool = True) -> Any:
    from transformers import LlamaConfig, LlamaForCausalLM

    torch.manual_seed(2)
    config = LlamaConfig(
        num_hidden_layers=N_LAYERS,
        num_attention_heads=4,
        num_key_value_heads=2,
        hidden_size=16,
        intermediate_size=20,
        vocab_size=D_VOCAB,
        max_position_embeddings=N_CTX,
        initializer_range=0.5,
        attention_bias=biases,
    )
    return LlamaForCausalLM(config)


def neox() -> Any:
    from transformers import GPTNeoXConfig, GPTNeoXForCausalLM

    torch.manual_seed(2)
    config = GPTNeoXConfig(
        num_hidden_layers=N_LAYERS,
        num_attention_heads=4,
        hidden_size=16,
        intermediate_size=20,
        vocab_size=D_VOCAB,
        max_position_embeddings=N_CTX,
        initializer_range=0.5,
        bos_token_id=0,
        eos_token_id=0,
    )
    return GPTNeoXForCausalLM(config)


@torch.no_grad()
def hugging_face_case(model: Any) -> Case:
    """A bridge (left in training mode, with dropout) against the Hugging Face model it was made from."""
    from transformer_lens.model_bridge.sources import build_bridge_from_module

    is_gpt2 = hasattr(model, "transformer")
    if is_gpt2:
        projections: list[Any] = [block.attn.c_proj for block in model.transformer.h]
    elif hasattr(model, "gpt_neox"):
        projections = [layer.attention.dense for layer in model.gpt_neox.layers]
    else:
        projections = [layer.self_attn.o_proj for layer in model.model.layers]
    for name, parameter in model.named_parameters():
        if name.endswith("bias") or "norm" in name or "ln_" in name:  # initialised as 0 and 1, which would hide errors
            parameter.add_(torch.randn_like(parameter) * 0.3)
    bridge: Any = build_bridge_from_module(
        copy.deepcopy(model), type(model).__name__, hf_config=copy.deepcopy(model.config)
    )
    bridge.train()
    model.eval()
    model.set_attn_implementation("eager")

    @torch.no_grad()
    def run(tokens: Tensor, edit: ZEdit | None = None) -> Reference:
        outputs: list[Tensor] = []

        def seen(module: nn.Module, args: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
            z = args[0].unflatten(-1, (-1, D_HEAD))  # type: ignore[no-untyped-call]
            z = z if edit is None else edit(len(outputs), z)
            outputs.append(z)
            return (z.flatten(-2),)

        handles = [projection.register_forward_pre_hook(seen) for projection in projections]
        try:
            out = model(tokens, output_attentions=True, use_cache=False)
        finally:
            for handle in handles:
                handle.remove()
        return Reference(torch.stack(out.attentions), torch.stack(outputs), right_log_probs(out.logits, tokens))

    weights = [projection.weight.data if is_gpt2 else projection.weight.data.T for projection in projections]
    return Case(bridge, run, weights, [projection.bias.data for projection in projections])


def right_log_probs(logits: Tensor, tokens: Tensor) -> Tensor:
    table = logits.log_softmax(-1)
    return torch.stack(
        [
            torch.stack([table[row, position - 1, tokens[row, position]] for position in range(1, tokens.shape[1])])
            for row in range(tokens.shape[0])
        ]
    )

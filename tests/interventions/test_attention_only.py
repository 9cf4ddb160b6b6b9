"""Attention-only networks, against TransformerLens's native bridge and against the plain torch they were trained in."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file
from torch import Tensor

import zoo
from interventions.attention_only import AttentionOnlyConfig, AttentionOnlyNetwork, from_bridge, to_bridge
from interventions.hooks import Modules
from interventions.loading import load
from interventions.network import final_hidden, inference, unembed
from interventions.prompts import as_prompts
from zoo.model import AttentionOnly


def native_bridge(folder: Path) -> Any:
    """TransformerLens's own model with the folder's weights, made without our loader."""
    from transformer_lens.config import TransformerBridgeConfig
    from transformer_lens.model_bridge import TransformerBridge

    shape = json.loads((folder / "config.json").read_text())
    names = ("n_layers", "d_model", "n_heads", "d_head", "d_vocab", "n_ctx")
    bridge = TransformerBridge.boot_native(
        TransformerBridgeConfig(
            **{name: shape[name] for name in names},
            attn_only=True,
            act_fn="relu",
            normalization_type="LN",
            init_weights=False,
        )
    )
    bridge.load_state_dict(load_file(folder / "model.safetensors"))
    return bridge.eval()


@pytest.fixture(scope="module")
def small() -> Any:
    shape = AttentionOnlyConfig(
        vocab_size=37,
        hidden_size=32,
        num_hidden_layers=3,
        num_attention_heads=4,
        head_dim=6,
        max_position_embeddings=64,
    )
    network = AttentionOnlyNetwork._from_config(shape, attn_implementation="eager").eval()
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for parameter in network.parameters():
            parameter.copy_(torch.randn(parameter.shape, generator=generator) * 0.3)
    return network


@pytest.mark.parametrize("name", ["attn-only-2l", "attn-only-0l"])
def test_shipped_models_have_the_logits_of_the_native_bridge(name: str) -> None:
    folder = zoo.folder(name)
    model = load(folder)
    tokens = torch.randint(0, model.d_vocab, (2, 40), generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        expected = native_bridge(folder)(tokens)
        for attention in ("eager", "sdpa"):
            model.network.config._attn_implementation = attention
            torch.testing.assert_close(model.network(tokens).logits, expected, rtol=1e-6, atol=1e-5)


@pytest.mark.parametrize("attention", ["eager", "sdpa", "reprise"])
def test_all_attention_functions_give_the_logits_of_plain_torch(
    folder: Path, network: AttentionOnly, tokens: Tensor, attention: str
) -> None:
    ours = load(folder, dtype=torch.float64).network
    with inference(ours):
        expected = network.double()(tokens)
        if attention == "reprise":
            modules = Modules(ours)
            seen: list[Tensor] = []
            hooks = {("pattern", layer): seen.append for layer in range(2)}
            logits = unembed(modules, final_hidden(modules, as_prompts(tokens), hooks))
            assert len(seen) == 2
        else:
            ours.config._attn_implementation = attention
            logits = ours(tokens).logits
    # The engine softmaxes edited patterns and gives logits in float32.
    tolerance = 1e-5 if attention == "reprise" else 1e-10
    torch.testing.assert_close(logits.double(), expected, rtol=0, atol=tolerance)


def test_padding_on_the_left_changes_nothing(small: Any) -> None:
    prompts = as_prompts([[5, 6, 7, 8, 9], [1, 2, 3]])
    assert prompts.valid is not None
    with inference(small):
        padded = small(prompts.tokens, attention_mask=prompts.valid.long(), position_ids=prompts.position_ids)
        alone = small(torch.tensor([[1, 2, 3]]))
    torch.testing.assert_close(padded.logits[1, 2:], alone.logits[0], rtol=0, atol=1e-5)


def test_generation_with_a_cache_equals_generation_without(small: Any) -> None:
    tokens = torch.randint(1, 37, (2, 9), generator=torch.Generator().manual_seed(1))
    generated = small.generate(tokens, max_new_tokens=6, do_sample=False)
    expected = tokens
    with torch.no_grad():
        for _ in range(6):
            expected = torch.cat([expected, small(expected, use_cache=False).logits[:, -1:].argmax(dim=-1)], dim=1)
        first = small(tokens[:, :4], use_cache=True)
        then = small(tokens[:, 4:], past_key_values=first.past_key_values)
    assert torch.equal(generated, expected)
    torch.testing.assert_close(then.logits, small(tokens).logits[:, 4:], rtol=0, atol=1e-5)


def test_hidden_states_and_attentions_are_given_on_request(small: Any) -> None:
    tokens = torch.randint(1, 37, (2, 9))
    with torch.no_grad():
        output = small(tokens, output_hidden_states=True, output_attentions=True)
    embedded = small.model.embed_tokens(tokens) + small.model.embed_positions.weight[:9]
    assert torch.equal(output.hidden_states[0], embedded)
    assert len(output.hidden_states) == 4
    assert [tuple(pattern.shape) for pattern in output.attentions] == [(2, 4, 9, 9)] * 3
    torch.testing.assert_close(output.attentions[2].sum(dim=-1), torch.ones(2, 4, 9))
    assert output.attentions[0].triu(diagonal=1).abs().max() == 0


def test_last_logits_alone_are_those_of_the_whole(small: Any) -> None:
    tokens = torch.randint(1, 37, (2, 9))
    with torch.no_grad():
        torch.testing.assert_close(small(tokens, logits_to_keep=2).logits, small(tokens).logits[:, -2:])


def test_names_of_a_bridge_come_back(small: Any, folder: Path) -> None:
    names = {name: name for name in small.state_dict()}
    there = to_bridge(names)
    assert {"embed.weight", "pos_embed.weight", "blocks.2.ln1.bias", "blocks.0.attn.o.bias", "unembed.bias"} <= set(
        there
    )
    assert from_bridge(there) == names
    assert set(to_bridge(load(folder).network.state_dict())) == set(load_file(folder / "model.safetensors"))

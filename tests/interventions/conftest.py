"""Small model folders of both kinds, and a small random network of every Hugging Face architecture."""

from __future__ import annotations

import functools
import hashlib
import json
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file
from torch import nn

from zoo.corpus import train_tokenizer
from zoo.model import AttentionOnly, AttentionOnlyConfig

CONFIG = AttentionOnlyConfig(n_layers=2, d_model=24, n_heads=3, d_head=8, d_vocab=300, n_ctx=32)
NETWORKS = (
    "gpt2",
    "gptj",
    "gpt_neox",
    "llama",
    "mistral",
    "qwen2",
    "qwen3",
    "gemma2",
    "gemma3_text",
    "phi",
    "phi3",
    "opt",
)
TEXT = ("def double(number):\n    return number + number\n",) * 3


@pytest.fixture
def network() -> AttentionOnly:
    return AttentionOnly(CONFIG, seed=3)


@pytest.fixture
def folder(tmp_path: Path, network: AttentionOnly) -> Path:
    """An attention-only folder with a card."""
    path = tmp_path / "toy"
    path.mkdir()
    save_file(network.state_dict(), path / "model.safetensors")
    fields = ("n_layers", "d_model", "n_heads", "d_head", "d_vocab", "n_ctx", "model_type")
    (path / "config.json").write_text(json.dumps({name: getattr(CONFIG, name) for name in fields}))
    train_tokenizer(TEXT, 300).save(str(path / "tokenizer.json"))
    names = ("model.safetensors", "config.json", "tokenizer.json")
    sha256 = {name: hashlib.sha256((path / name).read_bytes()).hexdigest() for name in names}
    (path / "card.json").write_text(json.dumps({"sha256": sha256}))
    return path


@pytest.fixture(scope="session")
def tokens() -> torch.Tensor:
    return torch.randint(0, 300, (2, 20), generator=torch.Generator().manual_seed(0))


@functools.cache
def random_network(name: str, *, attention: str = "eager") -> Any:
    """A random network of a model type in NETWORKS: 3 layers, 4 heads, d_model 32, 37 tokens; one for all tests.

    All weights are of the size of their inputs, norm gains and biases are not trivial, so that every edit has an effect
    far above rounding. Tests must leave it as it was; to change weights, copy.deepcopy it first.
    """
    import transformers

    network = transformers.AutoModelForCausalLM.from_config(_config(name), attn_implementation=attention).eval()
    generator = torch.Generator().manual_seed(NETWORKS.index(name))
    with torch.no_grad():
        for parameter in network.parameters():
            noise = 0.3 * torch.randn(parameter.shape, generator=generator)
            # Vectors are gains and biases: they keep their mean (1 or 0). Weights are drawn anew.
            parameter.copy_(parameter + noise if parameter.ndim == 1 else noise)
    return network


def _config(name: str) -> Any:
    import transformers

    common = {"vocab_size": 37, "bos_token_id": 0, "eos_token_id": 0, "pad_token_id": None}
    gpt = {"n_layer": 3, "n_head": 4, "n_embd": 32, "n_positions": 64, **common}
    heads = {"hidden_size": 32, "num_hidden_layers": 3, "num_attention_heads": 4, "max_position_embeddings": 64}
    neox = {**heads, "intermediate_size": 40, **common}
    llama = {**neox, "num_key_value_heads": 2, "head_dim": 8}
    gemma = {**llama, "sliding_window": 5, "query_pre_attn_scalar": 8}
    settings: dict[str, dict[str, Any]] = {
        "gpt2": gpt,
        "gptj": {**gpt, "rotary_dim": 4},
        "gpt_neox": neox,
        "llama": llama,
        "mistral": {**llama, "sliding_window": 5},
        "qwen2": {**llama, "use_sliding_window": True, "sliding_window": 5, "max_window_layers": 1},
        "qwen3": llama,
        "gemma2": {**gemma, "attn_logit_softcapping": 5.0, "final_logit_softcapping": 10.0},
        "gemma3_text": {**gemma, "layer_types": ["sliding_attention", "full_attention", "sliding_attention"]},
        "phi": neox,
        "phi3": {**llama, "sliding_window": 5},
        "opt": {**heads, "ffn_dim": 40, "word_embed_proj_dim": 32, **common},
    }
    return transformers.AutoConfig.for_model(name, **settings[name])


def same_weights(network: nn.Module, before: dict[str, torch.Tensor]) -> bool:
    """Whether all parameters and buffers are bitwise those of `before` (a copied state_dict)."""
    state = network.state_dict()
    return state.keys() == before.keys() and all(torch.equal(state[name], before[name]) for name in before)

"""Folded weights: what they compute is what the model computes."""

from __future__ import annotations

import dataclasses
from typing import Any

import pytest
import torch
from torch import Tensor

from circuits import read_weights
from circuits.bridge import record

from .conftest import Case, llama, native_case


def check(model: Any, tokens: Tensor) -> None:
    """Queries, keys, values and logits from the folded weights against the hooks of the model."""
    weights = read_weights(model)
    hooks = [f"blocks.{at}.{name}" for at in range(weights.n_layers) for name in ("hook_resid_pre", *QKV)]
    seen = record(model, tokens, [*hooks, "ln_final.hook_in"], logits=True)
    for layer in range(weights.n_layers):
        x = seen[f"blocks.{layer}.hook_resid_pre"]
        for name, (W, b) in QKV.items():
            ours = torch.einsum("bpm,hmd->bphd", x / weights.scale(x), getattr(weights, W)[layer])
            ours = ours + getattr(weights, b)[layer]
            theirs = seen[f"blocks.{layer}.{name}"]
            theirs = theirs.repeat_interleave(weights.n_heads // theirs.shape[2], dim=2)
            torch.testing.assert_close(ours, theirs, rtol=1e-4, atol=1e-4)
    x = seen["ln_final.hook_in"]
    logits = x / weights.scale(x) @ weights.W_U + weights.b_U
    torch.testing.assert_close(logits, seen["logits"], rtol=1e-4, atol=1e-4)


QKV = {f"attn.hook_{name.lower()}": (f"W_{name}", f"b_{name}") for name in "QKV"}


def test_queries_keys_values_and_logits_are_those_of_the_model(case: Case, tokens: Tensor) -> None:
    check(case.bridge, tokens)


def test_projections_without_biases_have_zeros(tokens: Tensor) -> None:
    """As in Llama itself, for which the bridge has no bias tensors at all."""
    from transformer_lens.model_bridge.sources import build_bridge_from_module

    network = llama(biases=False)
    bridge: Any = build_bridge_from_module(network, "LlamaForCausalLM", hf_config=network.config).eval()
    check(bridge, tokens)
    weights = read_weights(bridge)
    assert not any(bias.any() for bias in (weights.b_Q, weights.b_K, weights.b_V, weights.b_O))
    assert (weights.b_O.shape, weights.b_O.dtype) == (weights.W_O[:, 0, 0].shape, torch.float32)


def test_shipped_models(shipped: Any) -> None:
    check(shipped("attn-only-2l"), torch.arange(40).reshape(2, 20))


def test_weights_are_copies_and_float32(native: Case) -> None:
    before = read_weights(native.bridge)
    halved = native.bridge.to(torch.bfloat16)
    try:
        after = read_weights(halved)
        for field in dataclasses.fields(after):
            value = getattr(after, field.name)
            if isinstance(value, Tensor):
                assert value.dtype == torch.float32
                torch.testing.assert_close(value, getattr(before, field.name), rtol=0.05, atol=0.05)
    finally:
        native.bridge.to(torch.float32)


def test_other_norms_are_refused() -> None:
    model = native_case(n_layers=1).bridge
    model.ln_final = torch.nn.Identity()
    with pytest.raises(ValueError, match="ln_final is a Identity: expected LayerNorm or RMSNorm"):
        read_weights(model)


def test_a_norm_that_computes_something_else_is_refused() -> None:
    model = native_case(n_layers=2).bridge
    model.blocks[1].ln1.register_forward_hook(lambda module, args, out: 2 * out)
    with pytest.raises(ValueError, match=r"blocks\.1\.ln1 is no LayerNorm with eps 1e-05: it differs by"):
        read_weights(model)


@pytest.mark.parametrize(
    ("field", "value", "message"),
    [
        ("attn_scores_soft_cap", 30.0, "attn_scores_soft_cap is 30.0; expected pre-norm blocks"),
        ("positional_embedding_type", "alibi", "positions are 'alibi', not learned embeddings or rotary"),
    ],
)
def test_other_architectures_are_refused(
    native: Case, monkeypatch: pytest.MonkeyPatch, field: str, value: object, message: str
) -> None:
    monkeypatch.setattr(native.bridge.cfg, field, value)
    with pytest.raises(ValueError, match=message):
        read_weights(native.bridge)

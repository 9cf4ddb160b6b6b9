"""The logit lens against the model's own final norm and unembedding."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor

from circuits.bridge import inference
from circuits.lens import check_targets, logit_lens, logit_lens_top
from circuits.losses import next_token_log_probs
from circuits.weights import read_weights

from .conftest import Case


def close(actual: Tensor, expected: Tensor) -> None:
    torch.testing.assert_close(actual, expected, rtol=1e-4, atol=1e-4)


@torch.no_grad()
def without_layers() -> Any:
    """An embedding, a norm and an unembedding, all random."""
    from transformer_lens.config import TransformerBridgeConfig
    from transformer_lens.model_bridge import TransformerBridge

    config = TransformerBridgeConfig(
        n_layers=0,
        n_heads=3,
        d_head=4,
        d_model=12,
        d_vocab=29,
        n_ctx=24,
        attn_only=True,
        act_fn="relu",
        normalization_type="LN",
        init_weights=False,  # its initialisation divides by the number of layers
    )
    bridge: Any = TransformerBridge.boot_native(config)
    generator = torch.Generator().manual_seed(1)
    for parameter in bridge.parameters():
        parameter.copy_(torch.randn(parameter.shape, generator=generator) * 0.5)
    return bridge


def naive_tables(model: Any, tokens: Tensor) -> list[Tensor]:
    """log softmax at every depth: the stream is put into the modules that the model ends with."""
    streams: list[Tensor] = []
    names = [f"blocks.{layer}.hook_resid_pre" for layer in range(model.cfg.n_layers)] + ["ln_final.hook_in"]

    def keep(value: Tensor, hook: Any) -> None:
        streams.append(value.clone())

    with inference(model):
        with model.hooks(fwd_hooks=[(name, keep) for name in names]):
            model(tokens)
        return [model.unembed(model.ln_final(stream)).log_softmax(-1) for stream in streams]


def test_every_layer_is_read_by_the_norm_and_unembedding_of_the_model(case: Case, tokens: Tensor) -> None:
    tables = naive_tables(case.bridge, tokens)
    lens = logit_lens(case.bridge, tokens, batch_size=2)
    assert lens.shape == (3, 5, 10)
    expected = torch.stack([table[:, :-1].gather(-1, tokens[:, 1:, None])[..., 0] for table in tables])
    close(lens, expected)
    close(lens[-1], case.run(tokens, None).log_probs)
    assert (lens[0] - lens[-1]).abs().mean() > 0.1


def test_targets_replace_the_next_token(case: Case, tokens: Tensor) -> None:
    tables = naive_tables(case.bridge, tokens)
    targets = (tokens[:, 1:] + 5) % 29
    lens = logit_lens(case.bridge, tokens, targets=targets, weights=read_weights(case.bridge), batch_size=4)
    close(lens, torch.stack([table[:, :-1].gather(-1, targets[..., None])[..., 0] for table in tables]))


def test_top_tokens_are_the_likeliest(case: Case, tokens: Tensor) -> None:
    log_probs, top = logit_lens_top(case.bridge, tokens, 4, batch_size=2)
    assert log_probs.shape == top.shape == (3, 5, 11, 4)
    for depth, table in enumerate(naive_tables(case.bridge, tokens)):
        values, picks = table.sort(dim=-1, descending=True)
        close(log_probs[depth], values[..., :4])
        assert (top[depth] == picks[..., :4]).float().mean() > 0.99  # ties in the last bit
        close(table.gather(-1, top[depth]), log_probs[depth])


def test_shipped_model_gets_better_with_depth(shipped: Any) -> None:
    model = shipped("attn-only-2l")
    tokens = torch.arange(60).reshape(2, 30)
    lens = logit_lens(model, tokens)
    close(lens[-1], next_token_log_probs(model, tokens))
    close(lens[0], naive_tables(model, tokens)[0][:, :-1].gather(-1, tokens[:, 1:, None])[..., 0])


def test_model_without_layers(tokens: Tensor) -> None:
    model = without_layers()
    lens = logit_lens(model, tokens)
    assert lens.shape == (1, 5, 10)
    close(lens[0], next_token_log_probs(model, tokens))


@pytest.mark.parametrize(
    ("targets", "message"),
    [
        (torch.zeros(5, 9, dtype=torch.int64), r"against have shape \(5, 9\): expected \(5, 10\), \[batch, pos - 1\]"),
        (torch.zeros(5, 10), r"against are torch.float32: expected integers; convert them with \.long\(\)"),
        (torch.full((5, 10), 29), r"against\[0, 0\] is 29: expected 0 to 28 \(the vocabulary\); use the tokenizer"),
    ],
)
def test_bad_targets_are_refused(native: Case, tokens: Tensor, targets: Tensor, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        check_targets("against", targets, tokens, read_weights(native.bridge))


def test_bad_input_is_refused(native: Case, tokens: Tensor) -> None:
    with pytest.raises(ValueError, match=r"targets\[0, 0\] is -1: expected 0 to 28"):
        logit_lens(native.bridge, tokens, targets=torch.full((5, 10), -1))
    with pytest.raises(ValueError, match="tokens have 1 positions: expected 2 to 24"):
        logit_lens(native.bridge, tokens[:, :1])
    for k in (0, 30):
        with pytest.raises(ValueError, match=f"k is {k}: expected 1 to 29, the tokens that the model can predict"):
            logit_lens_top(native.bridge, tokens, k)

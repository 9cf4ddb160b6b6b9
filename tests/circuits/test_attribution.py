"""Direct logit attribution: sums are the model's logits, components those of naive loops and of TransformerLens."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor

from circuits.attribution import logit_attribution
from circuits.bridge import inference
from circuits.weights import read_weights

from .conftest import Case, native_case
from .test_lens import without_layers


def close(actual: Tensor, expected: Tensor) -> None:
    torch.testing.assert_close(actual, expected, rtol=1e-4, atol=1e-4)


def logits_of(model: Any, tokens: Tensor, targets: Tensor) -> Tensor:
    with inference(model):
        logits: Tensor = model(tokens)
    return logits[:, :-1].gather(-1, targets[..., None]).squeeze(-1)


def naive_head(case: Case, tokens: Tensor, layer: int, head: int, targets: Tensor) -> Tensor:
    """The final norm's linear part on one head's output, in float64 and position by position, from unfolded weights."""
    model, d_head = case.bridge, case.bridge.cfg.d_head
    streams: list[Tensor] = []
    with inference(model), model.hooks(fwd_hooks=[("ln_final.hook_in", lambda value, hook: streams.append(value))]):
        model(tokens)
    z = case.run(tokens, None).z[layer, :, :, head].double()
    W_O = case.output_weights[layer][head * d_head : (head + 1) * d_head].double()
    gain, W_U = model.ln_final.weight.detach().double(), model.W_U.detach().double()
    is_layer_norm = model.cfg.normalization_type == "LN"
    out = torch.empty(targets.shape)
    for row in range(targets.shape[0]):
        for at in range(targets.shape[1]):
            x, written = streams[0][row, at].double(), z[row, at] @ W_O
            if is_layer_norm:
                x, written = x - x.mean(), written - written.mean()
            scale = (x.square().mean() + model.cfg.eps).sqrt()
            out[row, at] = float((written / scale * gain) @ W_U[:, targets[row, at]])
    return out


def test_components_and_biases_sum_to_the_logits(case: Case, tokens: Tensor) -> None:
    attribution = logit_attribution(case.bridge, tokens, batch_size=2)
    close(attribution.total, logits_of(case.bridge, tokens, tokens[:, 1:]))
    assert attribution.values.shape == (5, 10, len(attribution.labels))


def test_heads_are_those_of_a_naive_loop(case: Case, tokens: Tensor) -> None:
    attribution = logit_attribution(case.bridge, tokens, batch_size=3)
    for layer in range(2):
        for head in range(case.bridge.cfg.n_heads):
            ours = attribution.values[..., attribution.labels.index(f"L{layer}H{head}")]
            close(ours, naive_head(case, tokens, layer, head, tokens[:, 1:]))


def test_targets_against_others_give_logit_differences(case: Case, tokens: Tensor) -> None:
    targets, against = (tokens[:, 1:] + 3) % 29, (tokens[:, 1:] + 4) % 29
    weights = read_weights(case.bridge)
    difference = logit_attribution(case.bridge, tokens, targets=targets, against=against, weights=weights, batch_size=2)
    close(difference.total, logits_of(case.bridge, tokens, targets) - logits_of(case.bridge, tokens, against))
    one, other = (logit_attribution(case.bridge, tokens, targets=each) for each in (targets, against))
    close(difference.values, one.values - other.values)
    close(difference.bias, one.bias - other.bias)


def test_labels_name_the_components_in_order(case: Case, tokens: Tensor) -> None:
    n_heads = case.bridge.cfg.n_heads
    expected = ["embed"]
    for layer in range(2):
        expected += [f"L{layer}H{head}" for head in range(n_heads)]
        expected += [] if case.bridge.cfg.attn_only else [f"MLP{layer}"]
    assert logit_attribution(case.bridge, tokens).labels == tuple(expected)


def test_embedding_mlps_and_biases_are_what_they_are_called(case: Case, tokens: Tensor) -> None:
    """The linear part of the final norm and the unembedding, as a function, on what the hooks give."""
    model, names = case.bridge, ["blocks.0.hook_resid_pre"]
    names += [] if model.cfg.attn_only else ["blocks.0.hook_mlp_out", "blocks.1.hook_mlp_out"]
    seen: list[Tensor] = []
    with (
        inference(model),
        model.hooks(
            fwd_hooks=[(name, lambda value, hook: seen.append(value)) for name in [*names, "ln_final.hook_in"]]
        ),
    ):
        model(tokens)
    at, final = dict(zip(names, seen[:-1], strict=True)), seen[-1]
    attribution = logit_attribution(model, tokens)

    def read(written: Tensor) -> Tensor:
        """What `written` adds to the logits while the divisor is held."""
        scale = read_weights(model).scale(final)
        centred = written - written.mean(-1, keepdim=True) if model.cfg.normalization_type == "LN" else written
        logits: Tensor = (centred / scale * model.ln_final.weight) @ model.W_U
        return logits

    def target(table: Tensor) -> Tensor:
        return table[:, :-1].gather(-1, tokens[:, 1:, None]).squeeze(-1).detach()

    for name, label in zip(names, ["embed", "MLP0", "MLP1"], strict=False):
        close(attribution.values[..., attribution.labels.index(label)], target(read(at[name])))
    beta = getattr(model.ln_final, "bias", None)
    constant = model.b_U + (0 if beta is None else beta @ model.W_U)
    biases = read(sum(case.output_biases, torch.zeros(())).expand(final.shape)) + constant
    close(attribution.bias, target(biases))


def test_heads_are_those_of_transformer_lens(native: Case, tokens: Tensor) -> None:
    model = native.bridge
    with inference(model):
        _, cache = model.run_with_cache(tokens)
        results = cache.stack_head_results(layer=-1)  # [component, batch, pos, d_model]
        stream = cache["ln_final.hook_in"]
        centred = stream - stream.mean(-1, keepdim=True)
        scale = (centred.square().mean(-1, keepdim=True) + model.cfg.eps).sqrt()
        read = (results - results.mean(-1, keepdim=True)) / scale * model.ln_final.weight @ model.W_U
    expected = read[:, :, :-1].gather(-1, tokens[:, 1:, None].expand(len(read), -1, -1, 1)).squeeze(-1)
    attribution = logit_attribution(model, tokens)
    assert len(expected) == 9
    close(attribution.values[..., 1:], expected.permute(1, 2, 0))


@pytest.mark.parametrize("name", ["attn-only-1l", "attn-only-2l", "attn-only-3l"])
def test_shipped_models(shipped: Any, name: str) -> None:
    model = shipped(name)
    tokens = torch.arange(60).reshape(2, 30)
    attribution = logit_attribution(model, tokens)
    assert len(attribution.labels) == 1 + 12 * int(name[-2])
    close(attribution.total, logits_of(model, tokens, tokens[:, 1:]))


def test_model_without_layers(tokens: Tensor) -> None:
    model = without_layers()
    attribution = logit_attribution(model, tokens)
    assert attribution.labels == ("embed",)
    close(attribution.total, logits_of(model, tokens, tokens[:, 1:]))


def test_bfloat16_model_is_read_in_float32(tokens: Tensor) -> None:
    model = native_case(n_layers=2).bridge
    exact = logit_attribution(model, tokens)
    rough = logit_attribution(model.to(torch.bfloat16), tokens)
    assert rough.values.dtype == rough.bias.dtype == torch.float32
    assert (rough.values - exact.values).abs().mean() < 0.1


def test_bad_input_is_refused(native: Case, tokens: Tensor) -> None:
    with pytest.raises(ValueError, match=r"targets\[0, 0\] is 29: expected 0 to 28"):
        logit_attribution(native.bridge, tokens, targets=torch.full((5, 10), 29))
    with pytest.raises(ValueError, match=r"against\[0, 0\] is -1: expected 0 to 28"):
        logit_attribution(native.bridge, tokens, against=torch.full((5, 10), -1))
    with pytest.raises(ValueError, match="tokens have 1 positions: expected 2 to 24"):
        logit_attribution(native.bridge, tokens[:, :1])


def test_weights_of_another_model_are_refused(native: Case, tokens: Tensor) -> None:
    other = native_case(n_layers=3).bridge
    with torch.no_grad():
        other.blocks[1].attn.o.weight.mul_(-1)
    with pytest.raises(ValueError, match=r"components sum to a logit that is .* off what ln_final reads: expected"):
        logit_attribution(native.bridge, tokens, weights=read_weights(other))

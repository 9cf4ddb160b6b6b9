"""Positional attention against models that see positions alone, and score parts against hooks and raw weights."""

from __future__ import annotations

import copy
from typing import Any

import pytest
import torch
from torch import Tensor

from circuits.bridge import record
from circuits.head_outputs import Head
from circuits.positions import (
    PARTS,
    position_and_token_parts,
    positional_pattern,
    positional_qk,
    previous_position_share,
    typical_scale,
)
from circuits.weights import read_weights

from .conftest import Case, gpt2, hugging_face_case


@pytest.fixture(scope="module", params=["native", "gpt2"])
def model(request: pytest.FixtureRequest, native: Case) -> Any:
    """Bridges with learned positions."""
    return native.bridge if request.param == "native" else hugging_face_case(gpt2()).bridge


@torch.no_grad()
def without_tokens(model: Any) -> Any:
    """A copy without token embeddings and biases."""
    model = copy.deepcopy(model)
    for name, parameter in model.named_parameters():
        if name.startswith(("tok_embed", "transformer.wte")) or name.endswith("bias"):
            parameter.zero_()
    return model


def divisor(model: Any, x: Tensor) -> Tensor:
    return torch.sqrt(x.var(-1, unbiased=False, keepdim=True) + model.cfg.eps)


def normalised(model: Any, x: Tensor) -> Tensor:
    """What the first norm makes of x but for its bias and its divisor, in float64."""
    x = x.double()
    out: Tensor = (x - x.mean(-1, keepdim=True)) * model.blocks[0].ln1.weight.double()
    return out


@torch.no_grad()
def test_positional_qk_is_the_attention_of_a_model_that_sees_positions_alone(model: Any) -> None:
    blind = without_tokens(model)
    weights, tokens = read_weights(model), torch.zeros(1, model.cfg.n_ctx, dtype=torch.int64)
    s = divisor(blind, blind.W_pos)
    for layer in range(weights.n_layers):
        name = f"blocks.{layer}.attn.hook_pattern"
        direct = [(f"blocks.{layer}.hook_resid_pre", lambda value, hook: blind.W_pos[None])]
        with blind.hooks(fwd_hooks=direct):
            pattern = record(blind, tokens, [name])[name][0]
        for head in range(weights.n_heads):
            ours = (positional_qk(weights, (layer, head)) / (s * s.T)).softmax(-1)
            torch.testing.assert_close(ours, pattern[head], rtol=1e-3, atol=1e-4)
    short = positional_qk(weights, (0, 1), 5)
    assert torch.equal(torch.isinf(short), torch.ones(5, 5).triu(1).bool())
    torch.testing.assert_close(short, positional_qk(weights, (0, 1))[:5, :5])


@torch.no_grad()
def test_patterns_and_shares_are_those_of_a_loop(model: Any) -> None:
    weights, n = read_weights(model), 6
    stream = (model.W_E[:, None] + model.W_pos[None]).double()
    scale = float(divisor(model, stream).mean())
    assert typical_scale(weights) == pytest.approx(scale, rel=1e-4)
    for layer, head in [(0, 2), (1, 0)]:
        q, k = (
            ((model.W_pos - model.W_pos.mean(-1, keepdim=True)) * model.blocks[layer].ln1.weight).double()
            @ getattr(model, f"W_{name}")[layer, head].double()
            for name in "QK"
        )
        expected = torch.zeros(n, n, dtype=torch.float64)
        for query in range(n):
            scores = torch.stack([q[query] @ k[key] for key in range(query + 1)]) / (scale**2 * model.cfg.d_head**0.5)
            expected[query, : query + 1] = scores.softmax(0)
        pattern = positional_pattern(weights, (layer, head), n_ctx=n)
        torch.testing.assert_close(pattern.double(), expected, rtol=1e-3, atol=1e-5)
        share = torch.stack([expected[query, query - 1] for query in range(1, n)]).mean()
        assert float(previous_position_share(weights, n_ctx=n)[layer, head]) == pytest.approx(float(share), rel=1e-3)
        flat = positional_pattern(weights, (layer, head), n_ctx=n, scale=1e4)
        torch.testing.assert_close(flat, torch.ones(n, n).tril() / torch.arange(1, n + 1)[:, None])
    assert float(previous_position_share(weights, n_ctx=2, scale=1e4)[0, 0]) == pytest.approx(0.5)


@torch.no_grad()
def check_parts(model: Any, tokens: Tensor, head: Head) -> None:
    """Every part from the raw weights, and the sum against the hooks."""
    parts = position_and_token_parts(model, tokens, head)
    assert parts.labels == PARTS
    length, (layer, at), ln1 = tokens.shape[1], head, model.blocks[0].ln1
    x = {"token": model.W_E[tokens], "position": model.W_pos[:length].expand(len(tokens), -1, -1)}
    s = divisor(model, (x["token"] + x["position"]).double())
    q, k = (
        {of: normalised(model, value) / s @ getattr(model, f"W_{name}")[head].double() for of, value in x.items()}
        for name in "QK"
    )
    b_Q, b_K = (
        getattr(model, f"b_{name}")[head].double() + ln1.bias.double() @ getattr(model, f"W_{name}")[head].double()
        for name in "QK"
    )
    expected = [q[of] @ k[to].mT for of, to in (label.split("-") for label in PARTS[:4])]
    whole_q, whole_k = q["token"] + q["position"], k["token"] + k["position"]
    expected.append((b_Q * whole_k).sum(-1)[:, None, :] + (whole_q @ b_K)[:, :, None] + b_Q @ b_K)
    theirs = torch.stack(expected, dim=1).tril() / model.cfg.d_head**0.5
    torch.testing.assert_close(parts.values.double(), theirs, rtol=1e-4, atol=1e-4)
    hook = f"blocks.{layer}.attn.hook_attn_scores"
    seen = record(model, tokens, [hook, f"blocks.{layer}.attn.hook_pattern"])
    causal = torch.ones(length, length, dtype=torch.bool).tril()
    if not torch.equal(*seen.values()):  # in native bridges both hooks hold the pattern
        torch.testing.assert_close(parts.total[:, causal], seen[hook][:, at][:, causal], rtol=1e-4, atol=1e-4)
    pattern = parts.total.masked_fill(~causal, -torch.inf).softmax(-1)
    torch.testing.assert_close(pattern, seen[f"blocks.{layer}.attn.hook_pattern"][:, at], rtol=1e-3, atol=1e-4)
    assert (parts.total[:, ~causal] == 0).all()


def test_parts_are_those_of_the_raw_weights_and_sum_to_the_scores(model: Any, tokens: Tensor) -> None:
    for head in range(3):
        check_parts(model, tokens, (0, head))


@torch.no_grad()
def test_the_score_hook_of_gpt2_is_the_sum_of_the_parts(tokens: Tensor) -> None:
    model = hugging_face_case(gpt2()).bridge
    name = "blocks.0.attn.hook_attn_scores"
    scores = record(model, tokens, [name])[name][:, 1]
    causal = torch.ones(tokens.shape[1], tokens.shape[1], dtype=torch.bool).tril()
    ours = position_and_token_parts(model, tokens, (0, 1), weights=read_weights(model)).total
    assert scores[:, causal].abs().max() > 1
    torch.testing.assert_close(ours[:, causal], scores[:, causal], rtol=1e-4, atol=1e-4)


def test_previous_token_head_of_a_shipped_model_reads_positions(shipped: Any) -> None:
    model = shipped("attn-only-2l")
    weights = read_weights(model)
    share = previous_position_share(weights)
    assert share[0, 6] > 0.9
    assert share.flatten().topk(2).values[1] < 0.25
    assert int(positional_pattern(weights, (0, 6))[100].argmax()) == 99
    full = (model.W_E[:, None] + model.W_pos[None, ::4]).var(-1, unbiased=False).sqrt().mean()
    assert typical_scale(weights) == pytest.approx(float(full.detach()), rel=0.01)
    tokens = torch.randint(1, 1024, (2, 40), generator=torch.Generator().manual_seed(0))
    check_parts(model, tokens, (0, 6))
    values = position_and_token_parts(model, tokens, (0, 6)).values
    previous, others = (values.diagonal(offset, dim1=-2, dim2=-1)[..., -30:].mean(dim=(0, 2)) for offset in (-1, -3))
    assert int((previous - others).argmax()) == PARTS.index("position-position")


def test_rotary_models_are_refused(case: Case, tokens: Tensor) -> None:
    if case.bridge.cfg.positional_embedding_type != "rotary":
        assert typical_scale(read_weights(case.bridge)) > 0
        return
    weights = read_weights(case.bridge)
    message = "the model has rotary positions: expected learned position embeddings"
    for refused in (
        lambda: positional_qk(weights, (0, 0)),
        lambda: positional_pattern(weights, (0, 0), scale=1.0),
        lambda: previous_position_share(weights),
        lambda: typical_scale(weights),
        lambda: position_and_token_parts(case.bridge, tokens, (0, 0)),
    ):
        with pytest.raises(ValueError, match=message):
            refused()


def test_bad_input(native: Case, tokens: Tensor) -> None:
    weights = read_weights(native.bridge)
    with pytest.raises(ValueError, match="n_ctx=25: expected 1 to 24 positions, the context of the model"):
        positional_qk(weights, (0, 0), 25)
    with pytest.raises(ValueError, match="n_ctx=0: expected 1 to 24"):
        previous_position_share(weights, n_ctx=0)
    with pytest.raises(ValueError, match="n_ctx=1: expected at least 2 positions"):
        previous_position_share(weights, n_ctx=1)
    with pytest.raises(ValueError, match=r"scale=0\.0: expected a positive divisor"):
        positional_pattern(weights, (0, 0), scale=0.0)
    with pytest.raises(ValueError, match=r"head \(0, 3\) does not exist"):
        positional_qk(weights, (0, 3))
    with pytest.raises(
        ValueError, match=r"head \(1, 2\) is in layer 1: expected layer 0, .*decompose_attention_scores"
    ):
        position_and_token_parts(native.bridge, tokens, (1, 2))
    with pytest.raises(ValueError, match=r"head \(5, 0\) does not exist"):
        position_and_token_parts(native.bridge, tokens, (5, 0))

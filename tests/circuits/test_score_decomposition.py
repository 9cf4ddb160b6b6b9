"""Attention scores by pairs of components: against the model's scores, and naive rotation and folding in float64."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch
from torch import Tensor

from circuits.bridge import inference
from circuits.head_outputs import Head
from circuits.score_decomposition import decompose_attention_scores, mean_score_parts, rotate, score_labels
from circuits.tokens import repeated_random_tokens
from circuits.weights import read_weights

from .conftest import Case, native_case

CAUSAL = torch.ones(11, 11, dtype=torch.bool).tril()
INDUCTION_HEADS = [0, 2, 3, 4, 5, 7, 11]


def close(actual: Tensor, expected: Tensor) -> None:
    torch.testing.assert_close(actual, expected, rtol=1e-4, atol=1e-4)


def watch(model: Any, tokens: Tensor, names: list[str]) -> dict[str, Tensor]:
    """Activations under the names asked for (a hook point may know itself by another name)."""
    seen: dict[str, Tensor] = {}

    def keep(name: str) -> Any:
        return lambda value, hook: seen.update({name: value.detach().clone()})

    with inference(model), model.hooks(fwd_hooks=[(name, keep(name)) for name in names]):
        model(tokens)
    return seen


def model_scores(model: Any, tokens: Tensor, head: Head) -> Tensor:
    """q . k / sqrt(d_head) as the model has it: at its hook, or, in native bridges, from its own queries and keys."""
    layer, at = head
    prefix = f"blocks.{layer}.attn.hook_"
    seen = watch(model, tokens, [prefix + name for name in ("attn_scores", "q", "k")])
    scores, q, k = seen[prefix + "attn_scores"][:, at], seen[prefix + "q"], seen[prefix + "k"]
    if model.cfg.attn_only:  # the hook of native bridges holds the pattern
        scores = q[:, :, at] @ k[:, :, at].mT / model.cfg.d_head**0.5
    return scores


def naive_components(case: Case, tokens: Tensor, layer: int) -> dict[str, Tensor]:
    """What every component writes to the stream [batch, pos, d_model], float64, by label and without the biases."""
    model, d_head = case.bridge, case.bridge.cfg.d_head
    rotary = model.cfg.positional_embedding_type == "rotary"
    names = ["hook_embed"] if rotary else ["hook_embed", "hook_pos_embed"]
    labels = ["embed"] if rotary else ["tokens", "positions"]
    names += [] if model.cfg.attn_only else [f"blocks.{at}.hook_mlp_out" for at in range(layer)]
    labels += [] if model.cfg.attn_only else [f"MLP{at}" for at in range(layer)]
    seen = watch(model, tokens, names)
    parts = {label: seen[name].double() for label, name in zip(labels, names, strict=True)}
    z = case.run(tokens, None).z.double()
    for at in range(layer):
        for head in range(model.cfg.n_heads):
            W_O = case.output_weights[at][head * d_head : (head + 1) * d_head].double()
            parts[f"L{at}H{head}"] = z[at, :, :, head] @ W_O
    parts["bias"] = sum((b.double() for b in case.output_biases[:layer]), torch.zeros(1)).expand_as(parts[labels[0]])
    return parts


def naive_projections(case: Case, tokens: Tensor, head: Head, which: str) -> dict[str, Tensor]:
    """Q_i or K_j from unfolded weights, rotated pair by pair with angles of RoPE's formula."""
    model, (layer, at) = case.bridge, head
    norm, parts = model.blocks[layer].ln1, naive_components(case, tokens, layer)
    stream = sum(parts.values(), torch.zeros(()))
    W, b = getattr(model, f"W_{which}")[layer], getattr(model, f"b_{which}")[layer]
    at = at // (model.cfg.n_heads // W.shape[0])
    W, b = W[at].detach().double(), b[at].detach().double()
    is_layer_norm = model.cfg.normalization_type == "LN"

    def centred(x: Tensor) -> Tensor:
        return x - x.mean(-1, keepdim=True) if is_layer_norm else x

    scale = (centred(stream).square().mean(-1, keepdim=True) + model.cfg.eps).sqrt()
    projected = {label: (centred(x) / scale * norm.weight.detach().double()) @ W for label, x in parts.items()}
    if is_layer_norm:
        b = b + norm.bias.detach().double() @ W
    projected["bias"] = projected["bias"] + b
    return {label: naive_rotation(model, x) for label, x in projected.items()}


def naive_rotation(model: Any, x: Tensor) -> Tensor:
    if model.cfg.positional_embedding_type != "rotary":
        return x
    n = watch(model, torch.zeros(1, 1, dtype=torch.int64), ["blocks.0.attn.hook_cos"])["blocks.0.attn.hook_cos"].shape[
        -1
    ]
    out = x.clone()
    for pos in range(x.shape[-2]):
        for d in range(n // 2):
            angle = pos * 10000 ** (-2 * d / n)
            a, b = x[:, pos, d], x[:, pos, d + n // 2]
            out[:, pos, d] = a * math.cos(angle) - b * math.sin(angle)
            out[:, pos, d + n // 2] = a * math.sin(angle) + b * math.cos(angle)
    return out


@pytest.mark.parametrize("head", [(0, 1), (1, 2)])
def test_pairs_sum_to_the_scores_of_the_model(case: Case, tokens: Tensor, head: Head) -> None:
    parts = decompose_attention_scores(case.bridge, tokens, head)
    close(parts.total[:, CAUSAL], model_scores(case.bridge, tokens, head)[:, CAUSAL])
    assert not parts.values[..., ~CAUSAL].any()


@pytest.mark.parametrize("head", [(0, 0), (1, 1)])
def test_every_pair_is_that_of_the_naive_projections(case: Case, tokens: Tensor, head: Head) -> None:
    parts = decompose_attention_scores(case.bridge, tokens, head, weights=read_weights(case.bridge))
    queries, keys = (naive_projections(case, tokens, head, which) for which in "QK")
    assert parts.query_labels == parts.key_labels
    assert set(parts.query_labels) == set(queries)
    for i, query in enumerate(parts.query_labels):
        for j, key in enumerate(parts.key_labels):
            pair = queries[query] @ keys[key].mT / case.bridge.cfg.d_head**0.5
            close(parts.values[:, i, j], pair.tril().float())


def test_means_are_those_of_the_full_table(case: Case, tokens: Tensor) -> None:
    queries, keys = [4, 10, 7, 3], [1, 10, 0, 2]
    means = mean_score_parts(case.bridge, tokens, (1, 0), queries=queries, keys=keys, batch_size=2)
    full = decompose_attention_scores(case.bridge, tokens, (1, 0)).values
    close(means, torch.stack([full[..., q, k] for q, k in zip(queries, keys, strict=True)]).mean(0))


def test_labels_name_what_the_layer_reads(case: Case) -> None:
    model = case.bridge
    embeddings = ("embed",) if model.cfg.positional_embedding_type == "rotary" else ("tokens", "positions")
    heads = tuple(f"L0H{head}" for head in range(model.cfg.n_heads))
    assert score_labels(model, 0) == (*embeddings, "bias")
    assert score_labels(model, 1) == (*embeddings, *heads, *(() if model.cfg.attn_only else ("MLP0",)), "bias")


def test_partial_rotation_leaves_the_rest_and_lengths_alone() -> None:
    x = torch.randn(2, 1, 3, 6, generator=torch.Generator().manual_seed(0))
    angles = torch.tensor([[0.0, 0.0], [0.3, 0.7], [2.0, -1.0]]).repeat(1, 2)
    turned = rotate(x, angles.cos(), angles.sin())
    close(turned[..., 0, :], x[..., 0, :])
    assert torch.equal(turned[..., 4:], x[..., 4:])
    close(turned.norm(dim=-1), x.norm(dim=-1))


@pytest.mark.parametrize("head", INDUCTION_HEADS)
def test_keys_of_induction_heads_are_read_from_the_previous_token_head(shipped: Any, head: int) -> None:
    """K-composition with 0.6: what the right key has more of than other keys of the first copy.

    The query's token arrives through the heads of layer 0 that attend to their own token, not from the embedding.
    """
    model, length = shipped("attn-only-2l"), 20
    tokens = repeated_random_tokens(8, length, 1024, seed=0, bos=0)
    labels = score_labels(model, 1)
    first, second = range(2, length + 2), range(length + 1, 2 * length + 1)

    def means(right: bool) -> Tensor:
        pairs = [(query, key) for query in second for key in first if (key == query - length + 1) == right]
        queries, keys = zip(*pairs, strict=True)
        return mean_score_parts(model, tokens, (1, head), queries=queries, keys=keys).mean(0)

    more = means(True) - means(False)
    by_key = dict(zip(labels, more.sum(0).tolist(), strict=True))
    assert by_key["L0H6"] > 1.5 * max(value for label, value in by_key.items() if label != "L0H6")
    assert 0 < more[labels.index("tokens"), labels.index("L0H6")] < 0.1 * by_key["L0H6"]
    if head == 11:
        for table in (more, means(True)):
            query, key = divmod(int(table.argmax()), len(labels))
            assert (labels[query], labels[key]) == ("L0H3", "L0H6")  # 0.3 attends to its own token with 0.95


def test_scores_of_a_shipped_model(shipped: Any) -> None:
    model, tokens = shipped("attn-only-2l"), torch.arange(22).reshape(2, 11)
    total = decompose_attention_scores(model, tokens, (1, 5)).total
    close(total[:, CAUSAL], model_scores(model, tokens, (1, 5))[:, CAUSAL])


def test_bfloat16_model_is_read_in_float32(tokens: Tensor) -> None:
    parts = decompose_attention_scores(native_case(n_layers=2).bridge.to(torch.bfloat16), tokens, (1, 0))
    assert parts.values.dtype == torch.float32


def test_a_model_with_another_rule_is_refused(case: Case, tokens: Tensor, monkeypatch: pytest.MonkeyPatch) -> None:
    other = read_weights(case.bridge)
    other.W_K.mul_(-1)
    message = (
        r"softmax of the sums is .* off the pattern of head \(1, 0\): expected causal scores q \. k / sqrt\(d_head\)"
    )
    with pytest.raises(ValueError, match=message):
        decompose_attention_scores(case.bridge, tokens, (1, 0), weights=other)
    if case.bridge.cfg.positional_embedding_type == "rotary":
        monkeypatch.setattr("circuits.score_decomposition.rotate", lambda x, cos, sin: rotate(x, cos, -sin))
        with pytest.raises(ValueError, match="rotary dimensions d and d \\+ n/2 turned together"):
            mean_score_parts(case.bridge, tokens, (1, 0), queries=[3], keys=[1])


def test_embeddings_that_do_not_make_the_stream_are_refused(tokens: Tensor) -> None:
    model = native_case(n_layers=2).bridge
    double = lambda value, hook: 2 * value  # noqa: E731
    message = (
        r"hook_embed \+ hook_pos_embed is .* off blocks\.0\.hook_resid_pre: expected a stream that starts as their"
    )
    with model.hooks(fwd_hooks=[("blocks.0.hook_resid_pre", double)]), pytest.raises(ValueError, match=message):
        decompose_attention_scores(model, tokens, (0, 0))


def test_bad_input_is_refused(native: Case, tokens: Tensor) -> None:
    with pytest.raises(ValueError, match=r"head \(3, 0\) does not exist"):
        decompose_attention_scores(native.bridge, tokens, (3, 0))
    with pytest.raises(ValueError, match=r"tokens\[0, 0\] is -1"):
        mean_score_parts(native.bridge, tokens - 1 - tokens, (0, 0), queries=[1], keys=[0])
    with pytest.raises(ValueError, match="2 queries and 1 keys: expected as many of both, at least one"):
        mean_score_parts(native.bridge, tokens, (0, 0), queries=[1, 2], keys=[0])
    for query, key in [(1, 2), (11, 0), (3, -1)]:
        with pytest.raises(ValueError, match=rf"query {query} with key {key}: expected 0 <= key <= query <= 10 "):
            mean_score_parts(native.bridge, tokens, (0, 0), queries=[query], keys=[key])

"""Path patching against plain hooks on every architecture, and against GPT-2 written out in this file."""

from __future__ import annotations

import copy
from collections.abc import Mapping
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.nn import functional

from interventions.attention_only import AttentionOnlyConfig, AttentionOnlyNetwork
from interventions.metrics import custom, token_logit
from interventions.path_patching import path_patch
from interventions.prompts import Prompts, as_prompts
from interventions.receivers import FinalStream, HeadInputs, Receivers

from .conftest import NETWORKS, random_network, same_weights

RECEIVERS: tuple[Receivers, ...] = (
    FinalStream(),
    HeadInputs([(1, 0), (2, 1), (2, 3)], "q"),
    HeadInputs([(1, 2), (1, 3), (2, 0), (2, 1)], "k"),
    HeadInputs([(2, 0), (2, 1)], "v"),
)
SENDERS = [(0, 1), (0, 2), (1, 0), (1, 3), (2, 2)]


def prompts_like(lengths: tuple[int, ...], *, seed: int) -> Prompts:
    generator = torch.Generator().manual_seed(seed)
    return as_prompts([torch.randint(1, 37, (n,), generator=generator).tolist() for n in lengths])


@pytest.mark.parametrize("through_mlps", [True, False])
@pytest.mark.parametrize("name", NETWORKS)
def test_branches_equal_three_steps_with_hooks(name: str, through_mlps: bool) -> None:
    network = random_network(name)
    padded, whole = (7, 5), (6, 6)
    for receivers, lengths, positions in (
        *((receivers, padded, None) for receivers in RECEIVERS),
        (RECEIVERS[1], padded, (-1, -3)),
        (RECEIVERS[2], whole, None),
        (RECEIVERS[2], whole, (-3,)),
        (HeadInputs([(1, 2), (1, 3), (2, 0), (2, 1)], "v"), padded, (-2, -4)),
        (HeadInputs([(2, 1), (2, 2)], "q"), padded, None),
    ):
        prompts, source = prompts_like(lengths, seed=0), prompts_like(lengths, seed=1)
        metric = token_logit(torch.tensor([3, 4]))
        options: dict[str, Any] = {"receivers": receivers, "positions": positions, "through_mlps": through_mlps}
        options["senders"] = SENDERS
        fast = path_patch(network, prompts, source, metric, **options)
        slow = path_patch(network, prompts, source, metric, method="oracle", **options)
        torch.testing.assert_close(fast.values, slow.values, atol=1e-4, rtol=0, msg=f"{receivers} {positions}")
        assert slow.effects.abs().max() > 5e-3, "a path without effect shows nothing"


@pytest.mark.parametrize("through_mlps", [True, False])
def test_senders_cost_the_mlps_at_the_positions_that_are_patched(through_mlps: bool) -> None:
    network = random_network("gpt2")
    rows: list[int] = []
    handle = network.transformer.h[0].mlp.register_forward_pre_hook(lambda _, args: rows.append(args[0].shape[1]))
    queries: list[int] = []
    projection = network.transformer.h[0].attn.c_attn
    other = projection.register_forward_pre_hook(lambda _, args: queries.append(args[0].shape[1]))
    prompts, source = prompts_like((6, 6), seed=0), prompts_like((6, 6), seed=1)
    try:
        path_patch(
            network,
            prompts,
            source,
            token_logit(torch.tensor([3, 4])),
            receivers=RECEIVERS[3],
            positions=(-4,),
            through_mlps=through_mlps,
        )
    finally:
        handle.remove()
        other.remove()
    # Of the source and of the prompts; and four senders at one position each, before receivers that branch later.
    assert rows == ([6, 6, 4] if through_mlps else [6, 6])
    assert queries == [6, 6]


Cache = dict[tuple[str, int], Tensor]


def gpt2_by_hand(
    network: Any, tokens: Tensor, put: Mapping[tuple[str, int], tuple[slice | int, Tensor]]
) -> tuple[Tensor, Cache]:
    """Logits at the last token in float64, and z, q, k, v and mlp by layer; `put`: (heads, what takes their place)."""
    w = {name.removeprefix("transformer."): x.double() for name, x in network.state_dict().items()}
    cache: Cache = {}

    def site(name: str, layer: int, x: Tensor) -> Tensor:
        if (name, layer) in put:
            heads, new = put[name, layer]
            x = x.clone()
            x[:, :, heads] = new[:, :, heads]
        cache[name, layer] = x
        return x

    def norm(name: str, x: Tensor) -> Tensor:
        return functional.layer_norm(x, x.shape[-1:], w[f"{name}.weight"], w[f"{name}.bias"], 1e-5)

    def linear(name: str, x: Tensor) -> Tensor:
        y: Tensor = x @ w[f"{name}.weight"] + w[f"{name}.bias"]
        return y

    length = tokens.shape[1]
    later = torch.ones(length, length, dtype=torch.bool).triu(1)
    x = w["wte.weight"][tokens] + w["wpe.weight"][:length]
    for layer in range(len(network.transformer.h)):
        parts = linear(f"h.{layer}.attn.c_attn", norm(f"h.{layer}.ln_1", x)).chunk(3, dim=-1)
        q, k, v = (
            site(part, layer, y.unflatten(-1, (4, 8)))  # type: ignore[no-untyped-call]
            for part, y in zip("qkv", parts, strict=True)
        )
        scores = torch.einsum("bqhd,bkhd->bhqk", q, k) / 8**0.5
        z = torch.einsum("bhqk,bkhd->bqhd", scores.masked_fill(later, -torch.inf).softmax(-1), v)
        x = x + linear(f"h.{layer}.attn.c_proj", site("z", layer, z).flatten(-2))
        hidden = functional.gelu(linear(f"h.{layer}.mlp.c_fc", norm(f"h.{layer}.ln_2", x)), approximate="tanh")
        x = x + site("mlp", layer, linear(f"h.{layer}.mlp.c_proj", hidden))
    logits: Tensor = norm("ln_f", x)[:, -1] @ w["wte.weight"].T
    return logits, cache


@pytest.mark.parametrize("through_mlps", [True, False])
@pytest.mark.parametrize(
    "receivers",
    [
        FinalStream(),
        HeadInputs([(2, 3)], "q"),
        *(HeadInputs([(1, 2), (2, 0)], into) for into in ("q", "k", "v")),
    ],
)
def test_gpt2_equals_path_patching_written_out(receivers: Receivers, through_mlps: bool) -> None:
    network = random_network("gpt2")
    prompts, source = prompts_like((6, 6), seed=0), prompts_like((6, 6), seed=1)
    clean, original = gpt2_by_hand(network, prompts.tokens, {})
    _, corrupted = gpt2_by_hand(network, source.tokens, {})
    expected = torch.full((2, 3, 4), torch.nan, dtype=torch.float64)
    held = ("z",) if through_mlps else ("z", "mlp")
    frozen = {site: (slice(None), x) for site, x in original.items() if site[0] in held}
    for layer in range(3):
        for head in range(4):
            z = original["z", layer].clone()
            z[:, :, head] = corrupted["z", layer][:, :, head]
            logits, seen = gpt2_by_hand(network, prompts.tokens, {**frozen, ("z", layer): (slice(None), z)})
            if isinstance(receivers, HeadInputs):
                # The second receiver's input is that of the frozen pass, not what the first receiver makes of it.
                put = {(str(receivers.into), at): (one, seen[receivers.into, at]) for at, one in receivers.heads}
                logits, _ = gpt2_by_hand(network, prompts.tokens, put)
            expected[:, layer, head] = logits[:, 5]
    metric = token_logit(torch.tensor([5, 5]))
    result = path_patch(network, prompts, source, metric, receivers=receivers, through_mlps=through_mlps)
    torch.testing.assert_close(result.clean.double(), clean[:, 5], atol=1e-5, rtol=0)
    torch.testing.assert_close(result.values.double(), expected, atol=1e-5, rtol=0)
    assert (expected - clean[:, 5, None, None]).abs().max() > 1e-2


def test_attention_only_network() -> None:
    shape = {"num_hidden_layers": 3, "hidden_size": 32, "num_attention_heads": 4, "head_dim": 8}
    config = AttentionOnlyConfig(vocab_size=37, max_position_embeddings=64, **shape)
    network = AttentionOnlyNetwork._from_config(config).eval()
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for parameter in network.parameters():
            parameter.add_(0.3 * torch.randn(parameter.shape, generator=generator))
    prompts, source = prompts_like((6, 6), seed=0), prompts_like((6, 6), seed=1)
    metric = token_logit(torch.tensor([3, 4]))
    for receivers in RECEIVERS:
        slow = path_patch(network, prompts, source, metric, receivers=receivers, method="oracle")
        assert slow.effects.abs().max() > 5e-3
        for through in (True, False):
            fast = path_patch(network, prompts, source, metric, receivers=receivers, through_mlps=through)
            torch.testing.assert_close(fast.values, slow.values, atol=1e-4, rtol=0)


def test_only_chosen_senders_before_the_receivers_have_an_effect() -> None:
    network = random_network("llama")
    prompts, source = prompts_like((6,), seed=0), prompts_like((6,), seed=1)
    metric, receivers = token_logit(torch.tensor([3])), HeadInputs([(2, 1)], "q")
    whole = path_patch(network, prompts, source, metric, receivers=receivers)
    assert whole.axes == ("layer", "head")
    assert whole.coordinates == {"layer": (0, 1, 2), "head": (0, 1, 2, 3)}
    assert (whole.effects[:, :2] != 0).all()
    assert (whole.effects[:, 2] == 0).all()
    some = path_patch(network, prompts, source, metric, receivers=receivers, senders=[(1, 3), (0, 2), (2, 0)])
    expected = torch.zeros(1, 3, 4)
    for sender in ((1, 3), (0, 2)):
        expected[0, *sender] = whole.effects[0, *sender]
    torch.testing.assert_close(some.effects, expected, atol=1e-5, rtol=0)


def test_budget_and_batches_change_nothing_and_progress_counts_senders() -> None:
    network = random_network("mistral")
    prompts, source = prompts_like((6, 6, 6), seed=0), prompts_like((6,), seed=1)
    metric, receivers = token_logit(torch.tensor([3, 4, 5])), HeadInputs([(1, 0), (2, 1)], "q")
    whole = path_patch(network, prompts, source, metric, receivers=receivers)
    seen: list[tuple[int, int]] = []
    options: dict[str, Any] = {"batch_size": 2, "budget": 1, "progress": lambda *counts: seen.append(counts)}
    parts = path_patch(network, prompts, source, metric, receivers=receivers, **options)
    torch.testing.assert_close(parts.values, whole.values, atol=1e-5, rtol=0)
    assert seen == [(done, 16) for done in range(1, 17)]


@pytest.mark.parametrize("receivers", RECEIVERS[:2])
def test_no_difference_of_the_source_is_no_effect(receivers: Receivers) -> None:
    network = random_network("gpt2")
    prompts = prompts_like((6, 6), seed=0)
    metric = token_logit(torch.tensor([3, 4]))
    assert (path_patch(network, prompts, prompts, metric, receivers=receivers).effects == 0).all()
    other = Prompts(torch.cat([prompts.tokens[:, :3], prompts_like((6, 6), seed=1).tokens[:, 3:]], dim=1))
    same = path_patch(network, prompts, other, metric, receivers=receivers, positions=(-4, -5))
    assert (same.effects == 0).all()


def test_the_network_is_left_as_it_was_also_by_an_exception() -> None:
    network = copy.deepcopy(random_network("gptj"))
    before, implementation = copy.deepcopy(network.state_dict()), network.config._attn_implementation
    prompts, source = prompts_like((6,), seed=0), prompts_like((6,), seed=1)
    calls = []

    def fails(logits: Tensor) -> Tensor:
        calls.append(logits)
        if len(calls) > 1:
            raise KeyboardInterrupt
        return logits[..., 0]

    for receivers in RECEIVERS:
        calls.clear()
        path_patch(network, prompts, source, token_logit(torch.tensor([3])), receivers=receivers)
        with pytest.raises(KeyboardInterrupt):
            path_patch(network, prompts, source, custom("fails", fails), receivers=receivers)
    assert same_weights(network, before)
    assert network.config._attn_implementation == implementation
    assert not any(module._forward_hooks or module._forward_pre_hooks for module in network.modules())
    assert not any("_attn" in vars(module) for module in network.modules())
    assert torch.is_grad_enabled()


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"receivers": HeadInputs([(2, 1)], "k")}, r"receiver \(2, 1\): heads 0 to 1 of layer 2 share one k: expected"),
        ({"receivers": HeadInputs([(0, 1)], "q")}, "layer 0 alone: no head comes before them"),
        ({"receivers": HeadInputs([(3, 1)], "q")}, r"receiver \(3, 1\) does not exist: expected .* layers 0 to 2"),
        ({"receivers": HeadInputs([], "q")}, "expected at least one head, each once"),
        ({"senders": [(0, 4)]}, r"sender \(0, 4\) does not exist: expected .*heads 0 to 3"),
        (
            {"senders": [(2, 0)]},
            "none is before the receivers; expected heads in layers below 2",
        ),
        ({"positions": (-7,)}, "position -7 is not in every prompt"),
        ({"source": prompts_like((5, 5), seed=1)}, "source prompts have 5 tokens, the prompts 6"),
        ({"metric": token_logit(torch.tensor([3]))}, "has tokens for 1 prompts: expected 2"),
        ({"batch_size": 0}, "batch_size 0: expected at least 1"),
    ],
)
def test_what_does_not_fit_is_refused_before_anything_runs(options: dict[str, Any], message: str) -> None:
    network = random_network("llama")
    ran: list[Any] = []
    handle = network.base_model.register_forward_pre_hook(lambda *_: ran.append(1))
    given = {
        "source": prompts_like((6, 6), seed=1),
        "metric": token_logit(torch.tensor([3, 4])),
        "receivers": HeadInputs([(2, 1)], "q"),
    }
    try:
        with pytest.raises(Exception, match=message):
            path_patch(network, prompts_like((6, 6), seed=0), **{**given, **options})
    finally:
        handle.remove()
    assert not ran

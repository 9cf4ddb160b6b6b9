"""What hooks are told of a call, against what the caller passed: padding on either side, with and without cache."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor
from transformers import StaticCache

from interventions.calls import Call, hooked

from .conftest import random_network, same_weights

TOKENS = torch.randint(1, 37, (2, 6), generator=torch.Generator().manual_seed(3))
LEFT = torch.tensor([[0, 0, 1, 1, 1, 1], [1, 1, 1, 1, 1, 1]])
RIGHT = torch.tensor([[1, 1, 1, 1, 0, 0], [1, 1, 1, 1, 1, 1]])
FOUR = ("gpt2", "llama", "gpt_neox", "opt")


class Watch:
    """A hook that keeps the calls that it is told of, and changes nothing."""

    def __init__(self) -> None:
        self.calls: list[Call] = []

    def __call__(self, x: Tensor, call: Call) -> None:
        assert x.shape[:2] == (call.batch, call.length)
        self.calls.append(call)


@torch.no_grad()
def watched(network: Any, *passes: dict[str, Any]) -> list[Call]:
    """The calls of passes that each go on with the cache of the one before if `follow` is in them."""
    watch, cache = Watch(), None
    with hooked(network, {("resid_post", 1): watch}):
        for options in passes:
            given = {name: value for name, value in options.items() if name != "follow"}
            cache = network(past_key_values=cache if "follow" in options else None, use_cache=True, **given)
            cache = cache.past_key_values
    return watch.calls


@pytest.mark.parametrize("name", FOUR)
@pytest.mark.parametrize(("mask", "rows"), [(LEFT, [-1, -1, 0, 1, 2, 3]), (RIGHT, [0, 1, 2, 3, -1, -1])])
def test_rows_count_real_tokens_on_either_side(name: str, mask: Tensor, rows: list[int]) -> None:
    (call,) = watched(random_network(name), {"input_ids": TOKENS, "attention_mask": mask})
    assert (call.batch, call.length, call.cached, call.first) == (2, 6, 0, True)
    assert call.rows.tolist() == [rows, [0, 1, 2, 3, 4, 5]]
    assert call.prompt.lengths.tolist() == [4, 6]
    assert (call.prompt.columns, call.prompt.shortest) == (6, 4)


def test_without_a_mask_all_tokens_are_real() -> None:
    first, second = watched(random_network("gpt2"), {"input_ids": TOKENS}, {"input_ids": TOKENS[:, :2], "follow": True})
    assert first.real is None
    assert first.rows.tolist() == [[0, 1, 2, 3, 4, 5]]
    assert first.prompt.lengths.tolist() == [6]
    assert second.rows.tolist() == [[6, 7]]
    assert (second.cached, second.first, second.prompt) == (6, False, first.prompt)


@pytest.mark.parametrize("name", FOUR)
def test_later_calls_of_generate_follow_the_prompt(name: str) -> None:
    network, watch = random_network(name), Watch()
    with hooked(network, {("resid_pre", 0): watch}):
        network.generate(TOKENS, attention_mask=LEFT, max_new_tokens=4, do_sample=False, eos_token_id=None)
    assert [call.length for call in watch.calls] == [6, 1, 1, 1]
    assert [call.cached for call in watch.calls] == [0, 6, 7, 8]
    assert [call.first for call in watch.calls] == [True, False, False, False]
    assert [call.rows.tolist() for call in watch.calls[1:]] == [[[4], [6]], [[5], [7]], [[6], [8]]]
    assert all(call.prompt is watch.calls[0].prompt for call in watch.calls)


def test_the_masks_that_generate_makes_for_static_caches_say_the_same() -> None:
    network, watch = random_network("llama"), Watch()
    with hooked(network, {("resid_pre", 0): watch}):
        cache = StaticCache(config=network.config, max_cache_len=16)
        options = {"do_sample": False, "eos_token_id": None, "past_key_values": cache}
        network.generate(TOKENS, attention_mask=LEFT, max_new_tokens=3, **options)
    assert [call.rows.tolist() for call in watch.calls] == [
        [[-1, -1, 0, 1, 2, 3], [0, 1, 2, 3, 4, 5]],
        [[4], [6]],
        [[5], [7]],
    ]
    assert watch.calls[0].prompt.lengths.tolist() == [4, 6]


def test_a_call_that_does_not_follow_begins_a_new_text() -> None:
    network = random_network("gpt2")
    one, two, three, four = watched(
        network,
        {"input_ids": TOKENS},
        {"input_ids": TOKENS[:, :1], "follow": True},
        {"input_ids": TOKENS[:1, :3]},
        {"input_ids": TOKENS[:1, :1], "follow": True},
    )
    assert [call.first for call in (one, two, three, four)] == [True, False, True, False]
    assert (three.prompt.columns, four.prompt) == (3, three.prompt)


@torch.no_grad()
@pytest.mark.parametrize("other", [TOKENS[:1], TOKENS[:, :3]])
def test_a_cache_of_other_rows_or_a_shorter_one_is_of_another_text(other: Tensor) -> None:
    network, watch = random_network("gpt2"), Watch()
    cache = network(other, use_cache=True).past_key_values
    with hooked(network, {("resid_post", 2): watch}):
        network(TOKENS)
        network(other[:, :1], past_key_values=cache)
        network(other[:, :1], past_key_values=cache)
    assert [call.first for call in watch.calls] == [True, True, False]
    assert watch.calls[1].prompt.columns == watch.calls[2].prompt.columns == other.shape[1] + 1


@torch.no_grad()
def test_a_cache_that_was_filled_outside_is_part_of_the_prompt() -> None:
    network, watch = random_network("llama"), Watch()
    cache = network(TOKENS, attention_mask=LEFT, use_cache=True).past_key_values
    mask = torch.cat([LEFT, torch.ones(2, 2, dtype=torch.long)], dim=1)
    with hooked(network, {("resid_post", 2): watch}):
        network(TOKENS[:, :2], attention_mask=mask, past_key_values=cache)
    (call,) = watch.calls
    assert (call.first, call.cached, call.prompt.columns) == (True, 6, 8)
    assert call.prompt.lengths.tolist() == [6, 8]
    assert call.rows.tolist() == [[4, 5], [6, 7]]


def test_embeddings_and_the_base_model_alone_will_do() -> None:
    network = random_network("llama")
    (call,) = watched(network, {"inputs_embeds": network.get_input_embeddings()(TOKENS)})
    assert (call.batch, call.length) == (2, 6)
    watch = Watch()
    with torch.no_grad(), hooked(network, {("resid_post", 0): watch}):
        network.base_model(TOKENS, LEFT)
    assert watch.calls[0].prompt.lengths.tolist() == [4, 6]


@torch.no_grad()
def test_what_a_hook_gives_stands_there() -> None:
    network = random_network("gpt2")
    vector = torch.linspace(-1, 1, 32)

    def plain(module: Any, args: Any, output: Any) -> Any:
        x = (output[0] if isinstance(output, tuple) else output).clone()
        x[:, :2] += vector
        return (x, *output[1:]) if isinstance(output, tuple) else x

    with network.transformer.h[1].register_forward_hook(plain):
        expected = network(TOKENS, use_cache=False).logits
    with hooked(network, {("resid_post", 1): lambda x, call: x + vector * (call.rows < 2)[..., None]}):
        actual = network(TOKENS, use_cache=False).logits
    assert torch.equal(actual, expected)


@torch.no_grad()
def test_nothing_is_left_after_an_exception() -> None:
    network = random_network("gpt2")
    before = {name: tensor.clone() for name, tensor in network.state_dict().items()}
    clean = network(TOKENS, use_cache=False).logits
    traces = [(sorted(vars(m)), list(m._forward_hooks), list(m._forward_pre_hooks)) for m in network.modules()]

    def fail(x: Tensor, call: Call) -> Tensor:
        raise KeyError("on purpose")

    with pytest.raises(KeyError), hooked(network, {("resid_post", 1): fail}):
        network(TOKENS)
    assert [(sorted(vars(m)), list(m._forward_hooks), list(m._forward_pre_hooks)) for m in network.modules()] == traces
    assert same_weights(network, before)
    assert torch.equal(network(TOKENS, use_cache=False).logits, clean)

    def fail_once(x: Tensor, call: Call) -> None:
        if x.shape[1] == 6:
            raise KeyError("on purpose")

    with hooked(network, {("resid_post", 1): fail_once}):
        with pytest.raises(KeyError):
            network(TOKENS)
        with pytest.raises(RuntimeError, match="outside a call of its network"):
            network.transformer.h[1](torch.zeros(1, 2, 32))
        network(TOKENS[:, :4])


def test_bad_input_is_named() -> None:
    network = random_network("gpt2")
    with pytest.raises(ValueError, match=r"component 'z' has no hooks by call: expected one of resid_pre"):
        hooked(network, {("z", 1): Watch()}).__enter__()
    with pytest.raises(ValueError, match="layer 3 does not exist: expected 0 to 2"):
        hooked(network, {("resid_post", 3): Watch()}).__enter__()
    short = watched(network, {"input_ids": TOKENS})[0]
    assert short.real is None
    call = Call(2, 1, 6, LEFT, TOKENS.device)
    with pytest.raises(
        ValueError, match=r"attention_mask: shape \(2, 6\): expected \[2, 7\], all columns of the cache"
    ):
        _ = call.rows
    with pytest.raises(ValueError, match=r"attention_mask: str: expected \[2, 7\]"):
        _ = Call(2, 1, 6, "causal", TOKENS.device).rows

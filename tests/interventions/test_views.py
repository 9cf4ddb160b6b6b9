"""One copy of the weights: the network, its TransformerLens bridge and its nnsight view, against one another."""

from __future__ import annotations

import copy
import importlib
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
import torch
from torch import Tensor

from interventions import ModelError
from interventions.loading import Model, load, set_weights

from .conftest import NETWORKS, random_network, same_weights

COPIED = ("gpt_neox",)


def model_of(name: str) -> Model:
    """A model around a network of its own."""
    return Model(name, copy.deepcopy(random_network(name)), None, 0)


def tokens_of(model: Model) -> Tensor:
    return torch.randint(1, model.d_vocab, (2, 11), generator=torch.Generator().manual_seed(2))


def logits(model: Model, tokens: Tensor) -> Tensor:
    with torch.no_grad():
        output: Tensor = model.network(tokens, use_cache=False).logits
    return output


def bridge_logits(model: Model, tokens: Tensor) -> Tensor:
    with torch.no_grad():
        output: Tensor = model.bridge(tokens)
    return output


def storages(network: Any) -> set[int]:
    return {tensor.untyped_storage().data_ptr() for tensor in (*network.parameters(), *network.buffers())}


def scaled(state: dict[str, Tensor]) -> dict[str, Tensor]:
    """Other weights of the same shapes."""
    return {name: 0.9 * tensor.clone() for name, tensor in state.items()}


@pytest.mark.parametrize("name", NETWORKS)
def test_a_bridge_has_the_logits_of_the_network_and_leaves_it_alone(name: str) -> None:
    model = model_of(name)
    tokens, modules = tokens_of(model), [id(module) for module in model.network.modules()]
    before, expected = {k: v.clone() for k, v in model.network.state_dict().items()}, logits(model, tokens)
    model.network.config._attn_implementation = "sdpa"
    torch.testing.assert_close(bridge_logits(model, tokens), expected, rtol=0, atol=1e-5)
    assert (model.n_ctx, model.d_vocab) == (model.bridge.cfg.n_ctx, model.bridge.cfg.d_vocab)
    assert [id(module) for module in model.network.modules()] == modules
    assert same_weights(model.network, before)
    assert model.network.config._attn_implementation == "sdpa"


@pytest.mark.parametrize("name", NETWORKS)
def test_a_bridge_has_no_weights_of_its_own(name: str) -> None:
    model = model_of(name)
    foreign = [
        n for n, p in model.bridge.named_parameters() if p.untyped_storage().data_ptr() not in storages(model.network)
    ]
    assert bool(foreign) == (name in COPIED)
    assert all(".attention." in parameter and parameter.split(".")[-3] in "qkv" for parameter in foreign)


@pytest.mark.parametrize("name", NETWORKS)
def test_a_weight_changed_in_place_is_changed_in_the_bridge(name: str) -> None:
    model = model_of(name)
    tokens = tokens_of(model)
    before = bridge_logits(model, tokens)
    with torch.no_grad():
        for parameter in model.network.parameters():
            parameter.mul_(0.9)
    after = logits(model, tokens)
    assert (after - before).abs().max() > 0.01
    torch.testing.assert_close(bridge_logits(model, tokens), after, rtol=0, atol=1e-5)


@pytest.mark.parametrize("name", NETWORKS)
@pytest.mark.parametrize("names_of", ["bridge", "network"])
def test_set_weights_reaches_the_network_and_the_bridge(name: str, names_of: str) -> None:
    model, other = model_of(name), model_of(name)
    tokens, bridge = tokens_of(model), model.bridge
    state = scaled((model.bridge if names_of == "bridge" else model.network).state_dict())
    with torch.no_grad():
        for parameter in other.network.parameters():
            parameter.mul_(0.9)
    set_weights(model, state)
    assert model.bridge is bridge
    for ours, expected in zip(model.network.parameters(), other.network.parameters(), strict=True):
        assert torch.equal(ours, expected)
    torch.testing.assert_close(bridge_logits(model, tokens), logits(other, tokens), rtol=0, atol=1e-5)


@pytest.mark.parametrize("name", ["gpt2", "gpt_neox"])
@pytest.mark.parametrize("names_of", ["bridge", "network"])
def test_weights_that_do_not_fit_change_nothing(name: str, names_of: str) -> None:
    model = model_of(name)
    before = {k: v.clone() for k, v in model.network.state_dict().items()}
    state = scaled((model.bridge if names_of == "bridge" else model.network).state_dict())
    name_of = list(state)[5]  # not a tied one
    for damaged in (
        {**state, name_of: torch.zeros(3, 3, 3)},
        {k: v for k, v in state.items() if k != name_of},
        {**state, "x": torch.zeros(1)},
    ):
        with pytest.raises(ModelError, match=f"{name}: weights do not fit") as caught:
            set_weights(model, damaged)
        assert "\n" not in str(caught.value)
        assert same_weights(model.network, before)


def test_a_tied_weight_need_not_be_given_twice() -> None:
    model = model_of("gpt2")
    state = scaled(model.network.state_dict())
    del state["lm_head.weight"]
    set_weights(model, state)
    assert torch.equal(model.network.lm_head.weight, state["transformer.wte.weight"])


def test_an_attention_only_bridge_shares_every_weight(folder: Path, tokens: Tensor) -> None:
    model = load(folder)
    torch.testing.assert_close(bridge_logits(model, tokens), logits(model, tokens), rtol=0, atol=1e-5)
    ours = {tensor.data_ptr() for tensor in model.network.state_dict().values()}
    assert {tensor.data_ptr() for tensor in model.bridge.state_dict().values()} == ours
    with torch.no_grad():
        for parameter in model.network.parameters():
            parameter.mul_(0.9)
    torch.testing.assert_close(bridge_logits(model, tokens), logits(model, tokens), rtol=0, atol=1e-5)
    set_weights(model, scaled(model.bridge.state_dict()))
    torch.testing.assert_close(bridge_logits(model, tokens), logits(model, tokens), rtol=0, atol=1e-5)


@pytest.mark.parametrize("name", ["gpt2", "llama", "gpt_neox"])
def test_folding_a_bridge_leaves_the_network_alone(name: str) -> None:
    model = model_of(name)
    before = {k: v.clone() for k, v in model.network.state_dict().items()}
    model.bridge.enable_compatibility_mode()
    assert same_weights(model.network, before)


def test_loading_does_not_import_transformer_lens(folder: Path) -> None:
    code = f"import sys, interventions; interventions.load({str(folder)!r}); print('transformer_lens' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "False"


def test_a_missing_nnsight_is_one_line(monkeypatch: pytest.MonkeyPatch) -> None:
    found: Callable[..., ModuleType] = importlib.import_module

    def missing(name: str, package: str | None = None) -> ModuleType:
        if name == "nnsight":
            raise ModuleNotFoundError(name)
        return found(name, package)

    monkeypatch.setattr("interventions.views.import_module", missing)
    with pytest.raises(ModelError, match=r"gpt2: nnsight is not installed; pip install") as caught:
        _ = model_of("gpt2").nnsight
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("name", ["gpt2", "llama", "attention_only"])
def test_nnsight_has_exactly_the_logits_of_the_network(name: str, folder: Path) -> None:
    pytest.importorskip("nnsight")
    model = load(folder) if name == "attention_only" else model_of(name)
    tokens = tokens_of(model)
    view = model.nnsight
    with torch.no_grad():
        for parameter in model.network.parameters():
            parameter.mul_(0.9)
        with view.trace(tokens, use_cache=False):
            seen = view.output.logits.save()
    assert torch.equal(seen, logits(model, tokens))
    assert model.nnsight is view
    assert not any("forward" in vars(module) for module in model.network.modules())

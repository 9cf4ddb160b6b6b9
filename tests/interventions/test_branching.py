"""Branches themselves, what sweeps refuse, and what an interrupted sweep leaves behind: nothing."""

from __future__ import annotations

import copy
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from interventions.branching import run_branches, run_shared
from interventions.edits import Apply, Edit, Replace, Zero
from interventions.hooks import Modules, attached
from interventions.metrics import custom, token_logit
from interventions.network import first_stream, inference, unembed
from interventions.prompts import as_prompts
from interventions.sweeps import sweep

from .conftest import NETWORKS, random_network

GENERATOR = torch.Generator().manual_seed(0)
PROMPTS = as_prompts(torch.randint(1, 37, (2, 6), generator=GENERATOR))
OTHERS = as_prompts(torch.randint(1, 37, (2, 6), generator=GENERATOR))
METRIC = token_logit(torch.tensor([3, 5]))


@pytest.mark.parametrize("name", NETWORKS)
def test_branches_without_edits_are_the_prompt(name: str) -> None:
    """Whatever the start and the layer of entry: the logits of the unedited model, called as a user calls it."""
    network = random_network(name)
    with inference(network):
        logits = network(PROMPTS.tokens).logits[:, -1]
        shared = run_shared(Modules(network), PROMPTS)
        torch.testing.assert_close(unembed(shared.modules, shared.last), logits, atol=1e-4, rtol=0)
        for start in (0, 3, 5):
            for entering in ([0, 0, 1, 2], [0, 0, 1]):  # of the last layer all rows, or the last row alone
                branches = unembed(shared.modules, run_branches(shared, start, entering, {}))
                torch.testing.assert_close(branches, logits[:, None].expand_as(branches), atol=1e-4, rtol=0)


@pytest.mark.parametrize("name", NETWORKS)
def test_a_pass_that_ends_at_the_last_attention_leaves_what_a_whole_one_leaves(name: str) -> None:
    network = random_network(name)
    with inference(network):
        part, whole = (run_shared(Modules(network), PROMPTS, whole=whole) for whole in (False, True))
        assert part.final is None
        assert whole.final is not None
        torch.testing.assert_close(part.last, whole.last, atol=1e-5, rtol=0)
    for name_of in ("keys", "values", "stream"):
        pairs = zip(getattr(part, name_of), getattr(whole, name_of), strict=True)
        assert all(torch.equal(ours, theirs) for ours, theirs in pairs), name_of


@pytest.mark.parametrize("name", NETWORKS)
def test_a_layer_behind_known_attention_is_that_of_an_ordinary_pass(name: str) -> None:
    """z is another one than the prompt's; at all positions in an ordinary pass, and at two of them behind attention."""
    network = random_network(name)
    modules, at = Modules(network), torch.tensor([4, 1])
    with inference(network):
        shared = run_shared(modules, PROMPTS)
        assert torch.equal(first_stream(modules, PROMPTS), shared.stream[0])
        z = torch.randn(2, 6, modules.n_heads, 8, generator=GENERATOR)
        seen: list[Tensor] = []
        with attached(modules, {("z", 1): lambda _: z, ("resid_post", 1): seen.append}):
            network(PROMPTS.tokens)
        written = shared.replay.written(1, z[:, at])
        rows = shared.replay.behind_written(1, shared.stream[1][:, at], at, written)
        torch.testing.assert_close(rows, seen[0][:, at], atol=1e-5, rtol=1e-5)
        again = shared.replay.again(0, shared.stream[0]) if name == "gpt2" else shared.stream[1]
        torch.testing.assert_close(again, shared.stream[1], atol=1e-5, rtol=1e-5)


def test_attention_is_as_it_was_behind_a_layer_that_is_interrupted() -> None:
    network = random_network("gpt2")
    modules = Modules(network)
    with inference(network):
        shared = run_shared(modules, PROMPTS)
        stream, positions = shared.stream[1], torch.arange(6)
        with pytest.raises(KeyboardInterrupt), attached(modules, {("mlp_out", 1): _interrupt}):
            shared.replay.behind_written(1, stream, positions, stream)
    assert all("forward" not in modules.attention(layer).__dict__ for layer in range(3))


def test_branches_that_enter_need_no_queries_keys_and_values_of_their_own() -> None:
    network = random_network("gpt2")
    rows: list[int] = []
    handle = network.transformer.h[1].attn.c_attn.register_forward_pre_hook(lambda _, x: rows.append(x[0].shape[1]))
    try:
        sweep(network, PROMPTS, Zero(), METRIC, component="z", over=("layer",), positions=(-4,))
    finally:
        handle.remove()
    assert rows == [6, 4]  # the prompt's own, and the rows of the branch that entered before


def test_of_the_last_layer_only_the_last_row_is_computed_behind_attention() -> None:
    network = random_network("gpt2")
    rows: list[int] = []
    handle = network.transformer.h[2].mlp.register_forward_pre_hook(lambda _, args: rows.append(args[0].shape[1]))
    try:
        sweep(network, PROMPTS, Zero(), METRIC, component="resid_pre", over=("layer",), positions=(-4,))
    finally:
        handle.remove()
    # The prompt's own last row; the last rows of two branches; all four rows of the one that is edited in this layer.
    assert rows == [1, 2, 4]


def test_branches_do_not_see_each_other() -> None:
    network = random_network("gpt2")

    def edit(x: Tensor) -> Tensor:
        x = x.clone()
        x[:, 1] = 100.0
        return x

    with inference(network):
        shared = run_shared(Modules(network), PROMPTS)
        clean = run_branches(shared, 2, [0, 0, 0], {})
        edited = run_branches(shared, 2, [0, 0, 0], {("resid_pre", 0): edit})
    assert torch.equal(edited[:, [0, 2]], clean[:, [0, 2]])
    assert (edited[:, 1] - clean[:, 1]).abs().max() > 0.1


def test_a_shared_pass_shows_further_activations() -> None:
    network = random_network("llama")
    seen: list[Tensor] = []
    with inference(network):
        shared = run_shared(Modules(network), PROMPTS, start=4, callbacks={("resid_pre", 1): seen.append})
    assert shared.stream[1].shape == (2, 2, 32)
    assert torch.equal(seen[0][:, 4:], shared.stream[1])


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"component": "z", "over": ("layer",), "positions": (-7,)}, "position -7 is not in every prompt"),
        ({"component": "z", "over": ("layer",), "positions": (-5,)}, "position -5 is not .*: expected -4 to -1"),
        ({"component": "z", "over": ("layer",), "positions": (0,)}, "position 0 is not .*, counted from the end"),
        ({"component": "z", "over": ("layer",), "positions": ()}, r"positions \[\]: expected at least one"),
        ({"component": "z", "over": ("head",), "layers": (3,)}, "layer 3 does not exist: expected 0 to 2"),
        ({"component": "z", "over": ("layer",), "layers": (1, 1)}, r"layers \[1, 1\]: expected .* each once"),
        ({"component": "z", "over": ("head",)}, "3 layers without an axis 'layer': expected one"),
        ({"component": "z", "over": ("layer", "head"), "heads": (4,)}, "head 4 does not exist: z has heads 0 to 3"),
        ({"component": "k", "over": ("layer", "head"), "heads": (2,)}, "head 2 does not exist: k has heads 0 to 1"),
        ({"component": "resid_pre", "over": ("layer", "head")}, "resid_pre has no axis 'head': expected layer, pos"),
        ({"component": "resid_pre", "over": ("layer",), "heads": (1,)}, "resid_pre has no heads: expected heads=None"),
        ({"component": "z", "over": ()}, r"axes \[\]: expected at least one of layer, position, head, each once"),
        ({"component": "z", "over": ("layer", "layer")}, "expected at least one of layer, position, head, each once"),
        ({"component": "zz", "over": ("layer",)}, "component 'zz': expected one of resid_pre, resid_mid"),
        ({"component": "z", "over": ("layer",), "batch_size": 0}, "batch_size 0: expected at least 1"),
    ],
)
def test_what_does_not_exist_is_refused_before_anything_runs(
    options: dict[str, Any], message: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    prompts = as_prompts([[1, 2, 3, 4, 5, 6], [1, 2, 3, 4]])
    for module in ("sources", "sweeps", "branching"):
        monkeypatch.setattr(f"interventions.{module}.final_hidden", pytest.fail)
    with pytest.raises(ValueError, match=message):
        sweep(random_network("llama"), prompts, Replace(prompts), METRIC, **options)


@pytest.mark.parametrize("name", ["gptj", "phi", "gpt_neox"])
def test_parallel_blocks_have_no_stream_between(name: str) -> None:
    with pytest.raises(ValueError, match="has no resid_mid: attention and MLP read the same stream; use"):
        sweep(random_network(name), PROMPTS, Replace(OTHERS), METRIC, component="resid_mid", over=("layer",))


@pytest.mark.parametrize("name", ["gpt2", "gptj", "llama", "gemma2"])
@pytest.mark.parametrize("error", [RuntimeError, KeyboardInterrupt])
@pytest.mark.parametrize("place", ["progress", "metric", "edit"])
@pytest.mark.parametrize("method", ["branches", "oracle"])
def test_an_interrupted_sweep_leaves_the_model_as_it_was(name: str, error: Any, place: str, method: Any) -> None:
    network = copy.deepcopy(random_network(name))
    network.train()
    network.get_submodule("transformer.h.1" if name in ("gpt2", "gptj") else "model.layers.1").eval()
    before = state_of(network)
    calls = []

    def raising(x: Tensor) -> Tensor:
        calls.append(1)
        if len(calls) > 1:
            raise error("stop")
        return x[..., 0] if place == "metric" else x

    def progress(done: int, of: int) -> None:
        raise error("stop")

    metric = custom("raising", raising) if place == "metric" else METRIC
    edit: Edit = Apply(raising) if place == "edit" else Replace(OTHERS)
    options: dict[str, Any] = {"component": "pattern" if place == "progress" else "z", "budget": 1, "method": method}
    if place == "progress":
        options["progress"] = progress
    with pytest.raises(error, match="stop"):
        sweep(network, PROMPTS, edit, metric, over=("layer", "head"), **options)
    after = state_of(network)
    assert before.keys() == after.keys()
    for key, value in before.items():
        assert torch.equal(value, after[key]) if isinstance(value, Tensor) else value == after[key], key


def state_of(network: nn.Module) -> dict[str, Any]:
    """Everything that a sweep could leave changed: parameters, hooks, flags, attention, outputs."""
    config: Any = network.config
    state: dict[str, Any] = {f"weight {name}": x.clone() for name, x in network.state_dict().items()}
    for name, module in network.named_modules():
        state[f"hooks {name}"] = (len(module._forward_hooks), len(module._forward_pre_hooks))
        state[f"attributes {name}"] = sorted(vars(module))
        state[f"training {name}"] = module.training
    state["attention"] = config._attn_implementation
    state["gradients"] = torch.is_grad_enabled()
    duplicate = copy.deepcopy(network).eval()
    with torch.no_grad():
        state["logits"] = duplicate(PROMPTS.tokens).logits
    return state


def _interrupt(x: Tensor) -> None:
    raise KeyboardInterrupt

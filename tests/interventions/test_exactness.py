"""Sweeps against TransformerLens and nnsight on the same weights, and the table of differences from plain hooks."""

from __future__ import annotations

import copy
import math
from typing import Any

import pytest
import torch
from torch import Tensor

from interventions import exactness, sweeps
from interventions.architectures import ARCHITECTURES
from interventions.branching import run_branches
from interventions.edits import Replace
from interventions.exactness import CONFIGS, Agreement, largest_differences, markdown
from interventions.hooks import Modules
from interventions.metrics import logit_difference
from interventions.prompts import as_prompts
from interventions.sweeps import Axis, sweep

from .conftest import random_network

GENERATOR = torch.Generator().manual_seed(0)
PROMPTS = as_prompts(torch.randint(1, 37, (2, 6), generator=GENERATOR))
OTHERS = as_prompts(torch.randint(1, 37, (2, 6), generator=GENERATOR))
CORRECT, WRONG = torch.tensor([3, 5]), torch.tensor([4, 9])
PATCHING: dict[str, tuple[str, tuple[Axis, ...]]] = {
    "get_act_patch_resid_pre": ("resid_pre", ("layer", "position")),
    "get_act_patch_resid_mid": ("resid_mid", ("layer", "position")),
    "get_act_patch_attn_out": ("attn_out", ("layer", "position")),
    "get_act_patch_mlp_out": ("mlp_out", ("layer", "position")),
    "get_act_patch_attn_head_out_by_pos": ("z", ("layer", "position", "head")),
    "get_act_patch_attn_head_out_all_pos": ("z", ("layer", "head")),
    "get_act_patch_attn_head_v_all_pos": ("v", ("layer", "head")),
    "get_act_patch_attn_head_pattern_all_pos": ("pattern", ("layer", "head")),
}


def difference(logits: Tensor) -> Tensor:
    """Of logits [batch, pos, token], at the last position."""
    rows = torch.arange(len(logits))
    return logits[rows, -1, CORRECT] - logits[rows, -1, WRONG]


@pytest.mark.parametrize("name", ["gpt2", "llama"])
def test_sweeps_equal_transformer_lens(name: str) -> None:
    from transformer_lens import patching
    from transformer_lens.model_bridge.sources import build_bridge_from_module

    network = random_network(name)
    duplicate = copy.deepcopy(network)
    bridge = build_bridge_from_module(duplicate, type(duplicate).__name__, hf_config=copy.deepcopy(network.config))
    bridge.eval()
    with torch.no_grad():
        _, cache = bridge.run_with_cache(OTHERS.tokens)
        for function, (component, over) in PATCHING.items():
            theirs = getattr(patching, function)(bridge, PROMPTS.tokens, cache, difference, reduce="none").values
            ours = sweep(
                network,
                PROMPTS,
                Replace(OTHERS),
                logit_difference(CORRECT, WRONG),
                component=component,
                over=over,
                positions=None,
            )
            assert theirs.shape == (*ours.values.shape[1:], 2), function
            torch.testing.assert_close(ours.values, theirs.movedim(-1, 0), atol=1e-4, rtol=0, msg=function)
            assert ours.effects.abs().max() > 0.1


@pytest.mark.parametrize("name", ["gpt2", "llama"])
def test_last_token_heads_equal_nnsight(name: str) -> None:
    nnsight = pytest.importorskip("nnsight", reason="nnsight is an optional extra")
    network = random_network(name)
    ours = sweep(
        network,
        PROMPTS,
        Replace(OTHERS),
        logit_difference(CORRECT, WRONG),
        component="z",
        over=("layer", "head"),
    )
    view = nnsight.NNsight(copy.deepcopy(network))
    layers = view.transformer.h if name == "gpt2" else view.model.layers
    projections = [layer.attn.c_proj if name == "gpt2" else layer.self_attn.o_proj for layer in layers]
    for layer, projection in enumerate(projections):
        with torch.no_grad(), view.trace(OTHERS.tokens, use_cache=False):
            source = projection.input.save()
        for head in range(4):
            columns = slice(8 * head, 8 * head + 8)
            new = source[:, -1, columns].clone()
            with torch.no_grad(), view.trace(PROMPTS.tokens, use_cache=False):
                projection.input[:, -1, columns] = new
                logits = view.output.logits.save()
            torch.testing.assert_close(ours.values[:, layer, head], difference(logits), atol=1e-4, rtol=0)


def test_the_table_covers_every_row_of_the_architectures() -> None:
    from_project = {"attention_only"}
    assert CONFIGS.keys() | from_project == ARCHITECTURES.keys()
    for name in CONFIGS:
        assert len(Modules(exactness.random_network(name, seed=0))) == 3


def test_differences_of_a_network(monkeypatch: pytest.MonkeyPatch) -> None:
    """float32 agrees; an error in the branches, however small, shows in the table."""
    monkeypatch.setattr(exactness, "COMPONENTS", ("z", "resid_mid"))
    monkeypatch.setattr(exactness, "HEAD_GRIDS", exactness.HEAD_GRIDS[:2])
    monkeypatch.setattr(exactness, "STREAM_GRIDS", exactness.STREAM_GRIDS[2:])
    networks = {"gpt2": random_network("gpt2"), "gptj": random_network("gptj")}
    before = {name: copy.deepcopy(network.state_dict()) for name, network in networks.items()}
    rows = largest_differences(networks, (torch.float32, torch.bfloat16))
    assert [(row.architecture, row.dtype) for row in rows] == [
        (name, dtype) for name in ("gpt2", "gptj") for dtype in ("float32", "bfloat16")
    ]
    z, resid_mid = 12 + 27, 3
    assert [row.cells for row in rows] == [z + resid_mid] * 2 + [z] * 2  # parallel blocks have no resid_mid
    for row in rows:
        assert row.largest_effect > 0.5
        if row.dtype == "float32":
            assert row.difference < 1e-4
            assert row.hooks_error == 0
            assert 0 < row.branches_error <= row.difference
        else:
            assert row.branches_error < 2 * row.hooks_error
    for name, network in networks.items():
        assert all(torch.equal(x, before[name][key]) for key, x in network.state_dict().items())

    def wrong(*args: Any) -> Tensor:
        return run_branches(*args) * (1 + 1e-3)

    monkeypatch.setattr(sweeps, "run_branches", wrong)
    broken = largest_differences({"gpt2": networks["gpt2"]}, (torch.float32,))[0]
    assert broken.difference > 1e-4


def test_masked_scores_in_float64_are_finite(monkeypatch: pytest.MonkeyPatch) -> None:
    # float64's lowest number, which masks of padded prompts hold, is -inf in float32.
    monkeypatch.setattr(exactness, "COMPONENTS", ("pattern",))
    monkeypatch.setattr(exactness, "HEAD_GRIDS", exactness.HEAD_GRIDS[:1])
    for row in largest_differences(["gpt2", "llama"], (torch.float64,)):
        assert row.difference < 1e-6
        assert row.largest_effect > 0.05


def test_differences_are_reproducible_by_name_and_seed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(exactness, "COMPONENTS", ("resid_pre",))
    monkeypatch.setattr(exactness, "STREAM_GRIDS", exactness.STREAM_GRIDS[:1])
    first, again, other = (largest_differences(["opt"], (torch.float32,), seed=seed)[0] for seed in (0, 0, 1))
    assert first == again
    assert not math.isclose(first.largest_effect, other.largest_effect)
    with pytest.raises(ValueError, match=r"bert, t5: no such config: expected some of gpt2, gptj"):
        largest_differences(["t5", "gpt2", "bert"])


def test_the_table_is_markdown() -> None:
    row = Agreement("gpt2", "float32", 960, 2.04e-6, 5e-7, 0.0, 4.31)
    assert markdown([row]).splitlines() == [
        "| architecture | format | cells | largest difference | branches' error | hooks' error | largest effect |",
        "|---|---|---|---|---|---|---|",
        "| gpt2 | float32 | 960 | 2.0e-06 | 5.0e-07 | 0.0e+00 | 4.3 |",
    ]

"""Losses under edits: branches against one forward a cell, and both against the network's own logits."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from interventions.contexts import Site
from interventions.edits import Mean, Resample, Zero
from interventions.losses import loss_sweep, next_token_log_probs
from interventions.prompts import Prompts, as_prompts
from interventions.sweeps import Axis

from .conftest import NETWORKS, random_network


@pytest.fixture
def prompts() -> Prompts:
    return Prompts(torch.randint(1, 37, (3, 9), generator=torch.Generator().manual_seed(0)))


def direct(logits: Tensor, tokens: Tensor) -> Tensor:
    table = logits[:, :-1].float().log_softmax(-1)
    return torch.stack([table[n, torch.arange(tokens.shape[1] - 1), tokens[n, 1:]] for n in range(len(tokens))])


@pytest.mark.parametrize("name", NETWORKS)
def test_log_probs_are_those_of_the_network_and_zeroing_a_head_is_a_hook(name: str, prompts: Prompts) -> None:
    network = random_network(name)
    with torch.no_grad():
        expected = direct(network(prompts.tokens, use_cache=False).logits, prompts.tokens)
    torch.testing.assert_close(next_token_log_probs(network, prompts, batch_size=2), expected, rtol=1e-4, atol=1e-4)
    without = next_token_log_probs(network, prompts, edits={Site("z", 1, head=2): Zero()})
    swept = loss_sweep(network, prompts, Zero(), layers=[1], heads=[2])
    torch.testing.assert_close(swept.values[:, 0, 0], -without.mean(dim=1), rtol=1e-4, atol=1e-4)
    assert not torch.allclose(without, expected, atol=1e-3)


@pytest.mark.parametrize("name", ["gpt2", "llama", "gpt_neox", "gemma2"])
@pytest.mark.parametrize("component", ["z", "mlp_out", "v"])
def test_branches_equal_one_forward_a_cell(name: str, component: str, prompts: Prompts) -> None:
    network = random_network(name)
    over: tuple[Axis, ...] = ("layer", "head") if component != "mlp_out" else ("layer",)
    for edit in (Zero(), Resample(prompts, seed=1), Mean(prompts)):
        fast, slow = (
            loss_sweep(
                network,
                prompts,
                edit,
                component=component,
                over=over,
                targets=slice(4, None),
                method=method,
                batch_size=2,
                budget=1,
            )
            for method in ("branches", "oracle")
        )
        torch.testing.assert_close(fast.values, slow.values, rtol=1e-4, atol=1e-4)
        torch.testing.assert_close(fast.clean, slow.clean, rtol=1e-4, atol=1e-4)
        assert fast.effects.abs().max() > 1e-3


def test_targets_choose_columns(prompts: Prompts) -> None:
    network = random_network("gpt2")
    log_probs = next_token_log_probs(network, prompts)
    swept = loss_sweep(network, prompts, Zero(), layers=[0], heads=[0], targets=slice(5, None))
    torch.testing.assert_close(swept.clean, -log_probs[:, 5:].mean(dim=1), rtol=1e-5, atol=1e-5)


def test_bad_input_is_refused(prompts: Prompts) -> None:
    network = random_network("gpt2")
    with pytest.raises(ValueError, match=r"leaves none of 8 targets: expected at least one"):
        loss_sweep(network, prompts, Zero(), targets=slice(8, None))
    with pytest.raises(ValueError, match="edits all positions: expected axes among layer and head"):
        loss_sweep(network, prompts, Zero(), over=("layer", "position"))
    with pytest.raises(ValueError, match="prompts of 2 to 4 tokens: expected one length of at least 2"):
        next_token_log_probs(network, as_prompts([[1, 2], [1, 2, 3, 4]]))

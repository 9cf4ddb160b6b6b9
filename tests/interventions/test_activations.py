"""The fused activation is the written-out one, and is gone afterwards."""

from __future__ import annotations

import pytest
import torch

from interventions.activations import fused_activations
from interventions.network import inference

from .conftest import random_network

TOKENS = torch.randint(1, 37, (2, 6), generator=torch.Generator().manual_seed(0))


@pytest.mark.parametrize("name", ["gpt2", "gptj", "phi"])
def test_logits_are_those_of_the_written_out_activation(name: str) -> None:
    network = random_network(name)
    activations = [module for module in network.modules() if type(module).__name__ == "NewGELUActivation"]
    assert len(activations) == 3
    with torch.no_grad():
        expected = network(TOKENS).logits
        with fused_activations(network):
            assert all("forward" in vars(module) for module in activations)
            torch.testing.assert_close(network(TOKENS).logits, expected, atol=1e-5, rtol=0)
        assert torch.equal(network(TOKENS).logits, expected)
    assert not any("forward" in vars(module) for module in activations)


def test_contexts_may_lie_in_each_other_and_end_with_the_outer_one() -> None:
    network = random_network("gpt2")
    activation = network.transformer.h[0].mlp.act
    with inference(network):
        with inference(network):
            pass
        assert "forward" in vars(activation)
    assert "forward" not in vars(activation)

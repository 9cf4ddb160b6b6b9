"""Shapes, initialisation and forward passes of an agent's modules."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from torch import Tensor, nn

from training.rl import Box, Discrete, MultiDiscrete, agent, classic_control, make_environments
from training.rl.distributions import Categorical, DiagonalGaussian, MultiCategorical
from training.rl.networks import MLP, Policy, Value


def generator() -> torch.Generator:
    return torch.Generator().manual_seed(3)


def gains(weight: Tensor) -> list[float]:
    singular: list[float] = torch.linalg.svdvals(weight).tolist()
    return singular


def test_weights_are_orthogonal_with_their_gains_and_biases_0() -> None:
    policy = Policy((6, 64, 64), Discrete(3), generator=generator())
    value = Value((6, 64, 64), generator=generator())
    for network, last in ((policy.network, 0.01), (value.network, 1.0)):
        for layer, gain in zip(network.layers, (2**0.5, 2**0.5, last), strict=True):
            assert isinstance(layer, nn.Linear)
            assert gains(layer.weight.detach()) == pytest.approx([gain] * min(layer.weight.shape), rel=1e-4)
            assert not layer.bias.any()


def test_pytorchs_own_initialisation_where_it_is_wanted() -> None:
    layer = Value((16, 64), orthogonal=False, generator=generator()).network.layers[0]
    assert isinstance(layer, nn.Linear)
    assert 0.2 < layer.weight.abs().max().item() <= 0.25
    assert layer.bias.abs().max().item() > 0.1


def test_an_mlp_is_linear_layers_with_tanh_between() -> None:
    x = torch.randn(5, 3, generator=generator())
    for last_gain, last in ((1.0, nn.Identity()), (None, nn.Tanh())):
        network = MLP((3, 8, 4), last_gain=last_gain, orthogonal=True, generator=generator())
        plain = nn.Sequential(network.layers[0], nn.Tanh(), network.layers[1], last)
        assert torch.equal(network(x), plain(x))


def test_policies_of_each_action_space() -> None:
    x = torch.randn(5, 6, generator=generator())
    discrete = Policy((6, 8), Discrete(3), generator=generator())(x)
    assert isinstance(discrete, Categorical)
    assert torch.allclose(discrete.log_probabilities.exp().sum(1), torch.ones(5))
    assert discrete.log_probabilities.exp().std().item() < 0.01  # the last gain makes all actions about as likely
    multi = Policy((6, 8), MultiDiscrete((2, 3)), generator=generator())(x)
    assert isinstance(multi, MultiCategorical)
    assert [part.log_probabilities.shape[1] for part in multi.parts] == [2, 3]
    box = Box((-1.0,) * 2, (1.0,) * 2)
    free = Policy((6, 8), box, generator=generator())
    gaussian = free(x)
    assert isinstance(gaussian, DiagonalGaussian)
    assert gaussian.log_std is free.log_std
    assert not gaussian.log_std.any()
    bound = Policy((6, 8), box, state_independent_log_std=False, generator=generator())
    assert bound.log_std is None
    assert bound(x).log_std.shape == (5, 2)
    assert bound(x).log_std.std() > 0


def test_an_agent_is_drawn_from_its_seed_and_shares_an_encoder() -> None:
    environments = make_environments("CartPole-v1", 1, seed=0)
    settings = classic_control(1000)
    one, same, other = (agent(environments, settings, seed=seed) for seed in (1, 1, 2))
    assert list(one) == ["policy", "value"]
    for name, module in one.items():
        for a, b, c in zip(module.parameters(), same[name].parameters(), other[name].parameters(), strict=True):
            assert torch.equal(a, b)
            assert not a.any() or not torch.equal(a, c)
    shared = agent(environments, replace(settings, shared_encoder=True, hidden=(32, 16)), seed=1)
    assert list(shared) == ["encoder", "policy", "value"]
    features = shared["encoder"](torch.randn(3, 4))
    assert features.shape == (3, 16)
    assert features.abs().max() < 1
    assert shared["value"](features).shape == (3,)

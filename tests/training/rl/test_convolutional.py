"""The network for images: its layers, its weights, and what it makes of bytes."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
import torch
from tests.training.rl.small_games import Moving, registered
from torch import Tensor, nn

from training.rl import AtariOptions, agent, atari, classic_control, make_environments
from training.rl.convolutional import FEATURES, NatureCNN
from training.rl.networks import Policy, Value

EYES = AtariOptions(noops=0, skip=1, life_episodes=False, size=None, stack=2)


def network(**changes: Any) -> NatureCNN:
    generator = torch.Generator().manual_seed(3)
    return NatureCNN(changes.pop("shape", (4, 84, 84)), generator=generator, **changes)


def windows(x: Tensor, weight: Tensor, bias: Tensor, stride: int) -> Tensor:
    """A convolution and a ReLU, one window after the other."""
    size = weight.shape[-1]
    places = range(0, x.shape[-1] - size + 1, stride)
    found = [[(x[:, i : i + size, j : j + size] * weight).sum((1, 2, 3)) + bias for j in places] for i in places]
    return torch.stack([torch.stack(row, dim=1) for row in found], dim=1).clamp(min=0)


def test_it_is_the_network_of_mnih_et_al() -> None:
    made = network()
    layers = [(c.out_channels, c.kernel_size, c.stride) for c in made.convolutions if isinstance(c, nn.Conv2d)]
    assert layers == [(32, (8, 8), (4, 4)), (64, (4, 4), (2, 2)), (64, (3, 3), (1, 1))]
    assert (made.linear.in_features, made.linear.out_features) == (64 * 7 * 7, 512)
    assert sum(parameter.numel() for parameter in made.parameters()) == 1_684_128


def test_features_are_those_of_windows_one_by_one() -> None:
    made = network(shape=(2, 40, 40))
    images = torch.randint(256, (2, 2, 40, 40), generator=torch.Generator().manual_seed(0)).float()
    with torch.no_grad():
        for bias in (layer.bias for layer in (*made.convolutions, made.linear)):
            bias.normal_(std=0.1, generator=torch.Generator().manual_seed(1))
        for image, features in zip(images, made(images), strict=True):
            x = image / 255
            for layer, stride in zip(made.convolutions, (4, 2, 1), strict=True):
                x = windows(x, layer.weight, layer.bias, stride)  # type: ignore[arg-type]
            expected = (made.linear.weight @ x.flatten() + made.linear.bias).clamp(min=0)
            torch.testing.assert_close(features, expected, rtol=1e-4, atol=1e-5)


def test_bytes_are_scaled_unless_it_is_left_out() -> None:
    images = torch.randint(256, (3, 4, 36, 36), generator=torch.Generator().manual_seed(0)).float()
    scaled, raw = network(shape=(4, 36, 36)), network(shape=(4, 36, 36), scale=False)
    torch.testing.assert_close(scaled(images), raw(images / 255))
    assert raw(images).std() > 50 * scaled(images).std()


def test_weights_are_orthogonal_or_pytorchs_own() -> None:
    for layer in (*network().convolutions, network().linear):
        assert isinstance(layer, nn.Conv2d | nn.Linear)
        rows = layer.weight.detach().flatten(1)
        torch.testing.assert_close(rows @ rows.T, 2 * torch.eye(len(rows)), rtol=1e-3, atol=1e-3)
        assert layer.bias is not None
        assert not layer.bias.any()
    first = network(orthogonal=False).convolutions[0]
    assert isinstance(first, nn.Conv2d)
    bound = 1 / (4 * 8 * 8) ** 0.5
    assert 0.99 * bound < first.weight.abs().max().item() <= bound


def test_an_image_that_is_too_small() -> None:
    network(shape=(1, 36, 36))
    expected = (
        r"^NatureCNN: expected images of at least 36 x 36, got 40 x 35; make them larger with AtariOptions\.size$"
    )
    with pytest.raises(ValueError, match=expected):
        network(shape=(1, 40, 35))


def test_an_agent_shares_it() -> None:
    with registered(Moving) as id:
        environments = make_environments(id, 8, seed=0, wrappers=EYES)
    modules = agent(environments, atari(2048), seed=0)
    assert set(modules) == {"encoder", "policy", "value"}
    encoder, policy, value = modules["encoder"], modules["policy"], modules["value"]
    assert isinstance(encoder, NatureCNN)
    assert isinstance(policy, Policy)
    assert isinstance(value, Value)
    assert [weight.shape for weight in policy.network.weights()] == [(2, FEATURES), (2,)]
    assert [weight.shape for weight in value.network.weights()] == [(1, FEATURES), (1,)]
    assert agent(environments, replace(atari(2048), lstm=16, minibatches=8), seed=0)["memory"] is not None


def test_the_network_must_be_one_for_what_is_seen() -> None:
    with registered(Moving) as id:
        images = make_environments(id, 4, seed=0, wrappers=EYES)
    message = (
        r"^agent for MovingSmall-v0: expected the network 'nature' for observations that are images of shape \(2, 36"
    )
    with pytest.raises(ValueError, match=message + r", 36\), got 'tanh'; set Settings\.network$"):
        agent(images, classic_control(2048), seed=0)
    vectors = make_environments("CartPole-v1", 8, seed=0)
    with pytest.raises(
        ValueError, match=r"expected the network 'tanh' for .* vectors of shape \(4,\), got 'nature'; set"
    ):
        agent(vectors, atari(2048), seed=0)

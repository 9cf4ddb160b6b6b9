"""Actions are those of the policy's distribution, and follow its weights."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import nn

from training.rl.acting import Actor, forward_pass
from training.rl.distributions import Categorical, DiagonalGaussian, MultiCategorical
from training.rl.networks import MLP, Policy
from training.rl.spaces import ActionSpace, Box, Discrete, MultiDiscrete

BOX = Box((-1.0,) * 2, (1.0,) * 2)
RNG = np.random.default_rng(0)


def policy(action: ActionSpace, *, free: bool = True) -> Policy:
    """With weights that make a difference."""
    made = Policy((3, 8, 8), action, state_independent_log_std=free, generator=torch.Generator().manual_seed(1))
    with torch.no_grad():
        for parameter in made.parameters():
            parameter.add_(torch.randn(parameter.shape, generator=torch.Generator().manual_seed(2)) * 0.5)
    return made


def drawn(made: Policy, observation: list[float], n: int) -> np.ndarray:
    actor = Actor({"policy": made}, made.action)
    observations = np.tile(np.array(observation, dtype=np.float32), (n, 1))
    return actor.sample(observations, actor.noise(1, n, RNG)[0])


def test_arrays_go_through_as_tensors_do_and_follow_the_weights() -> None:
    made, x = policy(Discrete(4)).network, RNG.normal(size=(6, 3)).astype(np.float32)
    encoder = MLP((3, 5, 3), last_gain=None, orthogonal=True, generator=torch.Generator().manual_seed(0))
    fast = forward_pass([encoder, made])
    for _ in range(2):
        expected = made(encoder(torch.from_numpy(x))).detach().numpy()
        np.testing.assert_allclose(fast(x), expected, atol=1e-6)
        with torch.no_grad():
            made.weights()[0].mul_(0.5)


def test_other_networks_go_through_torch() -> None:
    network, x = nn.Sequential(nn.Linear(3, 4), nn.ReLU()), RNG.normal(size=(6, 3)).astype(np.float32)
    np.testing.assert_allclose(forward_pass([network])(x), network(torch.from_numpy(x)).detach().numpy(), atol=1e-6)
    half = policy(Discrete(4)).network.bfloat16()
    expected = half(torch.from_numpy(x).bfloat16()).detach().float().numpy()
    np.testing.assert_array_equal(forward_pass([half])(x), expected)


def test_categorical_frequencies() -> None:
    made, n = policy(Discrete(4)), 20_000
    actions = drawn(made, [0.3, -1.0, 0.5], n)
    distribution = made(torch.tensor([[0.3, -1.0, 0.5]]))
    assert isinstance(distribution, Categorical)
    expected = distribution.log_probabilities.exp()[0].tolist()
    frequencies = np.bincount(actions, minlength=4) / n
    for frequency, p in zip(frequencies, expected, strict=True):
        assert frequency == pytest.approx(p, abs=4 * (p * (1 - p) / n) ** 0.5)
    best = Actor({"policy": made}, made.action).best(np.array([[0.3, -1.0, 0.5]], dtype=np.float32))
    assert best.tolist() == [int(np.argmax(expected))]


def test_the_ends_of_the_uniform_numbers_choose_actions_that_exist() -> None:
    made = policy(Discrete(4))
    actor, x = Actor({"policy": made}, made.action), np.zeros((2, 3), dtype=np.float32)
    assert actor.sample(x, np.array([[0.0], [np.nextafter(1.0, 0.0)]])).tolist() == [0, 3]


def test_several_sets_are_drawn_apart() -> None:
    made, n = policy(MultiDiscrete((2, 3))), 20_000
    actions = drawn(made, [0.3, -1.0, 0.5], n)
    distribution = made(torch.tensor([[0.3, -1.0, 0.5]]))
    assert isinstance(distribution, MultiCategorical)
    p, q = (part.log_probabilities.detach().exp()[0].numpy() for part in distribution.parts)
    table = np.zeros((2, 3))
    np.add.at(table, (actions[:, 0], actions[:, 1]), 1 / n)
    np.testing.assert_allclose(table, np.outer(p, q), atol=0.015)


@pytest.mark.parametrize("free", [True, False])
def test_gaussian_moments(free: bool) -> None:
    made, n = policy(BOX, free=free), 20_000
    actions = drawn(made, [0.3, -1.0, 0.5], n)
    distribution = made(torch.tensor([[0.3, -1.0, 0.5]]))
    assert isinstance(distribution, DiagonalGaussian)
    std = distribution.log_std.exp()[0].detach().numpy()
    mean = distribution.mean[0].detach().numpy()
    assert actions.dtype == np.float32
    np.testing.assert_allclose(actions.mean(axis=0), mean, atol=5 * std.max() / n**0.5)
    np.testing.assert_allclose(actions.std(axis=0), std, rtol=0.03)
    best = Actor({"policy": made}, made.action).best(np.array([[0.3, -1.0, 0.5]], dtype=np.float32))
    np.testing.assert_allclose(best[0], mean, atol=1e-6)

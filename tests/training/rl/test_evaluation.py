"""Evaluation plays whole episodes and leaves the training alone; frames are the geometry of the episode."""

from __future__ import annotations

import copy
from typing import Any

import numpy as np
import pytest
import torch

from training import train
from training.rl import PPO, Settings, UnsupportedEnvironment, agent, evaluate, make_environments, record


def make(id: str, **changes: Any) -> PPO:
    settings = Settings(total_steps=256, environments=2, horizon=64, minibatches=2, epochs=2, **changes)
    environments = make_environments(id, 2, seed=0)
    return PPO(environments, agent(environments, settings, seed=0), settings, seed=0)


def balance(task: PPO) -> None:
    """Make the policy a linear controller that holds CartPole's pole up."""
    network: Any = task.modules["policy"].network
    with torch.no_grad():
        for weight in network.weights():
            weight.zero_()
        network.layers[0].weight[0] = torch.tensor([0.05, 0.1, 1.0, 0.2])
        network.layers[1].weight[0, 0] = 1.0
        network.layers[2].weight[1, 0] = 100.0


def test_as_many_episodes_as_asked_for_with_raw_returns() -> None:
    task = make("CartPole-v1")
    found = evaluate(task, episodes=23, deterministic=False, seed=5, environments=10)
    assert len(found.returns) == len(found.lengths) == 23
    assert (found.returns == found.lengths).all()
    again = evaluate(task, episodes=23, deterministic=False, seed=5, environments=10)
    np.testing.assert_array_equal(found.returns, again.returns)
    assert len(evaluate(task, episodes=1, seed=5).returns) == 1


def test_returns_are_those_of_gymnasiums_environment() -> None:
    """One copy after the other, by hand: the deterministic policy on gymnasium's own environment."""
    import gymnasium as gym

    task = make("Pendulum-v1")
    found = evaluate(task, episodes=3, seed=11, environments=3)
    expected = []
    for i in range(3):
        env, total, over = gym.make("Pendulum-v1"), 0.0, False
        observation, _ = env.reset(seed=11 + i)
        while not over:
            with torch.no_grad():
                mean = task.modules["policy"](torch.from_numpy(observation)[None]).mean[0].numpy()
            observation, reward, terminated, truncated, _ = env.step(np.clip(mean, -2, 2))
            total, over = total + float(reward), terminated or truncated
        expected.append(total)
    np.testing.assert_allclose(sorted(found.returns), sorted(expected), rtol=1e-4)


def test_the_training_is_left_alone() -> None:
    task = make("CartPole-v1", normalise_observations=True)
    train(task, task.parts(), steps=4)
    before = copy.deepcopy(task.state_dict())
    evaluate(task, episodes=7, seed=1)
    evaluate(task, episodes=7, deterministic=False, seed=1)
    record(task, seed=1)
    assert same(before, task.state_dict())


def same(one: Any, other: Any) -> bool:
    if isinstance(one, dict):
        return one.keys() == other.keys() and all(same(one[key], other[key]) for key in one)
    if isinstance(one, list | tuple):
        return len(one) == len(other) and all(map(same, one, other))
    return bool(torch.equal(one, other)) if isinstance(one, torch.Tensor) else bool(one == other)


def test_normalisers_are_used() -> None:
    task = make("CartPole-v1", normalise_observations=True)
    balance(task)
    normaliser = task.collector.normaliser
    assert normaliser is not None
    normaliser.mean, normaliser.variance = np.zeros(4), np.ones(4)
    assert evaluate(task, episodes=5, seed=0).returns.mean() > 400
    normaliser.mean = np.array([0.0, 0.0, -1.0, 0.0])  # all poles seem to lean to the right
    assert evaluate(task, episodes=5, seed=0).returns.mean() < 50


def test_frames_of_cartpole() -> None:
    task = make("CartPole-v1")
    balance(task)
    frames = record(task, seed=3, max_steps=120)
    assert frames.kind == "cartpole"
    assert frames.states.shape == (121, 4)
    assert frames.rewards.tolist() == [1.0] * 120
    assert frames.states.dtype == np.float32
    np.testing.assert_allclose(np.diff(frames.states[:, 0]), 0.02 * frames.states[:-1, 1], atol=1e-6)  # x' is dx/dt
    whole = record(make("CartPole-v1"), seed=3, deterministic=False)
    assert len(whole.states) == len(whole.rewards)  # the state behind the last step is that of no frame


def test_frames_of_mujoco() -> None:
    import mujoco

    task = make("Hopper-v5")
    frames = record(task, seed=3, max_steps=10)
    assert frames.kind == "capsules"
    assert frames.segments.shape == (11, 4, 2, 2)  # torso, thigh, leg, foot
    member = make_environments("Hopper-v5", 1, seed=3).members[0]  # type: ignore[attr-defined]
    capsules = [i for i in range(member.model.ngeom) if member.model.geom_type[i] == mujoco.mjtGeom.mjGEOM_CAPSULE]
    lengths = np.linalg.norm(frames.segments[:, :, 1] - frames.segments[:, :, 0], axis=-1)
    for geom, found, radius in zip(capsules, lengths.T, frames.radii, strict=True):
        assert found == pytest.approx(2 * member.model.geom_size[geom, 1], abs=1e-5)  # all move in the x-z plane
        assert radius == pytest.approx(member.model.geom_size[geom, 0])
    height = frames.segments[0, 0, :, 1]
    assert 1.0 < height.min() < height.max() < 1.6  # the torso stands up


def test_frames_of_others_are_refused() -> None:
    with pytest.raises(UnsupportedEnvironment, match=r"^Pendulum-v1: expected CartPole or an environment of MuJoCo"):
        record(make("Pendulum-v1"), seed=0)

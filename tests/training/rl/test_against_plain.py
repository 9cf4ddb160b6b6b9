"""One update of ours is one update of a plain program in the common style, given the same rollout."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

from training import train
from training.rl import PPO, Settings, agent, classic_control, make_environments, mujoco_tasks
from training.rl.bench_plain import CARTPOLE, HALF_CHEETAH, PlainAgent, PlainSettings, advantages_of, empty, update
from training.rl.networks import Policy, Value
from training.rl.rollouts import Rollout


def copied(task: PPO, plain: PlainAgent) -> None:
    """Give the plain agent our weights."""
    policy, value = task.modules["policy"], task.modules["value"]
    assert isinstance(policy, Policy)
    assert isinstance(value, Value)
    for theirs, ours in ((plain.actor, policy.network), (plain.critic, value.network)):
        linear = [module for module in theirs if isinstance(module, nn.Linear)]
        for there, here in zip(linear, ours.layers, strict=True):
            there.load_state_dict(here.state_dict())
    if plain.log_std is not None and policy.log_std is not None:
        plain.log_std.data.copy_(policy.log_std)


def weights(agent: nn.Module) -> list[torch.Tensor]:
    return [parameter.detach().clone() for parameter in agent.parameters()]


@pytest.mark.parametrize(
    ("id", "settings", "plain_settings"),
    [
        ("CartPole-v1", classic_control(512), CARTPOLE),
        ("HalfCheetah-v5", mujoco_tasks(2048), HALF_CHEETAH),
        ("Hopper-v5", mujoco_tasks(2048), HALF_CHEETAH),
    ],
)
def test_one_epoch(id: str, settings: Settings, plain_settings: PlainSettings) -> None:
    environments = make_environments(id, settings.environments, seed=3)
    task = PPO(environments, agent(environments, settings, seed=3), settings, seed=3)
    kept = dict[str, Rollout]()
    collect = task.collector.collect
    task.collector.collect = lambda: kept.setdefault("rollout", collect())  # type: ignore[method-assign]
    continuous = plain_settings.continuous
    columns = environments.action.columns if continuous else 2
    plain = PlainAgent(environments.observation_size, columns, continuous=continuous)
    copied(task, plain)
    optimizer = torch.optim.Adam(plain.parameters(), lr=settings.learning_rate, eps=1e-5)
    orders = []
    real = task._cut

    def noting() -> None:
        orders.append(task._order.clone())
        real()

    task._cut = noting  # type: ignore[method-assign]
    checked: list[Any] = []

    def follow(run: Any) -> None:
        """After each of our updates, make theirs."""
        if run.step == 0:
            return
        storage, advantages = as_theirs(kept["rollout"], plain_settings, plain if run.step == 1 else None, checked)
        rows = orders[-1].chunk(plain_settings.minibatches)[(run.step - 1) % plain_settings.minibatches]
        update(plain, optimizer, storage, advantages, rows, plain_settings)
        other = PlainAgent(environments.observation_size, columns, continuous=continuous)
        copied(task, other)
        for ours, theirs in zip(weights(other), weights(plain), strict=True):
            assert torch.allclose(ours, theirs, atol=1e-5)

    steps = settings.minibatches
    train(task, task.parts(), steps=steps, max_gradient_norm=0.5, callbacks=[follow])
    assert len(orders) == 1


def as_theirs(rollout: Rollout, settings: PlainSettings, plain: PlainAgent | None, kept: list[Any]) -> Any:
    """The rollout as the plain program would have stored it, step by step with its own agent before any update."""
    if plain is None:
        return kept[0]
    storage = empty(settings, rollout.observations.shape[2], rollout.actions.shape[2:] if settings.continuous else ())
    ended = torch.from_numpy(rollout.ended.astype(np.float32))
    for t in range(settings.steps):
        storage.observations[t] = torch.from_numpy(rollout.observations[t])
        action = torch.from_numpy(rollout.actions[t])
        storage.actions[t] = action if settings.continuous else action[:, 0]
        storage.dones[t] = ended[t - 1] if t else 0.0
        storage.rewards[t] = torch.from_numpy(rollout.rewards[t])
        with torch.no_grad():
            _, storage.log_probs[t], _, storage.values[t] = plain.action_and_value(
                storage.observations[t], storage.actions[t]
            )
    with torch.no_grad():
        last = plain.critic(torch.from_numpy(rollout.observations[-1])).squeeze(-1)
    kept.append((storage, advantages_of(storage, last, ended[-1], settings)))
    return kept[0]


def test_normalised_rewards_and_observations_are_those_of_gymnasiums_wrappers() -> None:
    """Within the first episode, where Gymnasium and OpenAI's baselines agree on what is taken into the statistics."""
    import gymnasium as gym

    settings = Settings(total_steps=200, horizon=200, minibatches=1, normalise_observations=True, scale_rewards=True)
    environments = make_environments("HalfCheetah-v5", 1, seed=4)
    task = PPO(environments, agent(environments, settings, seed=4), settings, seed=4)
    rollout = task.collector.collect()
    env: Any = gym.wrappers.NormalizeObservation(gym.wrappers.ClipAction(gym.make("HalfCheetah-v5")))
    env = gym.wrappers.NormalizeReward(env, gamma=0.99)
    first, _ = env.reset(seed=4)
    np.testing.assert_allclose(rollout.observations[0, 0], np.clip(first, -10, 10), atol=1e-5)
    for t in range(200):
        observation, reward, *_ = env.step(rollout.actions[t, 0])
        np.testing.assert_allclose(rollout.observations[t + 1, 0], np.clip(observation, -10, 10), atol=1e-5)
        assert rollout.rewards[t, 0] == pytest.approx(float(np.clip(reward, -10, 10)), abs=1e-5)

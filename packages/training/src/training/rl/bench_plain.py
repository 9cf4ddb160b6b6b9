"""PPO in one file, in the common style: what the benchmark compares with, and the tests take as a second opinion.

Gymnasium's vector environment with a stack of wrappers, an agent that evaluates policy and value function at every
step, `torch.distributions`, and a loop over minibatches with one Adam. It shares no code with `training.rl`.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor, nn
from torch.distributions import Categorical, Distribution, Independent, Normal


@dataclass(frozen=True)
class PlainSettings:
    """As in `training.rl.Settings`, under their usual names; `continuous` asks for the wrappers of MuJoCo."""

    total_steps: int
    environments: int
    steps: int
    epochs: int
    minibatches: int
    learning_rate: float
    entropy_coefficient: float
    continuous: bool
    gamma: float = 0.99
    gae_lambda: float = 0.95
    clip: float = 0.2
    value_coefficient: float = 0.5
    max_gradient_norm: float = 0.5


CARTPOLE = PlainSettings(512, 4, 128, 4, 4, 2.5e-4, 0.01, continuous=False)
HALF_CHEETAH = PlainSettings(2048, 1, 2048, 10, 32, 3e-4, 0.0, continuous=True)


def layer(inputs: int, outputs: int, gain: float = 2**0.5) -> nn.Linear:
    """A linear layer with orthogonal weights and no bias to begin with."""
    linear = nn.Linear(inputs, outputs)
    nn.init.orthogonal_(linear.weight, gain)
    nn.init.zeros_(linear.bias)
    return linear


class PlainAgent(nn.Module):
    """Actor and critic."""

    def __init__(self, observation_size: int, actions: int, *, continuous: bool) -> None:
        super().__init__()
        self.critic = nn.Sequential(
            layer(observation_size, 64), nn.Tanh(), layer(64, 64), nn.Tanh(), layer(64, 1, gain=1.0)
        )
        self.actor = nn.Sequential(
            layer(observation_size, 64), nn.Tanh(), layer(64, 64), nn.Tanh(), layer(64, actions, gain=0.01)
        )
        self.log_std = nn.Parameter(torch.zeros(1, actions)) if continuous else None

    def distribution(self, observations: Float[Tensor, "batch observation"]) -> Distribution:
        """Of the actions."""
        output = self.actor(observations)
        if self.log_std is None:
            return Categorical(logits=output)
        return Independent(Normal(output, self.log_std.expand_as(output).exp()), 1)

    def action_and_value(
        self, observations: Float[Tensor, "batch observation"], action: Tensor | None = None
    ) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """Action (drawn, if none is given), its log-probability, entropy, value."""
        policy = self.distribution(observations)
        if action is None:
            action = policy.sample()
        return action, policy.log_prob(action), policy.entropy(), self.critic(observations).squeeze(-1)


def make(id: str, settings: PlainSettings) -> Any:
    """The vector environment."""
    import gymnasium as gym

    def one() -> Any:
        env: Any = gym.wrappers.RecordEpisodeStatistics(gym.make(id))
        if settings.continuous:
            env = gym.wrappers.ClipAction(env)
            env = gym.wrappers.NormalizeObservation(env)
            env = gym.wrappers.TransformObservation(env, lambda o: np.clip(o, -10, 10), env.observation_space)
            env = gym.wrappers.NormalizeReward(env, gamma=settings.gamma)
            env = gym.wrappers.TransformReward(env, lambda r: float(np.clip(r, -10, 10)))
        return env

    copies: list[Callable[[], Any]] = [one] * settings.environments
    return gym.vector.SyncVectorEnv(copies, autoreset_mode=gym.vector.AutoresetMode.SAME_STEP)


@dataclass
class Storage:
    """A rollout, one row for each step."""

    observations: Float[Tensor, "step env observation"]
    actions: Tensor
    log_probs: Float[Tensor, "step env"]
    rewards: Float[Tensor, "step env"]
    dones: Float[Tensor, "step env"]
    values: Float[Tensor, "step env"]


def empty(settings: PlainSettings, observation_size: int, action_shape: tuple[int, ...]) -> Storage:
    """Room for a rollout."""
    shape = (settings.steps, settings.environments)
    return Storage(
        torch.zeros(*shape, observation_size),
        torch.zeros(*shape, *action_shape),
        *(torch.zeros(shape) for _ in range(4)),
    )


def advantages_of(
    storage: Storage, next_value: Float[Tensor, " env"], next_done: Float[Tensor, " env"], settings: PlainSettings
) -> Float[Tensor, "step env"]:
    """Generalised advantages; `storage.dones[t]` says whether step t begins an episode."""
    advantages, last = torch.zeros_like(storage.rewards), torch.zeros_like(next_value)
    for t in reversed(range(settings.steps)):
        final = t == settings.steps - 1
        going = 1.0 - (next_done if final else storage.dones[t + 1])
        following = next_value if final else storage.values[t + 1]
        delta = storage.rewards[t] + settings.gamma * following * going - storage.values[t]
        last = delta + settings.gamma * settings.gae_lambda * going * last
        advantages[t] = last
    return advantages


def update(
    agent: PlainAgent,
    optimizer: torch.optim.Optimizer,
    storage: Storage,
    advantages: Float[Tensor, "step env"],
    rows: Int[Tensor, " row"],
    settings: PlainSettings,
) -> None:
    """One minibatch."""
    returns = (advantages + storage.values).reshape(-1)[rows]
    observations = storage.observations.flatten(0, 1)[rows]
    actions, old_log_prob = storage.actions.flatten(0, 1)[rows], storage.log_probs.reshape(-1)[rows]
    old_value, advantage = storage.values.reshape(-1)[rows], advantages.reshape(-1)[rows]
    _, log_prob, entropy, value = agent.action_and_value(observations, actions)
    ratio = (log_prob - old_log_prob).exp()
    with torch.no_grad():
        approx_kl = ((ratio - 1) - (log_prob - old_log_prob)).mean()
        clip_fraction = ((ratio - 1.0).abs() > settings.clip).float().mean().item()
    del approx_kl, clip_fraction
    advantage = (advantage - advantage.mean()) / (advantage.std() + 1e-8)
    policy_loss = torch.max(
        -advantage * ratio, -advantage * torch.clamp(ratio, 1 - settings.clip, 1 + settings.clip)
    ).mean()
    clipped = old_value + torch.clamp(value - old_value, -settings.clip, settings.clip)
    value_loss = 0.5 * torch.max((value - returns) ** 2, (clipped - returns) ** 2).mean()
    loss = policy_loss - settings.entropy_coefficient * entropy.mean() + settings.value_coefficient * value_loss
    optimizer.zero_grad()
    loss.backward()  # type: ignore[no-untyped-call]
    nn.utils.clip_grad_norm_(agent.parameters(), settings.max_gradient_norm)
    optimizer.step()


def train_plain(id: str, settings: PlainSettings, *, seed: int) -> list[float]:
    """Train from a seed; returns of the episodes that ended."""
    torch.manual_seed(seed)
    envs = make(id, settings)
    space = envs.single_action_space
    actions = int(space.shape[0]) if settings.continuous else int(space.n)
    agent = PlainAgent(envs.single_observation_space.shape[0], actions, continuous=settings.continuous)
    optimizer = torch.optim.Adam(agent.parameters(), lr=settings.learning_rate, eps=1e-5)
    storage = empty(settings, envs.single_observation_space.shape[0], space.shape)
    order, episodes = np.random.default_rng(seed), list[float]()
    batch = settings.steps * settings.environments
    first, _ = envs.reset(seed=seed)
    observation, done = torch.Tensor(first), torch.zeros(settings.environments)
    rollouts = settings.total_steps // batch
    for rollout in range(rollouts):
        optimizer.param_groups[0]["lr"] = settings.learning_rate * (1 - rollout / rollouts)
        for t in range(settings.steps):
            storage.observations[t], storage.dones[t] = observation, done
            with torch.no_grad():
                action, log_prob, _, value = agent.action_and_value(observation)
            storage.actions[t], storage.log_probs[t], storage.values[t] = action, log_prob, value
            seen, reward, terminated, truncated, info = envs.step(action.numpy())
            storage.rewards[t] = torch.tensor(reward)
            observation, done = torch.Tensor(seen), torch.Tensor(np.logical_or(terminated, truncated))
            if "final_info" in info:
                found = info["final_info"]["episode"]["r"]
                episodes += [float(total) for total, ended in zip(found, info["_final_info"], strict=True) if ended]
        with torch.no_grad():
            advantages = advantages_of(storage, agent.critic(observation).squeeze(-1), done, settings)
        for _ in range(settings.epochs):
            rows = torch.from_numpy(order.permutation(batch))
            for minibatch in rows.chunk(settings.minibatches):
                update(agent, optimizer, storage, advantages, minibatch, settings)
    envs.close()
    return episodes

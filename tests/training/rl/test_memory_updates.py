"""A whole update with a memory against a plain program that goes through rollouts one step and one cell at a time."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from training import Options, TrainingError, train
from training.rl import PPO, Discrete, Environments, Episode, Settings, Step, agent, evaluate, make_environments
from training.rl.minibatches import Minibatch
from training.rl.rollouts import Rollout

N, T, UNITS = 4, 24, 6
SETTINGS = Settings(
    total_steps=3 * N * T,
    environments=N,
    horizon=T,
    epochs=2,
    minibatches=2,
    truncation="bootstrap",
    entropy_coefficient=0.01,
    learning_rate=1e-2,
    hidden=(8,),
    shared_encoder=True,
    lstm=UNITS,
)


class Noise(Environments):
    """Random observations; episodes end, or are cut off, at random steps."""

    def __init__(self, n: int, *, seed: int) -> None:
        self.id, self.n, self.action, self.exact = "noise", n, Discrete(3), False
        self.observation_shape, self.observation_dtype = (3,), np.dtype(np.float64)
        self.rng = np.random.default_rng(seed)

    def reset(self) -> np.ndarray:
        return self.rng.normal(size=(self.n, 3))

    def step(self, actions: np.ndarray) -> Step:
        ends = self.rng.random(self.n)
        terminated, truncated = ends < 0.1, ends > 0.85
        rewards = self.rng.normal(size=self.n) + actions
        episodes = tuple(Episode(i, 0.0, 1) for i in np.flatnonzero(terminated | truncated).tolist())
        return Step(self.reset(), rewards, terminated, truncated, self.reset() if episodes else None, episodes)

    def fresh(self, n: int, seed: int) -> Noise:
        return Noise(n, seed=seed)

    def get_state(self) -> dict[str, Any]:
        return {}

    def set_state(self, state: Mapping[str, Any]) -> np.ndarray:
        return self.reset()


def make(settings: Settings = SETTINGS) -> PPO:
    environments = Noise(settings.environments, seed=1)
    modules = agent(environments, settings, seed=1)
    generator = torch.Generator().manual_seed(2)
    with torch.no_grad():
        for module in modules.values():  # away from where all actions and values are alike
            for parameter in module.parameters():
                parameter.add_(torch.randn(parameter.shape, generator=generator) * 0.8)
    return PPO(environments, modules, settings, seed=1)


class Plain:
    """Encoder, cell and heads, for one environment and one observation at a time."""

    def __init__(self, modules: Mapping[str, nn.Module]) -> None:
        lstm: Any = modules["memory"].lstm
        self.cell = nn.LSTMCell(lstm.input_size, UNITS)
        for name, parameter in lstm.named_parameters():
            setattr(self.cell, name.removesuffix("_l0"), parameter)  # the same weights, so that gradients arrive there
        layers: Any = [modules[name] for name in ("encoder", "policy", "value")]
        self.encoder, self.policy, self.value = (
            layers[0].layers[0],
            layers[1].network.layers[0],
            layers[2].network.layers[0],
        )

    def __call__(
        self, observation: Tensor, state: tuple[Tensor, Tensor]
    ) -> tuple[Tensor, Tensor, tuple[Tensor, Tensor]]:
        h, c = self.cell(torch.tanh(self.encoder(observation))[None], state)
        return torch.log_softmax(self.policy(h[0]), dim=0), self.value(h[0])[0], (h, c)

    def sequence(self, rollout: Rollout, env: int, steps: int) -> list[tuple[Tensor, Tensor, tuple[Tensor, Tensor]]]:
        """Log-probabilities, value and the state behind each step."""
        h, c = torch.from_numpy(rollout.states[env : env + 1]).chunk(2, dim=1)
        found = []
        for t in range(steps):
            if t and rollout.ended[t - 1, env]:
                h, c = torch.zeros(1, UNITS), torch.zeros(1, UNITS)
            log_p, value, (h, c) = self(torch.from_numpy(rollout.observations[t, env]), (h, c))
            found.append((log_p, value, (h, c)))
        return found


def old_numbers(plain: Plain, rollout: Rollout) -> tuple[Tensor, Tensor, Tensor]:
    """Log-probabilities, values and advantages of a rollout, each (step, env), by the weights that collected it."""
    log_probs, values, advantages = (torch.zeros(T, N) for _ in range(3))
    cuts = {(t, env): i for i, (t, env) in enumerate(rollout.cut_at.tolist())}
    for env in range(N):
        found = plain.sequence(rollout, env, T + 1)
        following = 0.0
        for t in range(T - 1, -1, -1):
            log_p, value, state = found[t]
            after = 0.0 if rollout.terminated[t, env] else found[t + 1][1].item()
            if (t, env) in cuts:
                last = torch.from_numpy(rollout.cut_observations[cuts[t, env]])
                after = plain(last, state)[1].item()
            delta = rollout.rewards[t, env] + 0.99 * after - value.item()
            following = delta + (0.0 if rollout.ended[t, env] else 0.99 * 0.95 * following)
            log_probs[t, env] = log_p[int(rollout.actions[t, env, 0])]
            values[t, env], advantages[t, env] = value, following
    return log_probs, values, advantages


def states_behind(plain: Plain, rollout: Rollout) -> Tensor:
    """What the next rollout begins with."""
    found = [torch.cat(plain.sequence(rollout, env, T)[-1][2], dim=1) for env in range(N)]
    return torch.cat(found) * ~torch.from_numpy(rollout.ended[-1])[:, None]


def plain_loss(plain: Plain, rollout: Rollout, envs: list[int], old: tuple[Tensor, Tensor, Tensor]) -> Tensor:
    """The clipped objective over the whole sequences of some environments."""
    log_probs, values, advantages = (table[:, envs].T.reshape(-1) for table in old)
    targets = advantages + values
    advantages = (advantages - advantages.mean()) / (advantages.std() + 1e-8)
    now, actions = [plain.sequence(rollout, env, T) for env in envs], rollout.actions[:, envs, 0].T.reshape(-1)
    log_p = torch.stack([step[0] for found in now for step in found])
    value = torch.stack([step[1] for found in now for step in found])
    ratio = (log_p[torch.arange(len(envs) * T), torch.from_numpy(actions).long()] - log_probs).exp()
    policy_loss = -torch.min(ratio * advantages, ratio.clamp(0.8, 1.2) * advantages).mean()
    held = values + (value - values).clamp(-0.2, 0.2)
    value_loss = 0.5 * torch.max((value - targets) ** 2, (held - targets) ** 2).mean()
    entropy = -(log_p.exp() * log_p).sum(1).mean()
    return policy_loss + 0.5 * value_loss - 0.01 * entropy


def parameters(task: PPO) -> list[nn.Parameter]:
    return [parameter for module in task.modules.values() for parameter in module.parameters()]


def test_updates_are_those_of_the_plain_program() -> None:
    """Over three rollouts: rows, loss and gradients of every minibatch, under weights that move in between."""
    task = make()
    plain, kept, collect = Plain(task.modules), list[Rollout](), task.collector.collect
    task.collector.collect = lambda: kept.append(collect()) or kept[-1]  # type: ignore[method-assign,func-returns-value]
    old: Any = None
    states = torch.zeros(N, 2 * UNITS)
    for step in range(3 * 4):
        batch = task.batch(step)
        rollout = kept[-1]
        if step % 4 == 0:
            assert rollout.ended.sum() > 10
            assert len(rollout.cut_at) > 3
            assert np.allclose(rollout.states, states, atol=1e-5)
            with torch.no_grad():
                old, states = old_numbers(plain, rollout), states_behind(plain, rollout)
            assert states.any()
        envs = task._order.chunk(2)[step % 2].tolist()
        check_rows(batch, rollout, envs, old)
        ours = sum(task.loss(task.modules, batch).values(), torch.zeros(()))
        theirs = plain_loss(plain, rollout, envs, old)
        assert ours.item() == pytest.approx(theirs.item(), abs=1e-5)
        found, expected = (torch.autograd.grad(loss, parameters(task)) for loss in (ours, theirs))
        for parameter, one, other in zip(parameters(task), found, expected, strict=True):
            assert torch.allclose(one, other, atol=1e-5)
            parameter.data -= 0.05 * other


def check_rows(batch: Minibatch, rollout: Rollout, envs: list[int], old: tuple[Tensor, Tensor, Tensor]) -> None:
    log_probs, values, advantages = (table[:, envs].T.reshape(-1) for table in old)
    assert torch.allclose(batch.log_probs, log_probs, atol=1e-5)
    assert torch.allclose(batch.values, values, atol=1e-5)
    assert torch.allclose(batch.targets, advantages + values, atol=1e-5)
    expected = (advantages - advantages.mean()) / (advantages.std() + 1e-8)
    assert torch.allclose(batch.advantages, expected, atol=1e-5)
    seen = rollout.observations[:-1, envs].swapaxes(0, 1).reshape(-1, 3)
    np.testing.assert_array_equal(batch.observations, seen)


def test_what_is_forgotten_matters_to_the_update(monkeypatch: pytest.MonkeyPatch) -> None:
    """The loss is another one where states are not reset within a sequence, or not kept from the last rollout."""
    task = make()
    for step in range(4):
        task.batch(step)
    batch = task.batch(4)
    assert batch.sequences is not None

    def loss(**changes: Tensor) -> float:
        assert batch.sequences is not None
        changed = batch._replace(sequences=batch.sequences._replace(**changes))
        return float(sum(term.item() for term in task.loss(task.modules, changed).values()))

    right = loss()
    assert abs(loss(begins=torch.zeros_like(batch.sequences.begins)) - right) > 1e-3
    assert abs(loss(states=torch.zeros_like(batch.sequences.states)) - right) > 1e-3


def test_pieces_of_a_minibatch_are_the_same_update() -> None:
    weights = []
    for pieces in (1, 2):
        task = make()
        train(task, task.parts(), steps=6, max_gradient_norm=0.5, options=Options(accumulate=pieces))
        weights.append(torch.cat([parameter.detach().ravel() for parameter in parameters(task)]))
    assert torch.allclose(weights[0], weights[1], atol=1e-6)
    task = make()
    with pytest.raises(TrainingError, match=r"^batch of shape \(2, 12\): expected rows that 4 pieces .* got 2; choose"):
        train(task, task.parts(), steps=1, options=Options(accumulate=4))


def test_the_memory_is_a_part_like_the_others() -> None:
    task = make()
    assert task.feeds == ("encoder", "memory", "policy", "value")
    before = {name: [p.detach().clone() for p in module.parameters()] for name, module in task.modules.items()}

    def moved() -> set[str]:
        same = {
            name: all(torch.equal(p, q) for p, q in zip(module.parameters(), before[name], strict=True))
            for name, module in task.modules.items()
        }
        return {name for name, equal in same.items() if not equal}

    train(task, task.parts(), steps=2, only=("memory",))
    assert moved() == {"memory"}
    task = make()
    parts = task.parts()
    parts["memory"] = replace(parts["memory"], optimizers=())
    train(task, parts, steps=2)
    assert moved() == {"encoder", "policy", "value"}  # gradients go through the frozen memory to the encoder
    task = make()
    parts = task.parts()
    parts["memory"] = replace(parts["memory"], schedule=lambda step: 0.0)
    train(task, parts, steps=2)
    assert moved() == {"encoder", "policy", "value"}


def test_statistics_see_the_states_too() -> None:
    """Before the first update pi is pi_old, which only holds if every row has the state that it was collected with."""
    task = make()
    task.batch(0)
    assert task.statistics is not None
    assert task.statistics.kl == pytest.approx(0.0, abs=1e-6)
    train(task, task.parts(), steps=3)
    assert task.rollouts == 1
    assert task.statistics.kl > 1e-4


@pytest.mark.parametrize("deterministic", [True, False])
def test_evaluation_carries_states_and_forgets_with_the_episode(deterministic: bool) -> None:
    """Two episodes of each of two pendulums, by hand; drawn actions are those of the same random numbers."""
    import gymnasium as gym

    environments = make_environments("Pendulum-v1", N, seed=0)
    settings = replace(SETTINGS, total_steps=N * T)
    task = PPO(environments, agent(environments, settings, seed=3), settings, seed=0)
    with torch.no_grad():
        for parameter in parameters(task):
            parameter.mul_(1.5)
        task.modules["policy"].network.layers[0].weight.mul_(100)  # type: ignore[union-attr,index]
    found = evaluate(task, episodes=4, environments=2, seed=11, deterministic=deterministic)
    modules: Any = task.modules
    cell, rng = nn.LSTMCell(8, UNITS), np.random.default_rng(11)
    cell.load_state_dict({name.removesuffix("_l0"): v for name, v in modules["memory"].lstm.state_dict().items()})
    envs = [gym.make("Pendulum-v1") for _ in range(2)]
    rows, totals = [env.reset(seed=11 + i)[0] for i, env in enumerate(envs)], []
    for _ in range(2):
        h, c, returns = torch.zeros(2, UNITS), torch.zeros(2, UNITS), np.zeros(2)
        for _ in range(200):
            with torch.no_grad():
                h, c = cell(modules["encoder"](torch.from_numpy(np.stack(rows))), (h, c))
                policy = modules["policy"](h)
            action = policy.mean.numpy()
            if not deterministic:
                action = (action + policy.log_std.exp().detach().numpy() * rng.standard_normal((2, 1))).astype(
                    np.float32
                )
            steps = [env.step(np.clip(row, -2, 2)) for env, row in zip(envs, action, strict=True)]
            rows = [step[0] for step in steps]
            returns += [float(step[1]) for step in steps]
        totals += returns.tolist()
        rows = [env.reset()[0] for env in envs]
    np.testing.assert_allclose(sorted(found.returns), sorted(totals), rtol=1e-3)


def test_a_memory_that_does_not_fit_is_refused() -> None:
    environments = Noise(N, seed=0)
    modules = agent(environments, SETTINGS, seed=0)
    del modules["memory"]
    with pytest.raises(
        ValueError, match=r"^PPO on noise: expected modules encoder, memory, policy, value, got encoder, p"
    ):
        PPO(environments, modules, SETTINGS, seed=0)


class Pictures(Noise):
    """Random images."""

    def __init__(self, n: int, *, seed: int) -> None:
        super().__init__(n, seed=seed)
        self.observation_shape, self.observation_dtype = (2, 36, 36), np.dtype(np.uint8)

    def reset(self) -> np.ndarray:
        return self.rng.integers(0, 256, size=(self.n, 2, 36, 36), dtype=np.uint8)


@pytest.mark.parametrize("lstm", [None, UNITS])
def test_images_are_bytes_in_the_rollout_and_numbers_in_the_minibatch(lstm: int | None) -> None:
    settings = replace(SETTINGS, network="nature", lstm=lstm)
    environments = Pictures(N, seed=1)
    task = PPO(environments, agent(environments, settings, seed=1), settings, seed=1)
    kept, collect = list[Rollout](), task.collector.collect
    task.collector.collect = lambda: kept.append(collect()) or kept[-1]  # type: ignore[method-assign,func-returns-value]
    batch, again = task.batch(0), task.batch(1)
    assert kept[0].observations.dtype == kept[0].cut_observations.dtype == np.uint8
    assert task.state_dict()["rows"][0].dtype == torch.uint8
    assert batch.observations.dtype == torch.float32
    seen = torch.cat([batch.observations, again.observations]).to(torch.uint8).numpy()
    assert {row.tobytes() for row in seen} == {row.tobytes() for row in kept[0].observations[:-1].reshape(-1, 2592)}
    task.loss(task.modules, batch)
    assert task.statistics is not None
    assert task.statistics.approx_kl == pytest.approx(0.0, abs=1e-6)  # rows, actions and states belong together
    before = [parameter.detach().clone() for parameter in parameters(task)]
    train(task, task.parts(), steps=2, max_gradient_norm=0.5)
    assert not any(torch.equal(one, other) for one, other in zip(parameters(task), before, strict=True))

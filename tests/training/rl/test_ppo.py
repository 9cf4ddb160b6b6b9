"""The task: what its minibatches are, when it collects, and what it takes from the settings."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch

from training import Options, Part, TrainingError, every, train
from training.rl import PPO, AdaptiveKL, Clip, FixedKL, Settings, Unpenalised, agent, make_environments
from training.rl.minibatches import prepare
from training.rl.objectives import Objective

SMALL = Settings(total_steps=4 * 64, environments=2, horizon=32, epochs=3, minibatches=4)


def make(settings: Settings = SMALL, id: str = "CartPole-v1", seed: int = 0) -> PPO:
    environments = make_environments(id, settings.environments, seed=seed)
    return PPO(environments, agent(environments, settings, seed=seed), settings, seed=seed)


def go(task: PPO, parts: dict[str, Part] | None = None, **options: Any) -> Any:
    return train(task, parts or task.parts(), **{"steps": task.updates, "max_gradient_norm": 0.5, **options})


def test_every_epoch_goes_through_the_whole_rollout_in_another_order() -> None:
    task = make()
    orders = []
    for epoch in range(3):
        batches = [task.batch(4 * epoch + i) for i in range(4)]
        assert [len(batch.values) for batch in batches] == [16] * 4
        orders.append(torch.cat([batch.log_probs for batch in batches]))
        keys = torch.cat([batch.observations for batch in batches])
        assert len(torch.unique(keys, dim=0)) == 64
        for batch in batches:
            assert batch.advantages.mean().item() == pytest.approx(0, abs=1e-5)
            assert batch.advantages.std().item() == pytest.approx(1, abs=1e-3)
    assert task.environment_steps == 64
    assert torch.equal(orders[0].sort().values, orders[1].sort().values)
    assert not torch.equal(orders[0], orders[1])
    task.batch(12)
    assert task.environment_steps == 128


def test_rows_keep_what_belongs_together() -> None:
    """Values and log-probabilities of each row are those of its own observation and action."""
    task = make(replace(SMALL, normalise_advantages=False))
    for step in range(4):
        batch = task.batch(step)
        with torch.no_grad():
            policy = task.modules["policy"](batch.observations)
            assert torch.allclose(policy.log_prob(batch.actions), batch.log_probs, atol=1e-6)
            assert torch.allclose(task.modules["value"](batch.observations), batch.values, atol=1e-6)
        assert torch.allclose(batch.advantages + batch.values, batch.targets, atol=1e-5)


def test_steps_are_counted_and_episodes_logged_raw() -> None:
    settings = replace(SMALL, total_steps=1280, scale_rewards=True, normalise_observations=True)
    task = make(settings)
    run = go(task, callbacks=(task.finish,))
    assert (run.step, task.environment_steps, task.rollouts, task.progress) == (task.updates, 1280, 20, 1.0)
    log = task.episodes
    assert len(log.returns) > 10
    assert (log.returns == log.lengths).all()  # CartPole pays 1 a step, however rewards are scaled
    assert (np.diff(log.environment_steps) >= 0).all()
    assert log.lengths.sum() <= 1280
    assert run.stopped == "1280 environment steps"


def test_statistics_are_there_for_callbacks() -> None:
    task, seen = make(), list[Any]()
    assert task.statistics is None
    go(task, callbacks=[every(4, lambda run: seen.append(task.statistics))])
    assert seen[0] is None
    assert [s.updates for s in seen[1:]] == [4, 8, 12] * 4
    assert [s.rollouts for s in seen[1:]] == [1] * 3 + [2] * 3 + [3] * 3 + [4] * 3
    last = seen[3]
    assert 0 < last.kl < 0.1
    assert last.approx_kl == pytest.approx(last.kl, abs=0.02)
    assert 0 <= last.clip_fraction < 1
    assert last.entropy == pytest.approx(np.log(2), abs=0.01)


def rates_of(part: Part) -> list[float]:
    """The rate of each step that the part's optimiser will make."""
    rates: list[float] = []
    part.optimizers[0].register_step_pre_hook(lambda optimizer, *_: rates.append(optimizer.param_groups[0]["lr"]))
    return rates


def test_the_rate_falls_once_a_rollout() -> None:
    task = make()
    parts = task.parts()
    rates = rates_of(parts["value"])
    go(task, parts)
    assert rates == pytest.approx([3e-4 * (1 - rollout / 4) for rollout in range(4) for _ in range(12)])
    assert task.annealing(10_000) == 0.0
    fixed = make(replace(SMALL, anneal_learning_rate=False)).parts()["policy"]
    assert fixed.schedule(40) == 1.0


def test_the_target_kl_leaves_out_epochs_and_the_run_still_ends() -> None:
    settings = replace(SMALL, target_kl=1e-9, learning_rate=1e-2)
    task = make(settings)
    parts = task.parts()
    rates = rates_of(parts["policy"])
    run = go(task, parts, callbacks=[task.finish])
    assert run.step == 4 * 4  # one epoch of each rollout
    assert task.environment_steps == 256
    assert run.stopped == "256 environment steps"
    assert rates == pytest.approx([1e-2 * (1 - rollout / 4) for rollout in range(4) for _ in range(4)])


def test_the_target_kl_is_refused_in_several_processes() -> None:
    task = make(replace(SMALL, target_kl=0.02))
    before = task.modules["policy"].state_dict()["network.layers.0.weight"].clone()
    message = (
        r"^Settings\.target_kl with Options\.data_parallel: expected None, got 0\.02, as .*; leave one of the two out$"
    )
    with pytest.raises(TrainingError, match=message):
        go(task, options=Options(data_parallel=True))
    assert task.environment_steps == 0
    assert torch.equal(before, task.modules["policy"].state_dict()["network.layers.0.weight"])
    task.check_options(Options())
    make().check_options(Options(data_parallel=True))


def test_environments_are_not_asked_for_a_state_before_their_first_episode() -> None:
    """Pendulum has none then."""
    task = make(Settings(total_steps=64, horizon=64, minibatches=1, epochs=1), "Pendulum-v1")
    assert task.state_dict()["collector"]["environments"] is None
    assert np.isfinite(go(task).loss)


def test_the_adaptive_penalty_changes_between_rollouts() -> None:
    seen: list[float] = []
    task = make(replace(SMALL, objective=AdaptiveKL(target=1e3)))
    go(task, callbacks=[every(12, lambda run: seen.append(task.kl_coefficient))])
    assert seen == [1.0, 1.0, 0.5, 0.25, 0.125]  # halved once each rollout is used up
    task = make(replace(SMALL, objective=AdaptiveKL(target=1e-9)))
    go(task)
    assert task.kl_coefficient == 8.0
    fixed = make(replace(SMALL, objective=FixedKL(3.0)))
    go(fixed)
    assert fixed.kl_coefficient == 3.0


def test_the_penalty_holds_the_policy_back() -> None:
    moved = {}
    for objective in (Unpenalised(), FixedKL(30.0)):
        task = make(replace(SMALL, objective=objective, epochs=20, learning_rate=3e-3, anneal_learning_rate=False))
        go(task, steps=80)
        assert task.statistics is not None
        moved[objective] = task.statistics.kl
    assert moved[FixedKL(30.0)] < 0.3 * moved[Unpenalised()]


def test_the_clip_range_is_annealed() -> None:
    task = make(replace(SMALL, anneal_clip_range=True))
    go(task, steps=37)
    assert task.rollouts == 4
    batch = task.batch(37)._replace(log_probs=torch.full((16,), -10.0), advantages=torch.ones(16))
    assert task.loss(task.modules, batch)["policy"].item() == pytest.approx(-(1 + 0.2 / 4), abs=1e-5)


@pytest.mark.parametrize("truncation", ["terminal", "bootstrap"])
def test_truncated_episodes_end_or_go_on_in_value(truncation: Any) -> None:
    """Pendulum ends by its time limit alone; the target of the last step has the value of what followed, or not."""
    settings = Settings(total_steps=500, horizon=250, minibatches=1, epochs=1, truncation=truncation, gae_lambda=0.0)
    task = make(settings, "Pendulum-v1")
    rollout = task.collector.collect()
    assert rollout.cut_at.tolist() == [[199, 0]]
    assert not rollout.terminated.any()
    assert np.flatnonzero(rollout.ended[:, 0]).tolist() == [199]
    targets = prepare(rollout, task.modules, settings, torch.device("cpu")).rows.targets
    with torch.no_grad():
        after = task.modules["value"](torch.from_numpy(rollout.cut_observations))[0].item()
        inside = task.modules["value"](torch.from_numpy(rollout.observations[101]))[0].item()
    bootstrap = 0.99 * after if truncation == "bootstrap" else 0.0
    assert targets[199].item() == pytest.approx(rollout.rewards[199, 0] + bootstrap, abs=1e-5)
    assert targets[100].item() == pytest.approx(rollout.rewards[100, 0] + 0.99 * inside, abs=1e-5)


def test_actions_are_clipped_where_they_are_carried_out_and_kept_as_drawn() -> None:
    settings = Settings(total_steps=64, horizon=64, minibatches=1, epochs=1)
    task, carried = make(settings, "InvertedPendulum-v5"), list[Any]()
    policy = task.modules["policy"]
    with torch.no_grad():
        policy.log_std.fill_(2.0)  # type: ignore[operator]
    real = task.collector.environments.step
    task.collector.environments.step = lambda actions: carried.append(actions) or real(actions)  # type: ignore
    drawn = task.batch(0).actions
    assert drawn.abs().max() > 3
    assert np.abs(np.array(carried)).max() == 3.0
    clipped, order = np.clip(drawn.numpy(), -3, 3).ravel(), np.argsort(drawn.numpy().ravel())
    np.testing.assert_allclose(np.sort(np.array(carried).ravel()), clipped[order])


def test_parts_are_trained_apart_or_together() -> None:
    task = make()
    before = {name: [p.detach().clone() for p in module.parameters()] for name, module in task.modules.items()}
    go(task, steps=8, only=("value",))
    same = {
        name: all(torch.equal(p, q) for p, q in zip(module.parameters(), before[name], strict=True))
        for name, module in task.modules.items()
    }
    assert same == {"policy": True, "value": False}
    shared = make(replace(SMALL, shared_encoder=True))
    assert shared.feeds == ("encoder", "policy", "value")
    weights = [p.detach().clone() for p in shared.modules["encoder"].parameters()]
    go(shared, steps=4)
    assert not any(torch.equal(p, q) for p, q in zip(shared.modules["encoder"].parameters(), weights, strict=True))


@pytest.mark.parametrize("objective", [Clip(), FixedKL()])
def test_accumulation_is_the_same_update(objective: Objective) -> None:
    weights = []
    for pieces in (1, 2):
        task = make(replace(SMALL, objective=objective))
        go(task, steps=6, options=Options(accumulate=pieces))
        weights.append(torch.cat([p.detach().ravel() for m in task.modules.values() for p in m.parameters()]))
    assert torch.allclose(weights[0], weights[1], atol=1e-6)


def test_bfloat16_and_float64_go_the_slow_way() -> None:
    task = make()
    run = go(task, steps=4, options=Options(precision="bfloat16"))
    assert np.isfinite(run.loss)


def test_seeds_decide_all() -> None:
    def weights(seed: int) -> torch.Tensor:
        task = make(seed=seed)
        go(task, steps=14)
        return torch.cat([p.detach().ravel() for m in task.modules.values() for p in m.parameters()])

    assert torch.equal(weights(1), weights(1))
    assert not torch.equal(weights(1), weights(2))


def test_what_does_not_fit_is_refused() -> None:
    environments = make_environments("CartPole-v1", 2, seed=0)
    modules = agent(environments, SMALL, seed=0)
    three = make_environments("CartPole-v1", 3, seed=0)
    with pytest.raises(ValueError, match=r"^PPO on CartPole-v1: expected 2 environments .*, got 3; make as many$"):
        PPO(three, modules, SMALL, seed=0)
    with pytest.raises(ValueError, match=r"^PPO on CartPole-v1: expected modules policy, value, got value; take those"):
        PPO(environments, {"value": modules["value"]}, SMALL, seed=0)
    cheetah = make_environments("Acrobot-v1", 2, seed=0)
    with pytest.raises(
        ValueError, match=r"^PPO on Acrobot-v1: expected a Policy for Discrete\(n=3\), got Discrete\(n=2\)"
    ):
        PPO(cheetah, modules, SMALL, seed=0)

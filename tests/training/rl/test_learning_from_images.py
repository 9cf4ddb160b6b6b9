"""The whole way from pixels to actions: learning, resumption, evaluation."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch
from tests.training.rl.small_games import Captured, Moving, registered

from training import Run, restore, save, train
from training.rl import PPO, AtariOptions, Settings, agent, evaluate, make_environments

LEARNING = Settings(
    total_steps=1536,
    environments=8,
    horizon=32,
    epochs=4,
    minibatches=4,
    learning_rate=1e-3,
    gamma=0.5,
    entropy_coefficient=0.01,
    network="nature",
    shared_encoder=True,
)


def learn(stack: int, settings: Settings = LEARNING) -> float:
    """The mean return of the best actions; 0.5 by chance."""
    options = AtariOptions(noops=0, skip=1, life_episodes=False, size=None, stack=stack)
    with registered(Moving) as id:
        environments = make_environments(id, settings.environments, seed=0, wrappers=options)
        task = PPO(environments, agent(environments, settings, seed=0), settings, seed=0)
        train(task, task.parts(), steps=task.updates, max_gradient_norm=0.5, callbacks=[task.finish])
        return float(evaluate(task, episodes=200, seed=1).returns.mean())


def test_two_stacked_images_say_which_way_it_goes() -> None:
    assert learn(stack=2) > 0.95


def test_one_image_does_not() -> None:
    assert 0.35 < learn(stack=1) < 0.65


def test_a_resumed_run_ends_with_the_same_bits(tmp_path: Path) -> None:
    options = AtariOptions(noops=3, skip=2, size=None, grey=False, stack=2)
    settings = Settings(
        total_steps=4 * 16, environments=2, horizon=8, epochs=2, minibatches=2, network="nature", shared_encoder=True
    )

    class Larger(Captured):
        rows, columns = 36, 40

    def made(id: str) -> PPO:
        environments = make_environments(id, 2, seed=1, wrappers=options)
        assert environments.exact
        return PPO(environments, agent(environments, settings, seed=1), settings, seed=1)

    with registered(Larger, lives=3) as id:
        whole = made(id)
        keep = [lambda run: save(run, tmp_path / f"{run.step}.pt") if run.step in (3, 6, 9) else None]
        train(whole, whole.parts(), steps=whole.updates, max_gradient_norm=0.5, callbacks=keep)
        assert whole.collector.episodes.returns.size > 0
        for place in (3, 6, 9):
            again = made(id)
            parts = again.parts()
            run = restore(Run.of(again, parts), tmp_path / f"{place}.pt")
            train(again, parts, steps=again.updates, max_gradient_norm=0.5, run=run)
            for name, module in whole.modules.items():
                for one, other in zip(module.parameters(), again.modules[name].parameters(), strict=True):
                    assert torch.equal(one, other)
            np.testing.assert_array_equal(whole.episodes.returns, again.episodes.returns)

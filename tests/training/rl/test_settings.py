"""Settings that make no sense are refused, and the recipes are those of their sources."""

from __future__ import annotations

from dataclasses import fields
from typing import Any

import pytest

from training.rl import Clip, Settings, atari, classic_control, mujoco_tasks


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"environments": 0}, r"^Settings\.environments: expected a whole number from 1, got 0$"),
        (
            {"minibatches": 3},
            r"^Settings\.minibatches: expected a divisor of environments x horizon = 2048, got 3; take",
        ),
        ({"total_steps": 2047}, r"^Settings\.total_steps: expected at least one rollout, 2048 steps, got 2047$"),
        ({"lstm": 0, "shared_encoder": True}, r"^Settings\.lstm: expected a number of units from 1, or None, got 0$"),
        ({"lstm": 8}, r"^Settings\.shared_encoder: expected True with lstm, .*, got False; set it$"),
        (
            {"lstm": 8, "shared_encoder": True, "environments": 6, "horizon": 128, "minibatches": 4},
            r"^Settings\.minibatches: expected a divisor of environments = 6 with lstm, .*, got 4; take one",
        ),
        (
            {"network": "nature"},
            r"^Settings\.shared_encoder: expected True with the network 'nature', .*, got False; set it$",
        ),
        (
            {"network": "nature", "shared_encoder": True, "normalise_observations": True},
            r"^Settings\.normalise_observations: expected False with the network 'nature', .*, got True; leave it out$",
        ),
        ({"gamma": 1.5}, r"^Settings\.gamma: expected a number from 0 to 1, got 1\.5$"),
    ],
)
def test_what_makes_no_sense(wrong: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        Settings(**{"total_steps": 10_000, **wrong})


def test_an_unknown_truncation_or_network() -> None:
    settings = Settings(total_steps=10_000)
    object.__setattr__(settings, "truncation", "none")  # past the type check of the test run
    with pytest.raises(ValueError, match=r"^Settings\.truncation: expected terminal or bootstrap, got 'none'$"):
        settings.__post_init__()
    settings = Settings(total_steps=10_000)
    object.__setattr__(settings, "network", "linear")
    with pytest.raises(ValueError, match=r"^Settings\.network: expected tanh or nature, got 'linear'$"):
        settings.__post_init__()


def test_recipes() -> None:
    mujoco = mujoco_tasks(1_000_000)  # the paper's Table 3
    found = (mujoco.horizon, mujoco.learning_rate, mujoco.epochs, mujoco.batch // mujoco.minibatches)
    assert found == (2048, 3e-4, 10, 64)
    assert (mujoco.gamma, mujoco.gae_lambda, mujoco.objective) == (0.99, 0.95, Clip(0.2))
    assert (mujoco.rollouts, mujoco.updates) == (488, 488 * 320)
    assert mujoco.normalise_observations
    assert mujoco.scale_rewards
    classic = classic_control(500_000)
    assert (classic.batch, classic.updates) == (512, 976 * 16)
    games = atari(10_000_000)  # the paper's Table 5
    assert (games.horizon, games.environments, games.epochs, games.batch // games.minibatches) == (128, 8, 3, 32 * 8)
    assert (games.learning_rate, games.objective, games.gamma, games.gae_lambda) == (2.5e-4, Clip(0.1), 0.99, 0.95)
    assert (games.entropy_coefficient, games.value_coefficient) == (0.01, 2 * 1.0)
    assert games.anneal_learning_rate
    assert games.anneal_clip_range
    assert games.rollouts == 9765
    other = atari(10_000_000, source="ppo2")
    assert (other.epochs, other.value_coefficient) == (4, 0.5)


def test_every_field_is_explained_and_listed() -> None:
    text, settings = str(Settings.__doc__), mujoco_tasks(4096)
    for field in fields(Settings):
        assert f"        {field.name}: " in text
    assert settings.described()["objective"] == "Clip(epsilon=0.2)"
    assert len(settings.described()) == len(fields(Settings))

"""A captured environment, put back, gives the same bits for the same actions, within an episode and over its end."""

from __future__ import annotations

import io
import sys
from types import ModuleType
from typing import Any

import numpy as np
import pytest
import torch

from training.rl import Box, Environments, capture, make_environments

CLASSIC = ["CartPole-v1", "Acrobot-v1", "MountainCar-v0", "MountainCarContinuous-v0", "Pendulum-v1"]
MUJOCO = [
    "HalfCheetah-v5",
    "Hopper-v5",
    "InvertedDoublePendulum-v5",
    "InvertedPendulum-v5",
    "Reacher-v5",
    "Swimmer-v5",
    "Walker2d-v5",
    "Ant-v5",
    "Humanoid-v5",
]


def actions(environments: Environments, steps: int) -> list[np.ndarray[Any, Any]]:
    rng, action = np.random.default_rng(3), environments.action
    if isinstance(action, Box):
        shape = (environments.n, action.columns)
        return [rng.uniform(action.low, action.high, shape).astype(np.float32) for _ in range(steps)]
    return [rng.integers(action.n, size=environments.n) for _ in range(steps)]  # type: ignore[union-attr]


def play(environments: Environments, chosen: list[np.ndarray[Any, Any]]) -> list[np.ndarray[Any, Any]]:
    seen = []
    for action in chosen:
        step = environments.step(action)
        ended = np.array([episode[1:] for episode in step.episodes]).ravel()
        seen += [step.observations, step.rewards, step.terminated, step.truncated, ended]
    return seen


@pytest.mark.parametrize("id", CLASSIC + MUJOCO)
def test_restored_environments_go_on_bit_for_bit(id: str) -> None:
    steps = 50 if id == "Humanoid-v5" else 200
    environments = make_environments(id, 2, seed=5)
    assert environments.exact
    environments.reset()
    chosen = actions(environments, 17 + steps)
    play(environments, chosen[:17])
    file = io.BytesIO()
    torch.save(environments.get_state(), file)
    expected = play(environments, chosen[17:])
    for other in (environments, make_environments(id, 2, seed=99)):
        file.seek(0)
        assert other.set_state(torch.load(file, weights_only=True)) is None
        for ours, theirs in zip(play(other, chosen[17:]), expected, strict=True):
            np.testing.assert_array_equal(ours, theirs)


def test_capturing_changes_nothing() -> None:
    one, other = make_environments("Hopper-v5", 1, seed=5), make_environments("Hopper-v5", 1, seed=5)
    one.reset()
    other.reset()
    chosen = actions(one, 60)
    for action in chosen:
        one.get_state()
        np.testing.assert_array_equal(one.step(action).observations, other.step(action).observations)


def test_what_cannot_be_captured_begins_new_episodes() -> None:
    import gymnasium as gym
    from gymnasium.envs.classic_control import PendulumEnv

    class Elsewhere(PendulumEnv):  # type: ignore[misc]
        """Not one of Gymnasium's own modules."""

    gym.register("Elsewhere-v0", entry_point=Elsewhere, max_episode_steps=200)
    try:
        environments = make_environments("Elsewhere-v0", 2, seed=0)
        assert not environments.exact
        environments.reset()
        play(environments, actions(environments, 5))
        fresh = environments.set_state(environments.get_state())
        assert fresh is not None
        assert fresh.shape == (2, 3)
        assert len(play(environments, actions(environments, 199))[-1]) == 0
        assert len(play(environments, actions(environments, 1))[-1]) == 4  # two episodes of 200 steps end here
    finally:
        del gym.registry["Elsewhere-v0"]


def test_a_games_emulator_is_captured_unless_its_state_is_incomplete(monkeypatch: pytest.MonkeyPatch) -> None:
    """With a stand-in for ale-py: its state is bytes, and random numbers are asked for."""
    import gymnasium as gym

    class State:
        def __init__(self, serialised: bytes) -> None:
            self.serialised = serialised

        def serialize(self) -> bytes:
            return self.serialised

    class Emulated(gym.Env[Any, Any]):  # type: ignore[misc]
        def __init__(self, game: str) -> None:
            self._game, self.memory = game, bytes(range(200))

        def clone_state(self, include_rng: bool = False) -> State:
            assert include_rng
            return State(self.memory)

        def restore_state(self, state: State) -> None:
            self.memory = state.serialised

    stand_in = ModuleType("ale_py")
    stand_in.AtariEnv, stand_in.ALEState = Emulated, State  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "ale_py", stand_in)
    assert not capture.can_capture(Emulated("qbert"))
    game = Emulated("breakout")
    assert capture.can_capture(game)
    game.np_random.random()
    file = io.BytesIO()
    torch.save(capture.capture(game), file)
    expected, game.memory = game.np_random.random(), b""
    file.seek(0)
    capture.restore(game, torch.load(file, weights_only=True))
    assert game.memory == bytes(range(200))
    assert game.np_random.random() == expected

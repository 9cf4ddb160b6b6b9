"""Environments step as Gymnasium's own do, reset in the same step, and refuse what they cannot deal with."""

from __future__ import annotations

import subprocess
import sys
import warnings
from collections.abc import Iterator
from typing import Any

import gymnasium as gym
import numpy as np
import pytest
from gymnasium import spaces
from gymnasium.vector import AutoresetMode, SyncVectorEnv

from training.rl import AtariOptions, Box, Discrete, MultiDiscrete, UnsupportedEnvironment, make_environments
from training.rl.cartpole import CartPoles
from training.rl.gymnasium_environments import GymnasiumEnvironments


def reference(id: str, n: int) -> SyncVectorEnv:
    return SyncVectorEnv([lambda: gym.make(id)] * n, autoreset_mode=AutoresetMode.SAME_STEP)


def assert_same(id: str, n: int, steps: int, discrete: int | None, seed: int = 7) -> int:
    """Step both with the same actions; returns how many episodes ended."""
    ours, theirs, rng, ended = make_environments(id, n, seed=seed), reference(id, n), np.random.default_rng(0), 0
    first, _ = theirs.reset(seed=seed)
    np.testing.assert_array_equal(ours.reset(), first)
    for _ in range(steps):
        action: Any
        if discrete:
            action = rng.integers(discrete, size=n)
        else:
            box = theirs.action_space
            action = rng.uniform(box.low, box.high).astype(np.float32)
        step = ours.step(action)
        observation, reward, terminated, truncated, info = theirs.step(action)
        np.testing.assert_array_equal(step.observations, observation)
        np.testing.assert_array_equal(step.rewards, reward)
        np.testing.assert_array_equal(step.terminated, terminated)
        np.testing.assert_array_equal(step.truncated, truncated)
        over = np.flatnonzero(terminated | truncated)
        assert [episode.environment for episode in step.episodes] == over.tolist()
        assert (step.final_observations is None) == (len(over) == 0)
        for i in over:
            ended += 1
            assert step.final_observations is not None
            np.testing.assert_array_equal(step.final_observations[i], info["final_obs"][i])
    theirs.close()
    return ended


@pytest.mark.parametrize("id", ["CartPole-v1", "CartPole-v0"])
def test_cartpole_is_gymnasiums_bit_for_bit(id: str) -> None:
    assert isinstance(make_environments(id, 1, seed=0), CartPoles)
    assert assert_same(id, 5, 300, discrete=2) > 20


def test_cartpoles_state_is_gymnasiums_in_float64() -> None:
    carts, envs, rng = (
        CartPoles("CartPole-v1", 3, seed=2),
        [gym.make("CartPole-v1") for _ in range(3)],
        np.random.default_rng(1),
    )
    carts.reset()
    for i, env in enumerate(envs):
        env.reset(seed=2 + i)
    for _ in range(200):
        actions = rng.integers(2, size=3)
        step = carts.step(actions)
        for i, env in enumerate(envs):
            if env.step(int(actions[i]))[2]:
                env.reset()
            np.testing.assert_array_equal(carts.state[:, i], env.unwrapped.state)
        assert step.rewards.tolist() == [1.0] * 3


def test_cartpole_is_truncated_at_its_time_limit() -> None:
    """A hand-made controller holds the pole up; after 500 steps the time limit ends the episode, and only it."""
    carts = make_environments("CartPole-v1", 2, seed=1)
    observations, rewards = carts.reset(), np.zeros(2)
    for _ in range(500):
        step = carts.step((observations @ np.array([0.5, 1.0, 10.0, 2.0]) > 0).astype(np.int64))
        observations, rewards = step.observations, rewards + step.rewards
    assert step.truncated.all()
    assert not step.terminated.any()
    assert [(episode.total, episode.length) for episode in step.episodes] == [(500.0, 500)] * 2
    assert rewards.tolist() == [500.0, 500.0]
    assert step.final_observations is not None
    assert np.abs(step.observations).max() <= 0.05  # the first of the next episode
    assert np.abs(step.final_observations[:, 0]).max() > 0.05


@pytest.mark.parametrize(
    ("id", "steps"),
    [("HalfCheetah-v5", 60), ("Hopper-v5", 120), ("InvertedPendulum-v5", 60), ("Reacher-v5", 120), ("Walker2d-v5", 80)],
)
def test_mujoco_is_gymnasiums_bit_for_bit(id: str, steps: int) -> None:
    ended = assert_same(id, 2, steps, discrete=None)
    assert ended > 0 or id == "HalfCheetah-v5"


def test_classic_control_is_gymnasiums_bit_for_bit() -> None:
    assert assert_same("Pendulum-v1", 2, 450, discrete=None) == 4
    assert_same("Acrobot-v1", 2, 60, discrete=3)
    assert assert_same("MountainCar-v0", 2, 250, discrete=3) == 2


class Switches(gym.Env[Any, Any]):  # type: ignore[misc]
    """Two switches; the reward is 1 where both are as the observation says, and an episode has three steps."""

    observation_space = spaces.Box(-1.0, 1.0, (2,), np.float32)
    action_space = spaces.MultiDiscrete([2, 3])

    def reset(self, *, seed: int | None = None, options: Any = None) -> tuple[Any, dict[str, Any]]:
        super().reset(seed=seed)
        self.steps = 0
        return np.zeros(2, np.float32), {}

    def step(self, action: Any) -> tuple[Any, float, bool, bool, dict[str, Any]]:
        assert self.action_space.contains(action)
        self.steps += 1
        return np.full(2, self.steps / 3, np.float32), float(action[0] + 10 * action[1]), self.steps == 3, False, {}


@pytest.fixture
def registered() -> Iterator[str]:
    gym.register("Switches-v0", entry_point=Switches)
    yield "Switches-v0"
    del gym.registry["Switches-v0"]


def test_multi_discrete_actions_and_raw_returns(registered: str) -> None:
    switches = make_environments(registered, 2, seed=0)
    assert switches.action == MultiDiscrete((2, 3))
    assert not switches.exact
    switches.reset()
    actions = np.array([[1, 2], [0, 1]])
    for _ in range(3):
        step = switches.step(actions)
    assert [(episode.total, episode.length) for episode in step.episodes] == [(63.0, 3), (30.0, 3)]
    assert step.final_observations is not None
    assert step.final_observations.tolist() == [[1.0, 1.0]] * 2
    assert step.observations.tolist() == [[0.0, 0.0]] * 2


def test_spaces_are_read() -> None:
    cheetah = make_environments("HalfCheetah-v5", 1, seed=0)
    assert isinstance(cheetah, GymnasiumEnvironments)
    assert cheetah.action == Box((-1.0,) * 6, (1.0,) * 6)
    assert cheetah.observation_size == 17
    assert make_environments("Acrobot-v1", 1, seed=0).action == Discrete(3)


def test_wrappers_that_a_specification_asks_for_are_kept() -> None:
    from gymnasium.wrappers import RescaleObservation

    low, high = np.zeros(2, np.float32), np.ones(2, np.float32)
    wrapper = RescaleObservation.wrapper_spec(min_obs=low, max_obs=high)
    gym.register(
        "Rescaled-v0",
        entry_point=Switches,
        additional_wrappers=(wrapper,),
        max_episode_steps=2,
        disable_env_checker=True,
    )
    try:
        wrapped = make_environments("Rescaled-v0", 1, seed=0)
        assert wrapped.reset().tolist() == [[0.5, 0.5]]
        assert not wrapped.exact
        wrapped.step(np.zeros((1, 2)))
        assert wrapped.step(np.zeros((1, 2))).truncated.tolist() == [True]
    finally:
        del gym.registry["Rescaled-v0"]


@pytest.mark.parametrize(
    ("id", "message"),
    [
        ("NoSuchThing-v1", r"^NoSuchThing-v1: no such environment \(.*doesn't exist.*\); gymnasium\.pprint_registry"),
        ("CartPole-v9", r"^CartPole-v9: no such environment \(Environment version"),
        ("HalfCheetah-v3", r"^HalfCheetah-v3: cannot be made: .*; install that, or take another$"),
        ("FrozenLake-v1", r"^FrozenLake-v1: expected observations from a Box of one dimension, got Discrete\(16\); fl"),
        ("Blackjack-v1", r"^Blackjack-v1: expected observations from a Box of one dimension, got Tuple\("),
    ],
)
def test_environments_that_cannot_be_used(id: str, message: str) -> None:
    with pytest.raises(UnsupportedEnvironment, match=message):
        make_environments(id, 1, seed=0)


def test_unsupported_actions_are_named() -> None:
    class Odd(Switches):
        action_space = spaces.MultiBinary(3)

    gym.register("Odd-v0", entry_point=Odd)
    try:
        with pytest.raises(
            UnsupportedEnvironment, match=r"^Odd-v0: expected actions from .*, got MultiBinary\(3\); wrap"
        ):
            make_environments("Odd-v0", 1, seed=0)
    finally:
        del gym.registry["Odd-v0"]


def test_no_copies() -> None:
    with pytest.raises(
        UnsupportedEnvironment, match=r"^CartPole-v1: expected at least one copy of the environment, got 0"
    ):
        make_environments("CartPole-v1", 0, seed=0)


def test_missing_packages_name_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    with monkeypatch.context() as patch:
        patch.setitem(sys.modules, "gymnasium", None)
        with pytest.raises(ImportError, match=r"^Pendulum-v1: .*pip install 'reprise-training\[rl\]'$"):
            make_environments("Pendulum-v1", 1, seed=0)
        assert make_environments("CartPole-v1", 1, seed=0).reset().shape == (1, 4)  # needs no package
    for name in [name for name in sys.modules if name.startswith("gymnasium.envs.mujoco")]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, "mujoco", None)
    with pytest.raises(
        ImportError, match=r"^Hopper-v5: MuJoCo is not installed .*pip install 'reprise-training\[rl\]'$"
    ):
        make_environments("Hopper-v5", 1, seed=0)


@pytest.mark.parametrize("id", ["ALE/Breakout-v5", "PongNoFrameskip-v4"])
def test_missing_games_name_what_to_install(id: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "ale_py", None)
    expected = rf"^{id}: Atari games need ale-py, which is not installed; pip install 'reprise-training\[rl,atari\]'$"
    with pytest.raises(ImportError, match=expected):
        make_environments(id, 1, seed=0, wrappers=AtariOptions())


def test_images_ask_for_their_options_and_vectors_do_not() -> None:
    class Seen(Switches):
        observation_space = spaces.Box(0, 255, (36, 36, 3), np.uint8)

    gym.register("Seen-v0", entry_point=Seen)
    try:
        with pytest.raises(UnsupportedEnvironment, match=r"^Seen-v0: .* got Box.*; images are taken by make_env"):
            make_environments("Seen-v0", 1, seed=0)
    finally:
        del gym.registry["Seen-v0"]
    with pytest.raises(UnsupportedEnvironment, match=r"^CartPole-v1: expected images, .*, got Box\(.*; leave out"):
        make_environments("CartPole-v1", 1, seed=0, wrappers=AtariOptions())


def test_an_older_version_is_made_without_a_warning_and_others_warn() -> None:
    class Warning(Switches):
        def __init__(self) -> None:
            warnings.warn("another matter", DeprecationWarning, stacklevel=2)

    gym.register("Aged-v0", entry_point=Warning)
    gym.register("Aged-v1", entry_point=Switches)
    try:
        with warnings.catch_warnings(record=True) as found:
            warnings.simplefilter("always")
            make_environments("Aged-v0", 1, seed=0)
        assert [str(warning.message) for warning in found] == ["another matter"]
    finally:
        del gym.registry["Aged-v0"], gym.registry["Aged-v1"]


def test_importing_the_package_imports_neither_gymnasium_nor_mujoco() -> None:
    program = "import sys, training.rl; print({'gymnasium', 'mujoco'} & set(sys.modules))"
    found = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert found.stdout.strip() == "set()"


def test_reading_a_model_writes_no_log(tmp_path: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    make_environments("HalfCheetah-v5", 1, seed=0)
    assert list(tmp_path.iterdir()) == []

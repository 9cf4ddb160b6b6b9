"""Each detail of Atari games, on a game whose every frame is known."""

from __future__ import annotations

from collections import Counter
from dataclasses import replace
from typing import Any

import gymnasium as gym
import numpy as np
import pytest
from gymnasium.wrappers import FrameStackObservation, MaxAndSkipObservation, TransformReward
from tests.training.rl.small_games import Captured, Flicker, Moving, registered

from training.rl import AtariOptions, UnsupportedEnvironment, make_environments

PLAIN = AtariOptions(
    noops=0, skip=1, maximum=False, life_episodes=False, fire=False, grey=False, size=None, sign_rewards=False, stack=1
)
Array = np.ndarray[Any, Any]


def make(options: AtariOptions, n: int = 1, seed: int = 0, limit: int | None = None, **arguments: Any) -> Any:
    with registered(Flicker, limit=limit, **arguments) as id:
        return make_environments(id, n, seed=seed, wrappers=options)


def pixels(observations: Array) -> list[list[int]]:
    """Of each of the last frame's three channels the first four pixels; of a grey frame, of the one."""
    found: list[list[int]] = observations[0, -3:, 0, :4].tolist()
    return found


def test_without_any_of_them_frames_are_as_they_are_channels_first() -> None:
    games = make(PLAIN)
    assert games.observation_shape == (3, 6, 8)
    assert games.observation_dtype == np.uint8
    assert games.images
    assert pixels(games.reset()) == [[0, 0, 0, 1]] + [[0, 0, 0, 1]] * 2
    assert pixels(games.step(np.array([2])).observations) == [[1, 0, 2, 1]] + [[0, 0, 2, 1]] * 2
    games.step(np.array([3]))
    assert pixels(games.step(np.array([3])).observations)[0] == [3, 200, 3, 1]
    assert Flicker.played == [[2, 3, 3]]


def test_frames_are_skipped_and_the_last_two_shown_together() -> None:
    for maximum, light in ((True, 200), (False, 0)):
        games = make(replace(PLAIN, skip=4, maximum=maximum), rewards={2: 1.0, 4: 2.5, 5: 4.0})
        games.reset()
        step = games.step(np.array([2]))
        assert pixels(step.observations)[0] == [4, light, 2, 1]
        assert step.rewards.tolist() == [3.5]
        assert Flicker.played == [[2, 2, 2, 2]]


def test_up_to_thirty_frames_without_an_action_begin_a_game() -> None:
    games = make(replace(PLAIN, noops=30), n=200, seed=1)
    observations = games.reset()
    counts = Counter(observations[:, 0, 0, 0].tolist())
    assert set(counts) == set(range(1, 31))
    assert [np.random.default_rng(1 + i).integers(1, 31) for i in range(200)] == observations[:, 0, 0, 0].tolist()
    assert {action for game in Flicker.played for action in game} == {0}


def test_a_game_that_ends_among_the_first_frames_begins_anew() -> None:
    games = make(replace(PLAIN, noops=30), end=2)
    for _ in range(20):
        assert games.reset()[0, 0, 0, 0] in (0, 1)


def test_every_life_is_an_episode_and_the_game_goes_on() -> None:
    """Lives are lost at frames 6 and 13, and the game ends at 20, in the step without an action after the second."""
    rewards = {1: 1.0, 7: 10.0, 16: 100.0, 19: 1000.0}
    games = make(replace(PLAIN, skip=4, life_episodes=True), lives=3, lost=(6, 13), end=20, rewards=rewards)
    games.reset()
    first, second = games.step(np.array([2])), games.step(np.array([2]))
    assert (first.terminated.tolist(), second.terminated.tolist()) == ([False], [True])
    assert second.final_observations is not None
    assert pixels(second.final_observations)[0] == [8, 0, 2, 2]
    assert pixels(second.observations)[0] == [12, 0, 0, 2]  # behind four frames without an action
    assert second.episodes == ()
    third = games.step(np.array([3]))
    assert (third.terminated.tolist(), third.rewards.tolist()) == ([True], [100.0])
    assert pixels(third.observations)[0] == [0, 0, 0, 3]  # a new game
    assert Flicker.played == [[2] * 8 + [0] * 4 + [3] * 4 + [0] * 4, []]
    later = [games.step(np.array([2])) for _ in range(2)]
    assert later[1].episodes == ((0, 1111.0, 3),)  # the whole score, reported with the next episode's end


def test_without_episodes_of_a_life_only_the_end_ends() -> None:
    games = make(replace(PLAIN, skip=4), lives=3, lost=(6, 13), end=20, rewards={19: 7.0})
    games.reset()
    steps = [games.step(np.array([2])) for _ in range(5)]
    assert [bool(step.terminated[0]) for step in steps] == [False] * 4 + [True]
    assert steps[-1].episodes == ((0, 7.0, 5),)


def test_no_lives_are_not_yet_the_end() -> None:
    games = make(replace(PLAIN, life_episodes=True), lives=1, lost=(2,), end=4)
    games.reset()
    assert [bool(games.step(np.array([2])).terminated[0]) for _ in range(4)] == [False, False, False, True]


def test_fire_and_the_action_behind_it_are_pressed_at_a_reset() -> None:
    options = replace(PLAIN, skip=4, fire=True, life_episodes=True)
    games = make(options, lives=2, lost=(10,), end=200)
    assert pixels(games.reset())[0] == [8, 0, 2, 2]
    assert Flicker.played == [[1] * 4 + [2] * 4]
    games.step(np.array([3]))  # costs a life
    assert Flicker.played[-1][12:] == [0] * 4 + [1] * 4 + [2] * 4
    make(options, meanings=("NOOP", "UP", "RIGHT", "LEFT")).reset()
    assert Flicker.played == [[]]
    ended = make(options, ends_with=1)
    ended.reset()  # pressing it ends the game, which the agent has not played
    assert Flicker.played == [[1], [2] * 4]
    assert ended.members[0].finished == []


def test_rewards_are_signs_and_scores_are_not() -> None:
    games = make(replace(PLAIN, sign_rewards=True, skip=2), end=6, rewards={1: 7.0, 3: -3.0, 4: 1.0, 5: 2.0, 6: -2.0})
    games.reset()
    steps = [games.step(np.array([0])) for _ in range(3)]
    assert [float(step.rewards[0]) for step in steps] == [1.0, -1.0, 0.0]
    assert steps[-1].episodes == ((0, 5.0, 3),)


def test_stacks_skips_and_signs_are_those_of_gymnasiums_wrappers() -> None:
    arguments: Any = {"end": 45, "rewards": {t: float(np.sin(t)) for t in range(60)}}
    options = replace(PLAIN, skip=4, maximum=True, stack=4, sign_rewards=True)
    games = make(options, **arguments)
    env = TransformReward(MaxAndSkipObservation(Flicker(**arguments), skip=4), np.sign)
    theirs, rng = FrameStackObservation(env, 4), np.random.default_rng(0)
    observation, _ = theirs.reset()
    np.testing.assert_array_equal(games.reset()[0], as_channels(observation))
    for _ in range(60):
        action = int(rng.integers(4))
        step = games.step(np.array([action]))
        observation, reward, terminated, _, _ = theirs.step(action)
        assert (step.rewards[0], step.terminated[0]) == (reward, terminated)
        if terminated:  # their maximum is one over frames of the step before, where a step ends early
            observation, _ = theirs.reset()
        np.testing.assert_array_equal(step.observations[0], as_channels(observation))


def as_channels(stack: Array) -> Array:
    """(frame, row, column, colour) to (frame and colour, row, column)."""
    return np.moveaxis(stack, 3, 1).reshape(-1, *stack.shape[1:3])


def test_frames_are_grey_and_small() -> None:
    games = make(replace(PLAIN, grey=True, size=(3, 4), stack=2))
    assert games.observation_shape == (2, 3, 4)
    games.reset()
    for _ in range(99):
        step = games.step(np.array([2]))
    # frame 99: red 99 is grey 29.6 -> 30; with the light at 200 that is (30 + 200 + 0 + 0) / 4; (2 + 1) / 4 beside it
    assert step.observations[0, 1, 0].tolist() == [58, 1, 0, 0]
    assert step.observations[0, 0, 0].tolist() == [7, 1, 0, 0]  # frame 98: 29 / 4, and no light


def test_games_are_cut_after_their_limit_of_frames() -> None:
    games = make(replace(PLAIN, skip=4), limit=10, rewards={10: 1.0})
    games.reset()
    steps = [games.step(np.array([2])) for _ in range(3)]
    assert [bool(step.truncated[0]) for step in steps] == [False, False, True]
    assert not steps[-1].terminated[0]
    assert steps[-1].episodes == ((0, 1.0, 3),)
    assert steps[-1].final_observations is not None
    assert pixels(steps[-1].final_observations)[0][0] == 10
    assert pixels(steps[-1].observations)[0][0] == 0


def test_fresh_games_and_new_ones() -> None:
    games = make(replace(PLAIN, life_episodes=True), n=2, lives=3, lost=(2,), rewards={1: 5.0}, end=3)
    games.reset()
    games.step(np.array([2, 3]))
    assert games.reset()[:, 0, 0, 0].tolist() == [0, 0]  # a reset of all begins new games, not lives
    assert [step.episodes for step in (games.step(np.array([0, 0])) for _ in range(2))] == [(), ()]
    with registered(Flicker):
        assert games.fresh(3, 7).reset().shape == (3, 3, 6, 8)


@pytest.mark.parametrize("options", [AtariOptions(size=(6, 8)), AtariOptions(size=None, stack=2, noops=5, grey=False)])
def test_a_restored_game_goes_on_bit_for_bit(options: AtariOptions) -> None:
    with registered(Captured, lives=3) as id:
        games = make_environments(id, 3, seed=4, wrappers=options)
        assert games.exact
        games.reset()
        rng = np.random.default_rng(0)
        play(games, rng.integers(4, size=(13, 3)))
        state, chosen = games.get_state(), rng.integers(4, size=(40, 3))
        expected = play(games, chosen)
        assert any(step.episodes for step in expected)
        for other in (games, make_environments(id, 3, seed=99, wrappers=options)):
            assert other.set_state(state) is None
            for ours, theirs in zip(play(other, chosen), expected, strict=True):
                assert ours.episodes == theirs.episodes
                for one, two in zip(ours[:4], theirs[:4], strict=True):
                    np.testing.assert_array_equal(one, two)


def play(games: Any, actions: Array) -> list[Any]:
    return [games.step(action) for action in actions]


def test_games_that_cannot_be_captured_begin_anew() -> None:
    games = make(replace(PLAIN, noops=0), n=2)
    assert not games.exact
    games.reset()
    games.step(np.array([0, 0]))
    fresh = games.set_state(games.get_state())
    assert fresh is not None
    assert fresh[:, 0, 0, 0].tolist() == [0, 0]


@pytest.mark.parametrize(
    ("kind", "arguments", "options", "message"),
    [
        (Flicker, {"meanings": ("FIRE", "RIGHT")}, {}, r"expected the action 0 to be NOOP .*got \['FIRE'\]; without"),
        (Moving, {}, {"size": None}, r"expected the action 0 to be NOOP .* got no meanings; without it take Atari"),
        (
            Flicker,
            {},
            {"size": (84, 84)},
            r"expected frames of at least 84 x 84 \(AtariOptions\.size\), got 6 x 8; take",
        ),
    ],
)
def test_what_a_game_lacks_is_named(kind: Any, arguments: Any, options: Any, message: str) -> None:
    with registered(kind, **arguments) as id, pytest.raises(UnsupportedEnvironment, match=f"^{id}: {message}"):
        make_environments(id, 1, seed=0, wrappers=AtariOptions(**{"size": (6, 8), **options}))


def test_a_game_without_lives_and_one_that_skips_frames() -> None:
    class Without(Flicker):
        def reset(self, **arguments: Any) -> Any:
            return super().reset(**arguments)[0], {"frame": 0}

    class Skipping(Flicker):
        _frameskip = 4

    with registered(Without) as id:
        games = make_environments(id, 1, seed=0, wrappers=replace(PLAIN, life_episodes=True))
        with pytest.raises(
            UnsupportedEnvironment, match=r"^Without.*: expected `lives` in .*, got frame; without lives"
        ):
            games.reset()
    with (
        registered(Skipping) as id,
        pytest.raises(UnsupportedEnvironment, match=r"shows every frame, got .* skips 4 by"),
    ):
        make_environments(id, 1, seed=0, wrappers=AtariOptions(size=None))


@pytest.mark.parametrize(("name", "value", "least"), [("noops", -1, 0), ("skip", 0, 1), ("stack", 0, 1)])
def test_options_that_make_no_sense(name: str, value: int, least: int) -> None:
    expected = rf"^AtariOptions\.{name}: expected a whole number from {least}, got {value}$"
    with pytest.raises(ValueError, match=expected):
        AtariOptions(**{name: value})  # type: ignore[arg-type]


def test_wrapped_specifications_are_kept() -> None:
    from gymnasium.wrappers import TransformReward as Transform

    wrapper = Transform.wrapper_spec(func=lambda reward: reward + 1.0)
    gym.register("WrappedSmall-v0", Flicker, additional_wrappers=(wrapper,), max_episode_steps=6)
    try:
        games = make_environments("WrappedSmall-v0", 1, seed=0, wrappers=replace(PLAIN, skip=4))
        assert not games.exact
        games.reset()
        steps = [games.step(np.array([0])) for _ in range(2)]
        assert [float(step.rewards[0]) for step in steps] == [4.0, 2.0]
        assert steps[1].truncated.tolist() == [True]
    finally:
        del gym.registry["WrappedSmall-v0"]

"""Learning-rate schedules, against values worked out by hand."""

from __future__ import annotations

import pytest

from training import constant, trapezoid


def test_constant_is_one() -> None:
    assert [constant(step) for step in (0, 1, 10**6)] == [1.0, 1.0, 1.0]


def test_trapezoid_follows_the_hand_written_values() -> None:
    schedule = trapezoid(warmup=4, steps=11, decay_from=6 / 11, floor=0.2)
    expected = [0.25, 0.5, 0.75, 1.0, 1.0, 1.0, 1.0, 0.8, 0.6, 0.4, 0.2]
    assert [schedule(step) for step in range(11)] == pytest.approx(expected)


def test_trapezoid_without_warm_up_or_decay_is_constant() -> None:
    schedule = trapezoid(warmup=0, steps=7, decay_from=1.0, floor=0.0)
    assert {schedule(step) for step in range(7)} == {1.0}


def test_trapezoid_never_leaves_floor_to_one_and_rises_then_falls() -> None:
    schedule = trapezoid(warmup=100, steps=7_812, decay_from=0.7, floor=0.05)
    values = [schedule(step) for step in range(7_812)]
    assert values[:101] == sorted(values[:101])
    assert values[100:] == sorted(values[100:], reverse=True)
    assert max(values) == 1.0
    assert values[-1] == pytest.approx(0.05)
    assert values.index(1.0) == 99
    assert next(step for step in range(200, 7_812) if values[step] < 1.0) == 5_469  # the first step after 0.7 * 7812

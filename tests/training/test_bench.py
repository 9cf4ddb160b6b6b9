"""The benchmark compares like with like: both loops give the same weights, bit for bit."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch

from training import bench
from training.bench import Case


def small_language_model() -> Case:
    return bench.language_model(width=16, layers=1, window=8, batch=2)


def small_residual_network() -> Case:
    return bench.residual_network(depth=8, size=8, batch=4)


@pytest.mark.parametrize("make", [small_language_model, small_residual_network])
def test_both_loops_give_the_same_weights(make: Callable[[], Case]) -> None:
    case = make()
    before = [parameter.detach().clone() for parameter in case.by_hand[0].parameters()]
    for steps in (4, 2):
        case.hand_written(steps)
        case.trained(steps)
    ours, theirs = case.by_train[0].state_dict(), case.by_hand[0].state_dict()
    assert all(torch.equal(ours[name], theirs[name]) for name in theirs)
    moved = zip(before, case.by_hand[0].parameters(), strict=True)
    assert any(not torch.equal(a, b) for a, b in moved)


def test_rows_name_their_baselines_and_end_with_those_of_agents(monkeypatch: pytest.MonkeyPatch) -> None:
    agents = pytest.importorskip("training.rl.bench")
    monkeypatch.setattr(agents, "rows", lambda: iter([("PPO", None, lambda: None)]))
    found = list(bench.rows())
    assert [(row[0], row[1]) for row in found] == [
        ("language model, 150 steps: loop by hand", None),
        ("language model, 150 steps: train", "language model, 150 steps: loop by hand"),
        ("ResNet-20, 16 steps: loop by hand", None),
        ("ResNet-20, 16 steps: train", "ResNet-20, 16 steps: loop by hand"),
        ("PPO", None),
    ]


def test_overhead_is_a_share(monkeypatch: pytest.MonkeyPatch) -> None:
    case = small_language_model()
    seconds = iter([0.0, 2.0, 2.0, 4.2] * 2)  # each block: one loop, then the other; the order alternates
    monkeypatch.setattr("time.process_time", lambda: next(seconds))
    monkeypatch.setattr(Case, "hand_written", lambda self, steps: None)
    assert case.overhead(blocks=1, steps=1) == pytest.approx(2.2 / 2.0 - 1)
    monkeypatch.undo()
    assert -0.9 < case.overhead(blocks=2, steps=1) < 20

"""The rows of the benchmark, and that the plain program is one that learns."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from training.rl.bench import rows
from training.rl.bench_plain import CARTPOLE, train_plain


def test_each_row_of_ours_is_compared_with_the_plain_program() -> None:
    found = list(rows(cartpole_steps=512, half_cheetah_steps=2048))
    names = [row[0] for row in found]
    assert names == [
        "PPO CartPole-v1, 512 environment steps: plain program",
        "PPO CartPole-v1, 512 environment steps: training.rl",
        "PPO HalfCheetah-v5, 2048 environment steps: plain program",
        "PPO HalfCheetah-v5, 2048 environment steps: training.rl",
    ]
    assert [row[1] for row in found] == [None, names[0], None, names[2]]
    task = found[1][2]()
    assert task.environment_steps == 512  # type: ignore[attr-defined]


def test_the_plain_program_learns_cartpole() -> None:
    episodes = train_plain("CartPole-v1", replace(CARTPOLE, total_steps=20_480), seed=1)
    assert np.mean(episodes[:50]) < 40
    assert np.mean(episodes[-20:]) > 2 * np.mean(episodes[:50])

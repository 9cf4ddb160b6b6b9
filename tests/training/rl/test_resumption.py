"""A run that is killed at any moment and started again ends with the same bits."""

from __future__ import annotations

import os
import random
import signal
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from training import Run, checkpoint, every, restore, save, train
from training.rl import PPO, AdaptiveKL, Settings, agent, make_environments

REMEMBERED = "CartPole-v0"  # the id whose agent has a memory here
CARTPOLE = Settings(total_steps=6 * 64, environments=2, horizon=32, epochs=2, minibatches=4, entropy_coefficient=0.01)
MUJOCO = Settings(
    total_steps=5 * 96, horizon=96, epochs=2, minibatches=4, normalise_observations=True, scale_rewards=True
)
CASES = {
    "CartPole-v1": CARTPOLE,
    REMEMBERED: replace(
        CARTPOLE, minibatches=2, epochs=4, shared_encoder=True, lstm=8, truncation="bootstrap", target_kl=0.02
    ),
    "HalfCheetah-v5": MUJOCO,
    "Hopper-v5": replace(
        MUJOCO, objective=AdaptiveKL(0.003), truncation="bootstrap", target_kl=0.02, shared_encoder=True
    ),
}

PROGRAM = """
import sys
from pathlib import Path
sys.path.insert(0, {folder!r})
from test_resumption import kill_and_go_on
print(kill_and_go_on(sys.argv[1], Path(sys.argv[2])))
"""


def made(id: str) -> tuple[PPO, Any]:
    settings = CASES[id]
    environments = make_environments(id, settings.environments, seed=1)
    task = PPO(environments, agent(environments, settings, seed=1), settings, seed=1)
    return task, task.parts()


def begin(id: str, folder: Path, *, pause: float = 0.0) -> None:
    """Train to the end from where the checkpoint in the folder is, and save what came out."""
    torch.set_num_threads(1)
    task, parts = made(id)
    run, path = Run.of(task, parts), folder / "checkpoint.pt"
    if path.exists():
        restore(run, path)
    callbacks = (task.finish, lambda run: time.sleep(pause), every(1, checkpoint(path)))
    run = train(task, parts, steps=task.updates, max_gradient_norm=0.5, callbacks=callbacks, run=run)
    torch.save(outcome(task), folder / "outcome.partial")
    (folder / "outcome.partial").replace(folder / "outcome.pt")


def kill_and_go_on(id: str, folder: Path) -> int:
    """Train in processes that are killed at three random moments, until one ends; returns how many were killed.

    Each is forked from this one, which has taken two steps: what is imported on first use takes longer than many.
    """
    torch.set_num_threads(1)
    task, parts = made(id)
    train(task, parts, steps=2, callbacks=[task.finish])
    path, moments, kills = folder / "checkpoint.pt", random.Random(0), 0
    while not (folder / "outcome.pt").exists():
        first = path.stat().st_mtime_ns if path.exists() else 0
        process = os.fork()
        if process == 0:
            try:
                begin(id, folder, pause=0.003)
            except BaseException as error:
                sys.stderr.write(f"{error!r}\n")
                os._exit(1)
            os._exit(0)
        ended = (0, 0)
        while kills < 3 and ended == (0, 0):
            if path.exists() and path.stat().st_mtime_ns != first:  # it has begun to train
                time.sleep(moments.uniform(0.0, 0.15))
                os.kill(process, signal.SIGKILL)
                break
            time.sleep(0.005)
            ended = os.waitpid(process, os.WNOHANG)
        code = os.waitstatus_to_exitcode((ended if ended[0] else os.waitpid(process, 0))[1])
        assert code in (0, -signal.SIGKILL)
        kills += code != 0
    return kills


def outcome(task: PPO) -> dict[str, Any]:
    weights = {name: module.state_dict() for name, module in task.modules.items()}
    return {"weights": weights, "task": task.state_dict()}


def same(one: Any, other: Any) -> bool:
    if isinstance(one, dict):
        return one.keys() == other.keys() and all(same(one[key], other[key]) for key in one)
    if isinstance(one, list | tuple):
        return len(one) == len(other) and all(map(same, one, other))
    return torch.equal(one, other) if isinstance(one, torch.Tensor) else bool(one == other)


@pytest.mark.parametrize("id", list(CASES))
def test_restored_at_each_of_several_steps(id: str, tmp_path: Path) -> None:
    """In one process: the run from the checkpoint ends where the run that went through did."""
    task, parts = made(id)
    places = (0, 1, 4, 7, 8, 9, 13, 21)
    saved = [lambda run: save(run, tmp_path / f"{run.step}.pt") if run.step in places else None]
    train(task, parts, steps=26, max_gradient_norm=0.5, callbacks=[task.finish, *saved])
    for place in places:
        again, new = made(id)
        run = restore(Run.of(again, new), tmp_path / f"{place}.pt")
        train(again, new, steps=26, max_gradient_norm=0.5, callbacks=[again.finish], run=run)
        assert same(outcome(task), outcome(again)), place


@pytest.mark.parametrize("id", [REMEMBERED, "HalfCheetah-v5"])
def test_killed_at_random_moments(id: str, tmp_path: Path) -> None:
    whole, killed = tmp_path / "whole", tmp_path / "killed"
    whole.mkdir()
    killed.mkdir()
    begin(id, whole)
    program = PROGRAM.format(folder=str(Path(__file__).parent))
    command = [sys.executable, "-c", program, id, str(killed)]
    ended = subprocess.run(command, capture_output=True, text=True, check=False, timeout=300)
    assert ended.returncode == 0, ended.stderr
    assert int(ended.stdout) >= 1
    one, other = (torch.load(folder / "outcome.pt", weights_only=True) for folder in (whole, killed))
    assert same(one, other)


def test_another_agents_checkpoint_is_refused(tmp_path: Path) -> None:
    from training import CheckpointError

    task, parts = made("CartPole-v1")
    save(Run.of(task, parts), tmp_path / "c.pt")
    settings = replace(CARTPOLE, hidden=(32, 32))
    environments = make_environments("CartPole-v1", 2, seed=1)
    other = PPO(environments, agent(environments, settings, seed=1), settings, seed=1)
    with pytest.raises(CheckpointError, match=r"c\.pt: not a checkpoint of this run .*delete it to start again"):
        restore(Run.of(other, other.parts()), tmp_path / "c.pt")

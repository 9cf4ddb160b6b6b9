"""Train an agent of three parts undisturbed, then killed at random moments and resumed: one folder for each.

Run as a program, since a process that is killed for good cannot be the one that tests. It depends on everything that a
checkpoint has to hold: momentum, a schedule for each part, accumulated pieces, batch norm, dropout (torch's random
numbers), numpy's and Python's, a task with a state, early stopping, and two logs.
"""

from __future__ import annotations

import json
import os
import random
import signal
import sys
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.optim import SGD, AdamW

from training import (
    FunctionTask,
    Options,
    Part,
    Parts,
    Run,
    Task,
    checkpoint,
    early_stop,
    evaluate,
    every,
    log_csv,
    log_json_lines,
    restore,
    train,
    trapezoid,
)

STEPS, SAVE_EVERY = 60, 7


class Walking:
    """Rollouts in miniature: a state that moves with every batch, at random."""

    feeds: Sequence[str] = ("encoder", "value")

    def __init__(self) -> None:
        self.place, self.visits = torch.zeros(3), 0

    def batch(self, step: int, /) -> Tensor:
        self.visits += 1
        self.place = 0.9 * self.place + torch.randn(3) + np.random.randn() + random.random()
        return self.place * torch.linspace(0.5, 1, 8)[:, None]

    def loss(self, parts: Parts, batch: Tensor, /) -> Mapping[str, Tensor]:
        value = parts["value"](parts["encoder"](batch)).squeeze(1)
        return {"error": (value - batch.sum(1).tanh()).square().mean(), "size": 0.01 * value.square().mean()}

    def state_dict(self) -> dict[str, Any]:
        return {"place": self.place, "visits": self.visits}

    def load_state_dict(self, state: dict[str, Any], /) -> None:
        self.place, self.visits = state["place"], state["visits"]


def made() -> tuple[dict[str, Task[Any]], dict[str, Part]]:
    torch.manual_seed(0)
    np.random.seed(0)
    random.seed(0)
    encoder = nn.Sequential(nn.Linear(3, 8), nn.BatchNorm1d(8), nn.Dropout(0.2))
    policy, value = nn.Linear(8, 2), nn.Linear(8, 1)
    acting: Task[Any] = FunctionTask(
        lambda step: torch.randn(8, 8, generator=torch.Generator().manual_seed(step)),
        lambda model, batch: -model(batch).log_softmax(-1)[:, 0].mean(),
        feeds=("policy",),
    )
    rising = trapezoid(warmup=20, steps=STEPS, decay_from=0.5, floor=0.1)
    parts = {
        "encoder": Part(encoder, (SGD(encoder.parameters(), lr=0.05, momentum=0.9),), rising),
        "policy": Part(policy, (AdamW(policy.parameters(), lr=0.01),), max_gradient_norm=0.3),
        "value": Part(value, (AdamW(value.parameters(), lr=0.02),), lambda step: 1 - step / STEPS),
    }
    return {"walk": Walking(), "act": acting}, parts


def go(folder: Path, slow: float = 0.0) -> None:
    """Train in `folder`, from its checkpoint if there is one, and write the result when done."""
    folder.mkdir(exist_ok=True)
    tasks, parts = made()
    run, path = Run.of(tasks, parts), folder / "training.pt"
    if path.exists():
        torch.manual_seed(time.time_ns() % 2**31)  # a new process has another random state
        restore(run, path)

    def measure(run: Run) -> dict[str, float]:
        time.sleep(slow)
        return {"draw": float(torch.rand(())), "weight": float(next(parts["value"].module.parameters()).sum())}

    callbacks = [
        every(3, evaluate(measure)),
        log_csv(folder / "log.csv"),
        every(2, log_json_lines(folder / "log.jsonl")),
        early_stop("draw", patience=9, best="highest"),
        every(SAVE_EVERY, checkpoint(path)),
    ]
    train(tasks, parts, steps=STEPS, max_gradient_norm=2.0, options=Options(accumulate=2), callbacks=callbacks, run=run)
    weights = {
        f"{name}.{key}": value for name, part in parts.items() for key, value in part.module.state_dict().items()
    }
    walk: Any = tasks["walk"]
    said = {"stopped": run.stopped, "step": run.step, "losses": run.losses, "visits": walk.visits}
    torch.save({"weights": weights, "place": walk.place, "said": json.dumps(said)}, folder / "partial")
    (folder / "partial").replace(folder / "result.pt")


def fork(folder: Path, slow: float = 0.0) -> int:
    """Start a run in a process of its own and return its id."""
    process = os.fork()
    if process == 0:
        try:
            go(folder, slow)
        except BaseException as error:
            sys.stderr.write(f"{folder.name}: {error!r}\n")
            os._exit(1)
        os._exit(0)
    return process


def ended(process: int) -> int:
    return os.waitstatus_to_exitcode(os.waitpid(process, 0)[1])


def main(folder: Path) -> None:
    torch.set_num_threads(1)
    made()  # what torch imports late, before any fork
    assert ended(fork(folder / "undisturbed")) == 0
    for seed in range(4):
        generator, out = random.Random(seed), folder / f"killed_{seed}"
        for _ in range(4):
            process = fork(out, slow=0.02)
            time.sleep(generator.uniform(0.02, 0.45))
            os.kill(process, signal.SIGKILL)
            code = ended(process)
            assert code in (0, -signal.SIGKILL), code
            with (folder / "kills").open("a") as kills:
                kills.write(f"{out.name} {code} {(out / 'training.pt').exists()}\n")
        assert ended(fork(out)) == 0


if __name__ == "__main__":
    main(Path(sys.argv[1]))

"""Train as one of several processes, or alone, and write what came out: the tests start it with torch's launcher, and
call `write` to train alone.

python -m torch.distributed.run --nproc-per-node 2 data_parallel_program.py FOLDER
"""

from __future__ import annotations

import atexit
import os
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.optim import SGD, AdamW

from training import (
    NonFiniteLoss,
    Options,
    Part,
    Parts,
    Run,
    at_steps,
    checkpoint,
    early_stop,
    evaluate,
    every,
    log_csv,
    restore,
    train,
    trapezoid,
)

STEPS = 30


class Fitting:
    """Two terms over a batch of twelve rows; the state counts batches."""

    feeds = ("encoder", "head")

    def __init__(self, wrong: int | None = None) -> None:
        self.seen, self.wrong = 0, wrong

    def batch(self, step: int, /) -> Mapping[str, Tensor]:
        self.seen += 1
        x = torch.randn(12, 4, generator=torch.Generator().manual_seed(step))
        if step == self.wrong:
            x[-1] = torch.nan  # a row of the last process alone
        return {"x": x, "y": x.sum(1).sin()}

    def loss(self, parts: Parts, batch: Mapping[str, Tensor], /) -> Mapping[str, Tensor]:
        predicted = parts["head"](parts["encoder"](batch["x"])).squeeze(1)
        return {"error": (predicted - batch["y"]).square().mean(), "size": 0.1 * predicted.square().mean()}

    def state_dict(self) -> dict[str, Any]:
        return {"seen": self.seen, "process": int(os.environ.get("RANK", "0"))}

    def load_state_dict(self, state: dict[str, Any], /) -> None:
        assert state["process"] == int(os.environ.get("RANK", "0"))
        self.seen = state["seen"]


def made(*, norm: bool, dropout: bool) -> dict[str, Part]:
    encoder = nn.Sequential(
        nn.Linear(4, 8), nn.BatchNorm1d(8) if norm else nn.Identity(), nn.Tanh(), nn.Dropout(0.3 if dropout else 0.0)
    )
    head = nn.Linear(8, 1)
    schedule = trapezoid(warmup=3, steps=STEPS, decay_from=0.5, floor=0.1)
    return {
        "encoder": Part(encoder, (SGD(encoder.parameters(), lr=0.1, momentum=0.9),), schedule),
        "head": Part(head, (AdamW(head.parameters(), lr=0.02),), max_gradient_norm=0.5),
    }


def fit(folder: Path, case: str, *, resume: bool = False) -> dict[str, Any]:
    """Train one case from the beginning, or from its checkpoint of step 20, and return what came out."""
    torch.manual_seed(10 + int(os.environ.get("RANK", "0")))
    parts, task = made(norm=case == "norm", dropout=case == "dropout"), Fitting(wrong=7 if case == "wrong" else None)
    head, curve, said = parts["head"].module.get_parameter("weight"), list[float](), ""
    run, path = Run.of(task, parts), folder / f"{case}.pt"
    if resume:
        torch.manual_seed(99)
        restore(run, path)
    options = Options(data_parallel="RANK" in os.environ, accumulate=2 if case == "pieces" else 1)
    callbacks = [
        every(2, evaluate(lambda run: {"weight": float(head.detach().sum()), "draw": float(torch.rand(()))})),
        log_csv(folder / f"{case}.csv"),
        early_stop("weight", patience=1000),
        lambda run: curve.append(run.loss),
        at_steps([20], checkpoint(path)),
    ]
    try:
        train(task, parts, steps=STEPS, options=options, callbacks=callbacks, rescue=folder / "rescue.pt", run=run)
    except NonFiniteLoss as error:
        said = str(error)
    weights = {
        f"{name}.{key}": value for name, part in parts.items() for key, value in part.module.state_dict().items()
    }
    return {"curve": curve, "weights": weights, "seen": task.seen, "said": said, "step": run.step}


def main(folder: Path) -> None:
    torch.set_num_threads(1)
    name = os.environ["RANK"]
    # What is registered first is called last: after the library has left the group.
    atexit.register(lambda: (folder / f"{name}.left").write_text(str(not dist.is_initialized())))
    write(folder, name)


def write(folder: Path, name: str) -> None:
    """Train all cases and write what came out into `folder`, as the result of `name`."""
    found = {case: fit(folder, case) for case in ("plain", "pieces", "norm", "wrong", "dropout")}
    found["resumed"] = fit(folder, "dropout", resume=True)
    torch.save(found, folder / f"{name}.result")


if __name__ == "__main__":
    main(Path(sys.argv[1]))

"""Resumable checkpoints: written whole or not at all, and read without unpickling code.

A checkpoint holds every part's weights, buffers and optimisers, the state of tasks and callbacks that have one
(`training.Stateful`), the step, what the run last measured, and the random state of torch, numpy and Python. So a
resumed run is the run that was killed: bit-identical on a CPU with the same number of threads and processes.

What is not restored: anything that a task or callback keeps without being `Stateful`; random generators of a program's
own (a `torch.Generator`, `numpy.random.default_rng`), unless a state says them; buffers that a module registers as not
persistent; whether parameters need a gradient and modules are in training mode, which the program sets before it
resumes. On a GPU, sums in another order make runs differ, resumed or not.
"""

from __future__ import annotations

import io
import os
import pickle
import textwrap
import zipfile
from pathlib import Path
from typing import Any

import torch

from training import processes, random_state
from training.compatibility import compare
from training.errors import CheckpointError
from training.run import Run
from training.stateful import state_of, states_of
from training.tasks import Stateful

FORMAT = 2


def save(run: Run, path: Path) -> None:
    """Write the run to `path` atomically: a crash leaves the previous checkpoint or the new one, never half of one.

    With `Options.data_parallel` every process has to call it; the first one writes.
    """
    own = run.beginning or of_process(run)
    every = processes.gather(own) if run.processes > 1 else [own]
    if run.process == 0:
        _write(_shared(run, every), path)
    if run.processes > 1:
        processes.wait()


def of_process(run: Run) -> dict[str, Any]:
    """What differs from process to process: states of tasks and callbacks, and random numbers."""
    return {
        "tasks": {name: state_of(task) for name, task in run.tasks.items()},
        "callbacks": [list(named) for named in states_of(run.callbacks)],
        "random": random_state.state(),
    }


def _shared(run: Run, every_process: list[dict[str, Any]]) -> dict[str, Any]:
    return {
        "format": FORMAT,
        "step": run.step,
        "loss": run.loss,
        "losses": dict(run.losses),
        "gradient_norm": run.gradient_norm,
        "stopped": run.stopped,
        "loss_scale": None if run.loss_scale is None else list(run.loss_scale),
        "parts": {
            name: {
                "module": dict(part.module.state_dict()),
                "optimizers": [[type(optimizer).__name__, optimizer.state_dict()] for optimizer in part.optimizers],
            }
            for name, part in run.parts.items()
        },
        "processes": every_process,
    }


def _write(state: dict[str, Any], path: Path) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(path.name + ".partial")
    with temporary.open("wb") as file:
        torch.save(state, file)
        file.flush()
        os.fsync(file.fileno())
    temporary.replace(path)


def restore(run: Run, path: Path) -> Run:
    """Set the run's parts, tasks, step and the random state from `path`; returns the run, for `train(..., run=run)`.

    States of callbacks wait in the run until `train` gets the callbacks.

    Raises:
        CheckpointError: if the file is truncated, damaged or of another run; then nothing was changed.
    """
    content = io.BytesIO(path.read_bytes())
    try:
        with zipfile.ZipFile(content) as archive:  # torch.load looks at no checksum
            if (damaged := archive.testzip()) is not None:
                raise ValueError(f"{damaged} in it is damaged")
        content.seek(0)
        state = torch.load(content, map_location="cpu", weights_only=True)
        if not isinstance(state, dict) or state.get("format") != FORMAT:
            raise ValueError("it lacks what a checkpoint has, or is of an older version")
        compare(run, state)
        own = _own(state["processes"])
        for name, task in run.tasks.items():  # before the parts: a task may refuse its state
            if isinstance(task, Stateful):
                task.load_state_dict(own["tasks"][name])
        for name, part in run.parts.items():
            part.module.load_state_dict(state["parts"][name]["module"])
            for optimizer, (_, saved) in zip(part.optimizers, state["parts"][name]["optimizers"], strict=True):
                optimizer.load_state_dict(saved)
        run.step, run.loss, run.gradient_norm = int(state["step"]), float(state["loss"]), float(state["gradient_norm"])
        run.losses, run.stopped = dict(state["losses"]), state["stopped"]
        scale = state["loss_scale"]
        run.loss_scale = None if scale is None else (float(scale[0]), int(scale[1]))
        run.restored = [(kind, saved) for kind, saved in own["callbacks"]]
        random_state.restore(own["random"])
    except (
        *(RuntimeError, ValueError, TypeError, LookupError, EOFError, pickle.UnpicklingError),
        zipfile.BadZipFile,
    ) as error:
        reason = textwrap.shorten(str(error) or type(error).__name__, 200, placeholder=" ...")
        raise CheckpointError(f"{path}: not a checkpoint of this run ({reason}); delete it to start again") from error
    return run


def _own(every: list[dict[str, Any]]) -> dict[str, Any]:
    if len(every) == 1:
        return every[0]
    own = processes.rank()
    if own >= len(every):
        raise ValueError(f"{len(every)} processes wrote it, this is number {own + 1}")
    return every[own]

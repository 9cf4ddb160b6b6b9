"""Resumable checkpoints: written whole or not at all, and read without unpickling code.

A checkpoint holds the model, the optimiser, the step, and torch's CPU random state, so that a resumed run is the run
that was killed (bit-identical on CPU with the same number of threads).
"""

from __future__ import annotations

import io
import os
import pickle
import textwrap
from pathlib import Path

import torch

from training.loop import Run


class CheckpointError(RuntimeError):
    """A checkpoint that cannot be read, or belongs to another model or optimiser."""


def save(run: Run, path: Path) -> None:
    """Write the run to `path` atomically: a crash leaves the previous checkpoint or the new one, never half of one."""
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(path.name + ".partial")
    state = {
        "step": run.step,
        "loss": run.loss,
        "model": run.model.state_dict(),
        "optimizers": [optimizer.state_dict() for optimizer in run.optimizers],
        "rng": torch.get_rng_state(),
    }
    with temporary.open("wb") as file:
        torch.save(state, file)
        file.flush()
        os.fsync(file.fileno())
    temporary.replace(path)


def restore(run: Run, path: Path) -> Run:
    """Set the run's model, optimiser, step and the random state from `path`; returns the run.

    Raises:
        CheckpointError: if the file is truncated or was written for another model or optimiser.
    """
    content = io.BytesIO(path.read_bytes())
    try:
        state = torch.load(content, map_location="cpu", weights_only=True)
        run.model.load_state_dict(state["model"])
        for optimizer, saved in zip(run.optimizers, state["optimizers"], strict=True):
            optimizer.load_state_dict(saved)
        run.step, run.loss = int(state["step"]), float(state["loss"])
        torch.set_rng_state(state["rng"])
    except (RuntimeError, ValueError, TypeError, LookupError, EOFError, pickle.UnpicklingError) as error:
        reason = textwrap.shorten(str(error) or type(error).__name__, 200, placeholder=" ...")
        raise CheckpointError(f"{path}: not a checkpoint of this run ({reason}); delete it to start again") from error
    return run

"""The model of a stage, and which of its heads are previous-token and induction heads."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

import interventions
from circuits import Head
from interventions import Model
from reprise import Job, Result

INDUCTION = 0.2  # share of attention from which a head counts as an induction head, as in replications/induction_heads
Array = NDArray[np.float32]


@dataclass(frozen=True)
class Roles:
    """Heads by what they attend to on repeated random tokens."""

    previous: Head
    induction: tuple[Head, ...]


def load(job: Job) -> Model:
    return interventions.load(job.model.location, device=job.device, dtype=getattr(torch, job.dtype))


def n_layers(job: Job) -> int:
    return int(load(job).bridge.cfg.n_layers)


def facts(model: Model) -> dict[str, int]:
    return {"n_layers": int(model.bridge.cfg.n_layers), "n_heads": int(model.bridge.cfg.n_heads)}


def skipped(model: Model) -> Result:
    """The result of a stage that says nothing about a model of this depth."""
    return Result({}, {**facts(model), "skipped": True})


def roles(job: Job) -> Roles | None:
    """As the stage `heads` chose them; None for a model with fewer than two layers or without induction heads."""
    chosen = job.inputs.of("heads")[job.model.name].facts
    if not chosen.get("induction"):
        return None
    return Roles(pair(chosen["previous"]), tuple(pair(head) for head in chosen["induction"]))


def pair(head: list[int]) -> Head:
    layer, number = head
    return int(layer), int(number)


def is_attention_only(model: Model) -> bool:
    return bool(model.bridge.cfg.attn_only)


def array(tensor: Tensor) -> Array:
    return tensor.detach().cpu().float().numpy()

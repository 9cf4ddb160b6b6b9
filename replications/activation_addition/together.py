"""Completions of several latents in one batch: every row is steered by the vector of its own latent.

What `steering.sweeps` does for one vector, for as many as there are topics at once. Small models spend most of their
time on calls, so that eight topics cost little more than one.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Bool
from numpy.typing import NDArray
from replications.activation_addition.material import Group
from torch import Tensor

from interventions import Model
from interventions.calls import Call
from steering import Metric, Positions, Steer, Writing, measured, written

Array = NDArray[np.floating]


@dataclass(frozen=True, eq=False)
class InRows(Positions):
    """The same positions, in some rows of the batch alone."""

    positions: Positions
    rows: Bool[Tensor, " row"]

    def of(self, call: Call) -> bool | Bool[Tensor, "batch_or_1 pos"]:
        where = self.positions.of(call)
        if where is False:
            return False
        rows = self.rows.to(call.device)[:, None]
        return rows.expand(-1, call.rows.shape[1]) if where is True else rows & where

    def of_rows(self, rows: Tensor, first: int = 0) -> Positions:
        return InRows(self.positions.of_rows(rows, first), self.rows[rows])


def outcomes(
    model: Model,
    group: Group,
    prompts: Sequence[Sequence[str]],
    steers: Sequence[Steer],
    writing: Writing,
    wellformed: Metric | None,
) -> dict[str, Array]:
    """Success, losses, tokens and grammaticality, [latent, prompt, sample].

    Args:
        prompts: of each latent, equally many.
        steers: one for each latent, or none.
    """
    n = len(prompts[0])
    of_latent = torch.arange(len(prompts)).repeat_interleave(n)
    every = [prompt for of in prompts for prompt in of]
    acting = [
        Steer(steer.vector, steer.coefficient, steer.layers, InRows(steer.positions, of_latent == place))
        for place, steer in enumerate(steers)
    ]
    completions = written(model, every, writing, steers=acting)
    found = measured(model, every, completions, lambda text: float("nan"), wellformed=wellformed, batch_size=64)
    each = n * writing.samples
    success = [
        latent.metric(text) for place, latent in enumerate(group.latents) for text in found.texts[place * each :][:each]
    ]
    shape = (len(prompts), n, writing.samples)
    arrays: dict[str, Array] = {
        "success": np.array(success).reshape(shape),
        "losses": found.losses.double().numpy().reshape(shape),
        "tokens": found.tokens.double().numpy().reshape(shape),
    }
    if found.wellformed is not None:
        arrays["wellformed"] = found.wellformed.double().numpy().reshape(shape)
    return arrays

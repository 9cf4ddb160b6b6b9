"""Completions of several latents in one batch: every row is steered by the vector of its own latent.

What `steering.sweeps` does for one vector, for as many as there are topics at once, and for several cells. Small models
spend most of their time on calls, so that eight topics cost little more than one.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import torch
from numpy.typing import NDArray
from replications.activation_addition.material import Group

from interventions import Model
from steering import Completions, Condition, InRows, Metric, Steer, Writing, measured, written_together

Array = NDArray[np.floating]


def outcomes(
    model: Model,
    group: Group,
    prompts: Sequence[Sequence[str]],
    cells: Sequence[Sequence[Steer]],
    writing: Writing,
    wellformed: Metric | None,
) -> list[dict[str, Array]]:
    """Success, losses, tokens and grammaticality of each cell, [latent, prompt, sample].

    Args:
        prompts: of each latent, equally many.
        cells: steers, one for each latent, or none.
    """
    of_latent = torch.arange(len(prompts)).repeat_interleave(len(prompts[0]))
    every = [prompt for of in prompts for prompt in of]
    conditions = [
        Condition(
            every,
            [
                replace(steer, positions=InRows(steer.positions, of_latent == place))
                for place, steer in enumerate(steers)
            ],
        )
        for steers in cells
    ]
    shape = (len(prompts), len(prompts[0]), writing.samples)
    return [
        _scored(model, group, every, completions, shape, wellformed)
        for completions in written_together(model, conditions, writing)
    ]


def _scored(
    model: Model,
    group: Group,
    every: Sequence[str],
    completions: Completions,
    shape: tuple[int, int, int],
    wellformed: Metric | None,
) -> dict[str, Array]:
    found = measured(model, every, completions, lambda text: float("nan"), wellformed=wellformed, batch_size=64)
    each = shape[1] * shape[2]
    success = [
        latent.metric(text) for place, latent in enumerate(group.latents) for text in found.texts[place * each :][:each]
    ]
    arrays: dict[str, Array] = {
        "success": np.array(success).reshape(shape),
        "losses": found.losses.double().numpy().reshape(shape),
        "tokens": found.tokens.double().numpy().reshape(shape),
    }
    if found.wellformed is not None:
        arrays["wellformed"] = found.wellformed.double().numpy().reshape(shape)
    return arrays

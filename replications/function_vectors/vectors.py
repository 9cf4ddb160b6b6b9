"""The vectors of a run, made from what earlier stages stored: of the chosen heads, and of every baseline.

Everything is deterministic in the stored means, the choice and the seed, so that stages agree without passing vectors
on.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Float
from replications.function_vectors.setting import PRIMARY, Setting
from torch import Tensor

from function_vectors import (
    FunctionVector,
    StreamEdit,
    adding,
    function_vector,
    mean_differences,
    of_another_task,
    random_heads,
    random_vector,
)
from function_vectors.runners import Head
from reprise import Job, Result

VECTOR, AVERAGE, ANOTHER = "function vector", "layer average", "another task's vector"
RANDOM_HEADS, RANDOM_VECTOR = "random heads", "random vector"
DIFFERENCES = ("difference to other tasks", "difference to shuffled labels", "difference to no examples")
CLEAN, SHUFFLED, ZERO_SHOT = 0, 1, 2  # of the stored layer averages
MeanZ = Float[Tensor, "layer head d_head"]


@dataclass(frozen=True)
class Choice:
    """All heads in the order of their average indirect effect, and how many of them and which layer were chosen."""

    order: tuple[Head, ...]
    k: int
    layer: int

    @property
    def heads(self) -> tuple[Head, ...]:
        return self.order[: self.k]


def stored(job: Job, stage: str) -> Result:
    return job.inputs.of(stage)[job.model.name]


def order_of(job: Job, stage: str) -> tuple[Head, ...]:
    """All heads, those of largest average indirect effect first."""
    return tuple((int(layer), int(head)) for layer, head in stored(job, stage).facts["order"])


def choice(job: Job, stage: str = "selection") -> Choice:
    """As the stage `selection`, or for exchanged halves `exchanged`, made it."""
    facts = stored(job, stage).facts
    return Choice(order_of(job, stage), facts["k"], facts["layer"])


def stored_z(job: Job, stage: str = "means") -> dict[str, MeanZ]:
    """Mean z of every task, as the stage `means`, or for exchanged halves `exchanged`, stored it."""
    means = stored(job, stage)
    return dict(zip(means.facts["tasks"], torch.from_numpy(means["z"]), strict=True))


def vectors_of(
    setting: Setting, z: Mapping[str, MeanZ], heads: Sequence[Head], layer: int, group: str = PRIMARY
) -> dict[str, FunctionVector]:
    """The vector of some heads for every task of a group."""
    return {name: function_vector(setting.runner, z[name], heads, task=name).at(layer) for name in setting.of(group)}


def drawn_heads(setting: Setting, chosen: Choice, seed: int) -> list[tuple[Head, ...]]:
    """As many heads as were chosen, drawn among the others, `trials.draws` times."""
    shape = {"n_layers": setting.runner.n_layers, "n_heads": setting.runner.n_heads}
    return [
        random_heads(chosen.k, **shape, exclude=chosen.heads, seed=seed + draw) for draw in range(setting.trials.draws)
    ]


def edits_of(job: Job, setting: Setting, chosen: Choice) -> dict[str, dict[str, list[StreamEdit]]]:
    """For every baseline, and the vector itself, what is added for every primary task; several for random ones."""
    names, z = list(setting.primary), stored_z(job)
    vectors = vectors_of(setting, z, chosen.heads, chosen.layer)
    averages = torch.from_numpy(stored(job, "means")["averages"])
    clean = dict(zip(names, averages[:, CLEAN], strict=True))
    differences = (
        mean_differences(clean),
        dict(zip(names, averages[:, CLEAN] - averages[:, SHUFFLED], strict=True)),
        dict(zip(names, averages[:, CLEAN] - averages[:, ZERO_SHOT], strict=True)),
    )
    drawn = [vectors_of(setting, z, heads, chosen.layer) for heads in drawn_heads(setting, chosen, job.seed)]
    found: dict[str, dict[str, list[StreamEdit]]] = {
        VECTOR: {name: [adding(vectors[name].vector)] for name in names},
        AVERAGE: {name: [adding(clean[name])] for name in names},
    }
    for label, difference in zip(DIFFERENCES, differences, strict=True):
        found[label] = {name: [adding(difference[name])] for name in names}
    found[RANDOM_HEADS] = {name: [adding(draw[name].vector) for draw in drawn] for name in names}
    found[RANDOM_VECTOR] = {
        name: [
            adding(random_vector(vectors[name], seed=job.seed + draw).vector) for draw in range(setting.trials.draws)
        ]
        for name in names
    }
    found[ANOTHER] = {name: [adding(of_another_task(vectors, name).vector)] for name in names}
    return found

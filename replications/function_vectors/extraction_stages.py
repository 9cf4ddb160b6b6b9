"""From prompts to the vector: mean outputs, indirect effects, and the choice of heads, their number and the layer.

All on the first half of each task's pairs, and for the gate of the primary tasks (stage `exchanged`) once more and anew
on the second. As in the public code, means and effects are over the queries that the model answers right with ten clean
examples; over all of them where it answers none.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from jaxtyping import Bool
from numpy.typing import NDArray
from replications.function_vectors.setting import PRIMARY, Halves, Setting, settle
from replications.function_vectors.vectors import MeanZ, order_of, stored_z
from torch import Tensor

from function_vectors import (
    Encoded,
    Scores,
    average_indirect_effect,
    choose,
    indirect_effects,
    layer_average,
    mean_z_of_right,
    score,
    score_by_k,
    top_heads,
)
from function_vectors.runners import Head
from function_vectors.selection import answered
from interventions import SweepResult
from reprise import Job, Result

Array = NDArray[np.float32]


def means(job: Job) -> Result:
    """Mean z of every task over clean 10-shot prompts; for primary tasks the average stream too, and that of others."""
    setting = settle(job)
    runner, prompts, trials = setting.runner, setting.prompts, setting.trials
    z, averages, right = [], [], []
    for done, halves in enumerate(setting.tasks.values()):
        job.progress(done, len(setting.tasks))
        n = trials.means if halves.group == PRIMARY else trials.natural_means
        clean = prompts.encoded(halves.chosen_on, shots=trials.shots, n=n)
        is_right, mean = mean_z_of_right(runner, clean)
        right.append(float(is_right.float().mean()))
        z.append(array(mean))
        if halves.group == PRIMARY:
            shuffled = prompts.encoded(halves.chosen_on, shots=trials.shots, n=n, shuffled=True)
            zero_shot = prompts.encoded(halves.chosen_on, shots=0)
            compared = (kept(clean, is_right), kept(shuffled, is_right), zero_shot)
            averages.append(np.stack([array(layer_average(runner, each)) for each in compared]))
    facts = {
        "source": setting.source,
        "tasks": list(setting.tasks),
        "groups": [halves.group for halves in setting.tasks.values()],
        "left_out": dict(setting.left_out),
        "known": {name: list(halves.known) for name, halves in setting.tasks.items()},
        "prompts": trials.means,
    }
    arrays = {"z": np.stack(z), "averages": np.stack(averages), "right": np.array(right, dtype=np.float32)}
    return Result(arrays, facts)


def effects(job: Job) -> Result:
    """Indirect effects of every head on shuffled prompts of the primary tasks, and their average over tasks."""
    setting, z, found = settle(job), stored_z(job), []
    for done, (name, halves) in enumerate(setting.primary.items()):
        job.progress(done, len(setting.primary))
        found.append(effects_of(setting, halves, z[name]))
    average = average_indirect_effect(found)
    return Result(
        {
            "effects": np.concatenate([array(each.effects) for each in found]),
            "clean": np.concatenate([array(each.clean) for each in found]),
            "task": np.repeat(np.arange(len(found)), [len(each.values) for each in found]),
            "average": array(average),
        },
        {"tasks": list(setting.primary), "order": [list(head) for head in heads_in_order(found)]},
    )


def selection(job: Job) -> Result:
    """How many heads and which layer: the best zero-shot accuracy on the first halves, all primary tasks together.

    At most half of the heads, so that as many others can be drawn. Where the paper has a number of heads for the model
    the layer alone is chosen.
    """
    setting, z, order = settle(job), stored_z(job), order_of(job, "effects")
    parts = []
    for done, (name, halves) in enumerate(setting.primary.items()):
        job.progress(done, len(setting.primary))
        parts.append(scores_of(setting, halves, z[name], order))
    accuracy, facts = chosen(setting, parts, order)
    return Result({"accuracy": accuracy}, facts)


def exchanged(job: Job) -> Result:
    """Mean z and choice of the primary tasks, as of the three stages above, on the second halves alone.

    What is scored with these is the first halves, so that the gate has every pair of a task as a query without one that
    the vector was made from or chosen by.
    """
    setting = settle(job).exchanged
    primary = setting.primary
    z, found, parts = {}, [], []
    for done, (name, halves) in enumerate(primary.items()):
        job.progress(done, 2 * len(primary))
        clean = setting.prompts.encoded(halves.chosen_on, shots=setting.trials.shots, n=setting.trials.means)
        _, z[name] = mean_z_of_right(setting.runner, clean)
        found.append(effects_of(setting, halves, z[name]))
    order = heads_in_order(found)
    for done, (name, halves) in enumerate(primary.items()):
        job.progress(len(primary) + done, 2 * len(primary))
        parts.append(scores_of(setting, halves, z[name], order))
    accuracy, facts = chosen(setting, parts, order)
    arrays = {"z": np.stack([array(each) for each in z.values()]), "accuracy": accuracy}
    return Result(arrays, {**facts, "tasks": list(primary)})


def clean_prompts(setting: Setting, halves: Halves, n: int) -> tuple[Encoded, Bool[Tensor, " prompt"]]:
    """Prompts with right examples, and which of them are answered right."""
    clean = setting.prompts.encoded(halves.chosen_on, shots=setting.trials.shots, n=n)
    return clean, score(setting.runner, clean).right


def effects_of(setting: Setting, halves: Halves, z: MeanZ) -> SweepResult:
    """Indirect effects on shuffled prompts of a task."""
    trials = setting.trials
    shuffled = setting.prompts.encoded(halves.chosen_on, shots=trials.shots, n=trials.effects, shuffled=True)
    _, is_right = clean_prompts(setting, halves, trials.effects)
    return indirect_effects(setting.runner, kept(shuffled, is_right), z)


def heads_in_order(found: Sequence[SweepResult]) -> tuple[Head, ...]:
    """All heads, those of largest average effect first."""
    average = average_indirect_effect(found)
    return tuple(top_heads(average, average.numel()))


def scores_of(setting: Setting, halves: Halves, z: MeanZ, order: Sequence[Head]) -> Scores:
    """Zero-shot, by number of heads and layer."""
    zero_shot = setting.prompts.encoded(halves.chosen_on, shots=0)
    return score_by_k(setting.runner, zero_shot, z, order, candidates(setting, len(order)))


def candidates(setting: Setting, n_heads: int) -> list[int]:
    """The numbers of heads among which is chosen."""
    most, of_paper = max(1, n_heads // 2), setting.heads_of_paper
    return numbers(most) if of_paper is None else [min(of_paper, most)]


def chosen(setting: Setting, parts: Sequence[Scores], order: Sequence[Head]) -> tuple[Array, dict[str, Any]]:
    """Accuracy by number of heads and layer over all tasks, and the choice by it."""
    scores = Scores(torch.cat([part.right for part in parts]), parts[0].axes, parts[0].coordinates)
    best = choose(scores)
    facts = {
        "order": [list(head) for head in order],
        "ks": candidates(setting, len(order)),
        "k": best.k,
        "layer": best.layer,
        "k_from_paper": setting.heads_of_paper is not None,
        "accuracy": best.accuracy,
    }
    return array(scores.accuracy), facts


def numbers(most: int) -> list[int]:
    """Numbers of heads to compare: all up to 4, then about half as many again each time."""
    found = [1]
    while found[-1] < most:
        found.append(min(most, max(found[-1] + 1, round(1.4 * found[-1]))))
    return found


def kept(encoded: Encoded, right: Bool[Tensor, " prompt"]) -> Encoded:
    """The prompts whose query is answered right, or all where none is."""
    return answered(encoded, right) if bool(right.any()) else encoded


def array(tensor: Tensor) -> Array:
    return tensor.detach().cpu().float().numpy()

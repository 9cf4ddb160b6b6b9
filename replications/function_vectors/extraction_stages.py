"""From prompts to the vector: mean outputs, indirect effects, and the choice of heads, their number and the layer.

All on the first half of each task's pairs. As in the public code, means and effects are over the queries that the model
answers right with ten clean examples; over all of them where it answers none.
"""

from __future__ import annotations

import numpy as np
import torch
from jaxtyping import Bool
from numpy.typing import NDArray
from replications.function_vectors.setting import PRIMARY, heads_of_paper, settle
from replications.function_vectors.vectors import mean_z_of, stored
from torch import Tensor

from function_vectors import (
    Encoded,
    Scores,
    average_indirect_effect,
    indirect_effects,
    layer_average,
    mean_z,
    score,
    score_by_k,
    top_heads,
)
from function_vectors import choose as choose_best
from function_vectors.selection import answered
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
        is_right = score(runner, clean).right
        right.append(float(is_right.float().mean()))
        z.append(array(mean_z(runner, kept(clean, is_right))))
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
    setting = settle(job)
    runner, prompts, trials = setting.runner, setting.prompts, setting.trials
    found = []
    for done, (name, halves) in enumerate(setting.primary.items()):
        job.progress(done, len(setting.primary))
        clean = prompts.encoded(halves.chosen_on, shots=trials.shots, n=trials.effects)
        shuffled = prompts.encoded(halves.chosen_on, shots=trials.shots, n=trials.effects, shuffled=True)
        shuffled = kept(shuffled, score(runner, clean).right)
        found.append(indirect_effects(runner, shuffled, mean_z_of(job, name)))
    average = average_indirect_effect(found)
    return Result(
        {
            "effects": np.concatenate([array(each.effects) for each in found]),
            "clean": np.concatenate([array(each.clean) for each in found]),
            "task": np.repeat(np.arange(len(found)), [len(each.values) for each in found]),
            "average": array(average),
        },
        {"tasks": list(setting.primary), "order": [list(head) for head in top_heads(average, average.numel())]},
    )


def selection(job: Job) -> Result:
    """How many heads and which layer: the best zero-shot accuracy on the first halves, all primary tasks together.

    At most half of the heads, so that as many others can be drawn. Where the paper has a number of heads for the model
    the layer alone is chosen.
    """
    setting = settle(job)
    order = [(int(layer), int(head)) for layer, head in stored(job, "effects").facts["order"]]
    most = max(1, len(order) // 2)
    of_paper = heads_of_paper(setting.runner.network)
    ks = numbers(most) if of_paper is None else [min(of_paper, most)]
    parts = []
    for done, (name, halves) in enumerate(setting.primary.items()):
        job.progress(done, len(setting.primary))
        zero_shot = setting.prompts.encoded(halves.chosen_on, shots=0)
        parts.append(score_by_k(setting.runner, zero_shot, mean_z_of(job, name), order, ks))
    scores = Scores(torch.cat([part.right for part in parts]), parts[0].axes, parts[0].coordinates)
    best = choose_best(scores)
    facts = {
        "order": [list(head) for head in order],
        "ks": ks,
        "k": best.k,
        "layer": best.layer,
        "k_from_paper": of_paper is not None,
        "accuracy": best.accuracy,
    }
    return Result({"accuracy": array(scores.accuracy)}, facts)


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

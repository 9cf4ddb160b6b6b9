"""What a function vector must beat: other vectors, got in simpler ways or from elsewhere.

    layer average      h_l = mean over clean prompts of the stream behind layer l at the last token, added at l
                                                                      (Todd et al. 2024, section 2.1 and figure on it)
    mean difference    h_l less its mean over other prompts: of other tasks, with shuffled labels, or zero-shot
    random heads       as many heads, drawn among those that were not chosen
    random vector      a normal direction of the vector's own norm
    another task       the vector of the same heads, of another task

The first two are [layer, d_model], each layer's own: `runners.adding` takes them as they are. The task vector of Hendel
et al. replaces the stream instead: see `task_vectors`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace

import torch
from jaxtyping import Float
from torch import Tensor

from function_vectors.encoding import Encoded
from function_vectors.runners import Head, Runner, batches
from function_vectors.vectors import FunctionVector


def layer_average(runner: Runner, clean: Encoded) -> Float[Tensor, "layer d_model"]:
    """The mean over prompts of the stream behind each layer at the last token; float32, summed in double precision.

    Prompts pass in batches of `runner.batch_size`: memory does not grow with their number.
    """
    total: Tensor | None = None
    for rows in batches(len(clean.prompts), runner.batch_size):
        part = runner.last_stream(clean.prompts.rows(rows)).double().sum(dim=0)
        total = part if total is None else total + part
    assert total is not None
    return (total / len(clean.prompts)).float()


def mean_differences(
    averages: Mapping[str, Float[Tensor, "layer d_model"]],
) -> dict[str, Float[Tensor, "layer d_model"]]:
    """Each task's layer average less the mean over all tasks.

    Raises:
        ValueError: there are fewer than two tasks.
    """
    if len(averages) < 2:
        raise ValueError(f"layer averages of {len(averages)} tasks: expected at least 2, to tell one from the others")
    mean = torch.stack(list(averages.values())).mean(dim=0)
    return {task: average - mean for task, average in averages.items()}


def random_heads(k: int, *, n_layers: int, n_heads: int, exclude: Sequence[Head] = (), seed: int) -> tuple[Head, ...]:
    """k heads, drawn without replacement among those that are not excluded, in ascending order.

    Raises:
        ValueError: k is below 1 or above the number of heads that are left.
    """
    left = [(layer, head) for layer in range(n_layers) for head in range(n_heads) if (layer, head) not in set(exclude)]
    if not 1 <= k <= len(left):
        raise ValueError(
            f"k={k} random heads: expected 1 to {len(left)}, the {n_layers * n_heads} heads of the model less those "
            f"that are excluded"
        )
    drawn = torch.randperm(len(left), generator=torch.Generator().manual_seed(seed))[:k]
    return tuple(left[place] for place in sorted(drawn.tolist()))


def random_vector(like: FunctionVector, *, seed: int) -> FunctionVector:
    """A vector of independent normal numbers, scaled to the norm of another one."""
    drawn = torch.randn(len(like.vector), generator=torch.Generator().manual_seed(seed))
    vector = drawn / drawn.norm() * like.vector.norm().cpu()
    return replace(like, vector=vector, task=f"random vector of the norm of {like.task}", heads=())


def of_another_task(vectors: Mapping[str, FunctionVector], task: str) -> FunctionVector:
    """The vector of the next task in the mapping's order, the first one's for the last: so each is used once.

    Raises:
        ValueError: the task is not there, or alone.
    """
    names = list(vectors)
    if task not in names or len(names) < 2:
        raise ValueError(f"task {task!r} among {names}: expected it and at least one other")
    return vectors[names[(names.index(task) + 1) % len(names)]]

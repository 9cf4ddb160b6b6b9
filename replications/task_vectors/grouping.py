"""Whether vectors of one task lie together, whatever demonstrations and dummy queries they come from.

    distance(u, v) = 1 - cos(u, v)
    within  = mean distance of a vector to the other vectors of its task
    between = mean distance of a vector to the vectors of all other tasks
    nearest = its own task's centroid, taken without the vector itself, has the highest cosine with it

(Hendel et al. 2023, section 4, show this by t-SNE and by histograms of distances.) For the picture, the two principal
components of all vectors: a linear map, which cannot make groups where there are none.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.floating]


@dataclass(frozen=True)
class Grouping:
    """Of every vector, [task, vector]: distances within and between tasks, and 1 where its own centroid is nearest."""

    within: Array
    between: Array
    nearest: Array


def grouping(states: Array) -> Grouping:
    """How vectors [task, vector, d_model] group.

    Raises:
        ValueError: fewer than two tasks, or fewer than two vectors a task.
    """
    n_tasks, n, _ = states.shape
    if n_tasks < 2 or n < 2:
        raise ValueError(f"{n_tasks} tasks with {n} vectors each: expected at least 2 of both, to tell them apart")
    wide = states.astype(np.float64)
    unit = _unit(wide)
    cosines = np.einsum("avd,bwd->avbw", unit, unit)
    sums = cosines.sum(axis=3)  # [task, vector, task]
    own = np.einsum("ava->av", sums)
    within = 1 - (own - 1) / (n - 1)
    between = 1 - (sums.sum(axis=2) - own) / (n * (n_tasks - 1))
    totals = wide.sum(axis=1)
    to_centroids = np.einsum("avd,bd->avb", unit, _unit(totals))
    to_own = np.einsum("avd,avd->av", unit, _unit(totals[:, None] - wide))
    places = np.arange(n_tasks)
    to_centroids[places, :, places] = to_own
    nearest = to_centroids.argmax(axis=2) == places[:, None]
    return Grouping(within, between, nearest.astype(np.float64))


def principal_components(states: Array) -> tuple[Array, Array]:
    """Vectors [task, vector, d_model] on two principal components, [task, vector, 2]; their shares of the variance."""
    rows = states.reshape(-1, states.shape[-1]).astype(np.float64)
    centred = rows - rows.mean(axis=0)
    left, scales, _ = np.linalg.svd(centred, full_matrices=False)
    variance = scales**2
    return (left[:, :2] * scales[:2]).reshape(*states.shape[:2], 2), variance[:2] / variance.sum()


def _unit(vectors: Array) -> Array:
    return np.asarray(vectors / np.linalg.norm(vectors, axis=-1, keepdims=True))

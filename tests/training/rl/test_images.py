"""Grey and smaller images against their formulas in another form."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from training.rl.images import grey, resize

Array = np.ndarray[Any, Any]


def by_copies(image: Array, size: tuple[int, int]) -> Array:
    """Means of areas, exactly: every pixel copied into a grid that both sizes divide."""
    (rows, columns), (new_rows, new_columns) = image.shape, size
    fine = image.astype(np.float64).repeat(new_rows, axis=0).repeat(new_columns, axis=1)
    means: Array = fine.reshape(new_rows, rows, new_columns, columns).mean(axis=(1, 3))
    return means


@pytest.mark.parametrize(
    ("old", "new"), [((21, 16), (8, 8)), ((50, 40), (20, 21)), ((12, 12), (6, 4)), ((5, 7), (5, 7))]
)
def test_smaller_images_are_means_of_areas(old: tuple[int, int], new: tuple[int, int]) -> None:
    image = np.random.default_rng(0).integers(256, size=old, dtype=np.uint8)
    found = resize(image, new)
    assert found.dtype == np.uint8
    assert found.shape == new
    assert np.abs(found - by_copies(image, new)).max() <= 0.5 + 1e-4
    assert resize(np.full(old, 255, np.uint8), new).min() == 255


def test_grey_is_luminance() -> None:
    colours = np.array([[[255, 0, 0], [0, 255, 0], [0, 0, 255], [255, 255, 255], [0, 0, 0], [10, 10, 10]]], np.uint8)
    assert grey(colours).tolist() == [[76, 150, 29, 255, 0, 10]]
    image = np.random.default_rng(1).integers(256, size=(30, 40, 3), dtype=np.uint8)
    assert np.abs(grey(image) - image @ np.array([0.299, 0.587, 0.114])).max() <= 0.51

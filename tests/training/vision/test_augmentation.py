"""Crops and mirror images against a slow loop over images and pixels."""

from __future__ import annotations

import pytest
import torch

from training.vision import Augmentation, augment


def generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


@pytest.mark.parametrize("flip", [True, False])
@pytest.mark.parametrize(("pad", "height", "width"), [(4, 8, 8), (1, 5, 7), (0, 4, 4)])
def test_every_image_is_a_window_of_its_padded_self(flip: bool, pad: int, height: int, width: int) -> None:
    """The windows that a loop cuts out, one of all possible ones for each image."""
    images = torch.randn(40, 2, height, width, generator=generator(1))
    found = augment(images, Augmentation(pad, flip), generator())
    places, mirrored = set(), set()
    for image, result in zip(images, found, strict=True):
        padded = torch.zeros(2, height + 2 * pad, width + 2 * pad)
        padded[:, pad : pad + height, pad : pad + width] = image
        matches = []
        for top in range(2 * pad + 1):
            for left in range(2 * pad + 1):
                window = padded[:, top : top + height, left : left + width]
                for flipped in (False, True):
                    if torch.equal(window.flip(2) if flipped else window, result):
                        matches.append((top, left, flipped))
        assert len(matches) == 1, "an image became something else than one of its windows"
        places.add(matches[0][:2])
        mirrored.add(matches[0][2])
    assert mirrored == ({True, False} if flip else {False})
    assert len(places) > 1 or pad == 0


def test_all_windows_are_equally_likely() -> None:
    """A single bright pixel in the middle shows where the window lay: 9 places, and a half mirrored."""
    images = torch.zeros(9000, 1, 5, 5)
    images[:, 0, 2, 2] = 1
    found = augment(images, Augmentation(1, flip=True), generator()).flatten(1).argmax(dim=1)
    counts = torch.bincount(found, minlength=25).view(5, 5)
    assert counts[1:4, 1:4].sum() == 9000
    assert (counts[1:4, 1:4] - 1000).abs().max() < 150
    corner = torch.zeros(9000, 1, 5, 5)
    corner[:, 0, 2, 1] = 1
    columns = augment(corner, Augmentation(0, flip=True), generator()).flatten(1).argmax(dim=1) % 5
    assert abs(int((columns == 3).sum()) - 4500) < 250


def test_draws_follow_the_generator_alone() -> None:
    images = torch.randn(16, 1, 8, 8, generator=generator(1))
    first, again, other = (augment(images, Augmentation(), generator(seed)) for seed in (3, 3, 4))
    assert torch.equal(first, again)
    assert not torch.equal(first, other)


def test_padding_is_zero_the_mean_of_prepared_images() -> None:
    found = augment(torch.ones(50, 1, 4, 4), Augmentation(4, flip=False), generator())
    assert set(found.flatten().tolist()) == {0.0, 1.0}


def test_negative_padding_is_refused() -> None:
    with pytest.raises(ValueError, match="pad -1: expected 0 or more pixels"):
        Augmentation(pad=-1)

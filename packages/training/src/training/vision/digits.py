"""Scikit-learn's handwritten digits: 1,797 real images of 8x8 pixels that come with the package.

The images are the test part of the UCI data set "Optical Recognition of Handwritten Digits"; scikit-learn does not say
who wrote which, so the same writers stand on both sides of the split: a test error here says nothing about new writers.
"""

from __future__ import annotations

import torch

from training.vision.images import Split, prepare


class MissingPackage(ImportError):  # noqa: N818 (what is wrong, not that it is an error)
    """An optional dependency is not installed."""


def load_digits(*, n_test: int = 497, seed: int = 0) -> Split:
    """The digits, `n_test` of them drawn at random to test on and 1,300 left to train on.

    Raises:
        MissingPackage: scikit-learn is not installed.
        ValueError: n_test leaves nothing on one of the sides.
    """
    try:
        from sklearn import datasets
    except ImportError as error:
        raise MissingPackage(
            "the digits need scikit-learn, which is not installed: pip install 'reprise-training[images]'"
        ) from error
    bundle = datasets.load_digits()
    pixels = torch.from_numpy(bundle.images).to(torch.uint8)[:, None]
    labels = torch.from_numpy(bundle.target).long()
    if not 0 < n_test < len(labels):
        raise ValueError(f"n_test {n_test}: expected between 1 and {len(labels) - 1} of the {len(labels)} digits")
    order = torch.randperm(len(labels), generator=torch.Generator().manual_seed(seed))
    test, train = order[:n_test], order[n_test:]
    return prepare((pixels[train], labels[train]), (pixels[test], labels[test]))

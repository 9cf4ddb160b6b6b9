"""Scikit-learn's digits as a split, and what happens without scikit-learn."""

from __future__ import annotations

import sys

import numpy as np
import pytest
import torch
from sklearn import datasets

from training.vision import MissingPackage, load_digits


def test_the_split_is_all_digits_once_with_their_labels() -> None:
    split = load_digits()
    assert (len(split.train), len(split.test)) == (1300, 497)
    bundle = datasets.load_digits()
    order = torch.randperm(1797, generator=torch.Generator().manual_seed(0)).numpy()
    train, test = bundle.images[order[497:]], bundle.images[order[:497]]
    centred = train - train.mean(axis=0)
    scale = centred.std(ddof=1)
    np.testing.assert_allclose(split.train.images[:, 0], centred / scale, atol=1e-5)
    np.testing.assert_allclose(split.test.images[:, 0], (test - train.mean(axis=0)) / scale, atol=1e-5)
    assert split.test.labels.tolist() == bundle.target[order[:497]].tolist()
    assert torch.bincount(split.test.labels, minlength=10).min() > 30


def test_the_split_follows_the_seed() -> None:
    first, again, other = (load_digits(seed=seed) for seed in (0, 0, 1))
    assert torch.equal(first.test.images, again.test.images)
    assert not torch.equal(first.test.labels, other.test.labels)


def test_a_split_with_an_empty_side_is_refused() -> None:
    with pytest.raises(ValueError, match="n_test 1797: expected between 1 and 1796 of the 1797 digits"):
        load_digits(n_test=1797)


def test_without_scikit_learn_the_error_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "sklearn", None)
    with pytest.raises(MissingPackage, match=r"pip install 'reprise-training\[images\]'"):
        load_digits()

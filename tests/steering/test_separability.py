"""Pictures against numpy's eigenvectors, accuracy against a loop, activations against plain hooks."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import Tensor

from steering.errors import SteeringError
from steering.separability import class_activations, separability

from .conftest import D_MODEL, NETWORKS, hooks_of, plain_run, random_model, texts, tokens_of

GENERATOR = torch.Generator().manual_seed(8)


def classes(apart: float, n: int = 60) -> tuple[Tensor, Tensor]:
    """Two layers; in the second the classes are so many standard deviations apart, along one direction."""
    noise = torch.randn(2, 2, n, 12, generator=GENERATOR)
    direction = torch.nn.functional.normalize(torch.randn(12, generator=GENERATOR), dim=0)
    noise[:, 1] += torch.tensor([0.5, -0.5])[:, None, None] * apart * direction
    return noise[0], noise[1]


def test_the_picture_is_principal_component_analysis() -> None:
    positives, negatives = classes(6.0)
    found = separability(positives, negatives, layers=[3, 5])
    assert found.layers == (3, 5)
    assert found.positive.tolist() == [True] * 60 + [False] * 60
    for layer in range(2):
        together = torch.cat([positives[layer], negatives[layer]]).double().numpy()
        centred = together - together.mean(axis=0)
        values, axes = np.linalg.eigh(centred.T @ centred)
        order = values.argsort()[::-1]
        np.testing.assert_allclose(found.shares[layer], values[order[:2]] / values.sum(), rtol=1e-5)
        expected = centred @ axes[:, order[:2]]
        signs = np.sign((expected * found.coordinates[layer].numpy()).sum(axis=0))
        np.testing.assert_allclose(found.coordinates[layer], expected * signs, atol=1e-4)
    right, left = found.coordinates[1, :60, 0], found.coordinates[1, 60:, 0]
    assert float(right.mean()) > float(left.mean()), "positives are on the right"
    assert float(right.min()) > float(left.max()) - 3, "the first axis is that of the classes"


def test_accuracy_is_that_of_the_midpoint_on_texts_that_the_means_have_not_seen() -> None:
    positives, negatives = classes(2.0)
    found = separability(positives, negatives, seed=4, held_out=0.25)
    order = torch.randperm(60, generator=torch.Generator().manual_seed(4)).tolist()
    held, rest = order[:15], order[15:]
    for layer in range(2):
        means = [side[layer, rest].double().mean(dim=0) for side in (positives, negatives)]
        right = []
        for side, sign in ((positives, 1), (negatives, -1)):
            for text in held:
                projected = (side[layer, text].double() - (means[0] + means[1]) / 2) @ (means[0] - means[1])
                right.append(bool(sign * projected > 0))
        assert found.right[:, layer].tolist() == right
        assert float(found.accuracy[layer]) == pytest.approx(sum(right) / 30)
    low, high = found.ends(seed=0)
    assert float(low[1]) < float(found.accuracy[1]) < float(high[1])
    assert float(found.accuracy[1]) > 0.7


def test_classes_that_do_not_differ_are_not_told_apart() -> None:
    """With 12 dimensions and 6 texts a class, accuracy on the means' own texts would be close to 1."""
    found = [separability(*classes(0.0, n=12), seed=seed).accuracy for seed in range(40)]
    assert 0.4 < float(torch.cat(found).mean()) < 0.6


def test_unpaired_classes_may_be_of_unequal_size() -> None:
    positives, negatives = classes(8.0)
    found = separability(positives, negatives[:, :40], paired=False)
    assert len(found.right) == 50
    assert float(found.accuracy[1]) == 1.0
    assert found.coordinates.shape == (2, 100, 2)


@pytest.mark.parametrize("read", [-1, -2])
@pytest.mark.parametrize("name", NETWORKS)
def test_activations_are_those_of_plain_passes(name: str, read: int) -> None:
    model, some = random_model(name), texts((4, 2, 6, 3), seed=1)
    hooks = hooks_of(model.network)
    found = class_activations(model, some, layers=[0, 2], component="resid_pre", read=read, batch_size=3)
    assert found.shape == (2, 4, D_MODEL)
    for place, text in enumerate(some):
        seen = plain_run(model.network, tokens_of(text))[1]
        for at, layer in enumerate((0, 2)):
            torch.testing.assert_close(found[at, place], seen["resid_pre", layer][read], atol=1e-4, rtol=1e-4)
    assert class_activations(model, some).shape == (3, 4, D_MODEL)
    assert hooks_of(model.network) == hooks


def test_what_cannot_be_parted_is_refused() -> None:
    positives, negatives = classes(1.0, n=4)
    with pytest.raises(SteeringError, match=r"positives \(2, 4, 12\), negatives \(2, 3, 12\): expected \[layer, text"):
        separability(positives, negatives[:, :3])
    with pytest.raises(SteeringError, match=r"held_out=0.9 of \[4, 4\] texts: expected at least one text of each"):
        separability(positives, negatives, held_out=0.9)
    with pytest.raises(SteeringError, match="3 layers for 2"):
        separability(positives, negatives, layers=[1, 2, 3])
    model = random_model("gpt2")
    with pytest.raises(SteeringError, match="read=-3 in texts of at least 2 tokens"):
        class_activations(model, ["the sea", "the sea was red"], read=-3)
    with pytest.raises(SteeringError, match="read=0 in texts"):
        class_activations(model, ["the sea"], read=0)
    with pytest.raises(SteeringError, match="layer 3: expected 0 to 2"):
        class_activations(model, ["the sea"], layers=[3])
    with pytest.raises(SteeringError, match="expected at least one text"):
        class_activations(model, [])

"""Cosines against torch's own, pair by pair."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch

from steering.errors import SteeringError
from steering.similarity import cosines_by_layer, layer_cosines, vector_cosines

from .conftest import random_model, random_vector

NETWORK = random_model("gpt2").network


@pytest.mark.parametrize("positions", [None, 4])
def test_layers_of_a_vector(positions: int | None) -> None:
    vector = random_vector(NETWORK, (0, 1, 2), positions=positions)
    found = layer_cosines(vector)
    flat = [vector.directions[layer].flatten() for layer in (0, 1, 2)]
    for row in range(3):
        for column in range(3):
            expected = torch.cosine_similarity(flat[row], flat[column], dim=0)
            assert float(found[row, column]) == pytest.approx(float(expected), abs=1e-6)


def test_vectors_at_a_layer_and_in_all_layers_of_two() -> None:
    one, two = random_vector(NETWORK, (0, 1)), random_vector(NETWORK, (1, 2), seed=1)
    found = vector_cosines([one, two, -2.0 * one], 1)
    expected = float(torch.cosine_similarity(one.directions[1], two.directions[1], dim=0))
    assert float(found[0, 1]) == pytest.approx(expected, abs=1e-6)
    assert float(found[0, 2]) == pytest.approx(-1.0)
    assert torch.equal(found, found.T)
    assert cosines_by_layer(one, two) == {1: pytest.approx(expected, abs=1e-6)}


def test_what_has_no_cosine_is_refused() -> None:
    vector, by_position = random_vector(NETWORK, (0, 1)), random_vector(NETWORK, (0, 1), positions=2)
    with pytest.raises(SteeringError, match="random 0, layer 0 is 0: expected a direction"):
        layer_cosines(replace(0.0 * vector, name="random 0"))
    with pytest.raises(SteeringError, match=r"layer 1 has shape \(2, 32\), random 0, layer 1 \(32,\): expected one"):
        vector_cosines([vector, by_position], 1)
    with pytest.raises(SteeringError, match=r"random 0 has no layer 2"):
        vector_cosines([vector], 2)
    with pytest.raises(SteeringError, match="no vectors"):
        vector_cosines([], 2)
    with pytest.raises(SteeringError, match=r"random 0 has layers \[0\], random 0 \[1\]: expected one in common"):
        cosines_by_layer(vector.at(0), vector.at(1))

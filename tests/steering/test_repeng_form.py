"""repeng's form: what its `ControlModel` would do with the arrays is what the vector does here, and back."""

from __future__ import annotations

from dataclasses import dataclass, replace
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from interventions import Model
from steering.errors import SteeringError
from steering.repeng_form import RepengVector, behind_layers, from_repeng, to_repeng
from steering.vectors import ModelIdentity, SteeringVector

from .exchange_models import D_MODEL, N_LAYERS, THREE, identity, plain_logits, plus, random_network, vector

TOKENS = [3, 5, 7, 2, 9, 1]
GENERATOR = np.random.default_rng(0)


@dataclass
class ControlVector:
    """As repeng has it: two fields."""

    model_type: str
    directions: dict[int, np.ndarray[Any, Any]]


@torch.no_grad()
def controlled(network: Any, name: str, control: Any, coefficient: float) -> Tensor:
    """Logits of layers that are wrapped, and have coefficient times their array added, as by repeng's ControlModel."""
    base = network.transformer if name == "gpt2" else network.gpt_neox if name == "gpt_neox" else network.model
    layers = base.h if name == "gpt2" else base.layers
    kept = list(layers)

    class Controlled(torch.nn.Module):
        def __init__(self, block: Any, array: np.ndarray[Any, Any]) -> None:
            super().__init__()
            self.block, self.array = block, array

        def __getattr__(self, key: str) -> Any:
            try:
                return super().__getattr__(key)
            except AttributeError:
                return getattr(super().__getattr__("block"), key)

        def forward(self, *args: Any, **kwargs: Any) -> Any:
            output = self.block(*args, **kwargs)
            first = output[0] if isinstance(output, tuple) else output
            first = first + torch.tensor(coefficient * self.array).to(first.dtype).reshape(1, 1, -1)
            return (first, *output[1:]) if isinstance(output, tuple) else first

    try:
        for at, array in control.directions.items():
            layers[at] = Controlled(kept[at], array)
        logits: Tensor = network(torch.tensor([TOKENS]), use_cache=False).logits[0]
    finally:
        for at, block in enumerate(kept):
            layers[at] = block
    return logits


@pytest.mark.parametrize("name", THREE)
def test_repengs_arrays_do_there_what_the_vector_does_here(name: str) -> None:
    network = random_network(name)
    given = ControlVector(name, {k: 3 * GENERATOR.standard_normal(D_MODEL).astype(np.float32) for k in (-1, 0, -2)})
    found = from_repeng(given, network, "v")
    assert (found.layers, found.component, found.model) == ((0, 1, 2), "resid_post", ModelIdentity.of(network, name))
    writes = {("resid_post", layer): plus(x, -1.5) for layer, x in found.directions.items()}
    expected = controlled(network, name, given, -1.5)
    torch.testing.assert_close(plain_logits(network, name, TOKENS, writes), expected, atol=2e-5, rtol=0)
    assert (expected - plain_logits(network, name, TOKENS, {})).abs().max() > 0.1
    back = to_repeng(found)
    assert isinstance(ControlVector(**vars(back)), ControlVector)
    assert back.model_type == name
    for at, k in ((0, 0), (1, -2), (2, -1)):
        assert np.array_equal(back.directions[at], given.directions[k])


@pytest.mark.parametrize("name", THREE)
def test_a_vector_in_front_of_a_layer_is_one_behind_the_layer_before(name: str) -> None:
    network, ours = random_network(name), vector(name, (1, 2), "resid_pre")
    there = to_repeng(ours)
    assert sorted(there.directions) == [0, 1]
    here = {("resid_pre", layer): plus(x, 2.0) for layer, x in ours.directions.items()}
    expected = plain_logits(network, name, TOKENS, here)
    torch.testing.assert_close(controlled(network, name, there, 2.0), expected, atol=2e-5, rtol=0)


def test_what_comes_back_is_the_vector() -> None:
    ours = vector("llama", (0, 2))
    back = from_repeng(to_repeng(ours), identity("llama"), "again")
    assert back == replace(
        ours, name="again", directions=back.directions, facts={"from": "repeng", "model_type": "llama"}
    )
    assert all(torch.equal(back.directions[layer], x) for layer, x in ours.directions.items())
    there = to_repeng(ours)
    there.directions[0][:] = 0
    assert ours.directions[0].abs().min() > 0, "arrays are copies"


@pytest.mark.parametrize(
    ("dtype", "kind"),
    [(torch.float32, "float32"), (torch.float16, "float16"), (torch.float64, "float64"), (torch.bfloat16, "float32")],
)
def test_number_formats_stay_and_bfloat16_is_widened(dtype: torch.dtype, kind: str) -> None:
    ours = vector("llama", (1,))
    ours = replace(ours, directions={1: ours.directions[1].to(dtype)})
    array = to_repeng(ours).directions[1]
    assert array.dtype.name == kind
    assert torch.equal(torch.from_numpy(array).double(), ours.directions[1].double())
    assert from_repeng(RepengVector("llama", {1: array}), identity("llama"), "v").directions[1].dtype == getattr(
        torch, kind
    )


def test_anything_with_the_two_attributes_is_taken() -> None:
    array = GENERATOR.standard_normal(D_MODEL)
    swapped = SimpleNamespace(model_type="gptneox", directions={np.int64(1): array.astype(">f8")})
    network = random_network("gpt_neox")
    found = from_repeng(swapped, Model("pythia", network, None, None), "v")
    assert np.array_equal(found.directions[1].numpy(), array)
    assert (found.model.name, found.facts["model_type"]) == ("pythia", "gptneox")


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        ({"model_type": "gpt2"}, "v: it is of model type 'gpt2': expected llama, that of a random llama; pass any_mo"),
        ({"model_type": None}, "v: SimpleNamespace has not repeng's form: expected a text `model_type` and a mapping"),
        ({"directions": [np.ones(D_MODEL)]}, "v: SimpleNamespace has not repeng's form"),
        ({"directions": {}}, "v: no directions: expected at least one layer's"),
        ({"directions": {"1": np.ones(D_MODEL)}}, "v: layer '1': expected an integer"),
        ({"directions": {3: np.ones(D_MODEL)}}, "v: layer 3: expected -3 to 2, as a random llama has"),
        ({"directions": {-4: np.ones(D_MODEL)}}, "v: layer -4: expected -3 to 2"),
        ({"directions": {2: np.ones(D_MODEL), -1: np.ones(D_MODEL)}}, "v: two directions for layer 2"),
        (
            {"directions": {1: np.ones(D_MODEL + 1)}},
            r"v: layer 1 has shape \(33,\): expected \[32\], the width of a ra",
        ),
        ({"directions": {1: np.ones((2, D_MODEL))}}, r"v: layer 1 has shape \(2, 32\): expected \[32\]"),
        ({"directions": {1: np.full(D_MODEL, np.nan)}}, "v: layer 1 has numbers that are not finite"),
        ({"directions": {1: np.ones(D_MODEL, int)}}, "v: layer 1 is ndarray of int64: expected an array of float16"),
        ({"directions": {1: [[1.0], [1.0, 2.0]]}}, "v: layer 1 is list of object: expected an array"),
        ({"directions": {1: None}}, "v: layer 1 is NoneType of object: expected an array"),
    ],
)
def test_what_is_no_vector_of_the_model_is_refused(changes: dict[str, Any], expected: str) -> None:
    given = {"model_type": "llama", "directions": {1: np.ones(D_MODEL)}}
    with pytest.raises(SteeringError, match=expected):
        from_repeng(SimpleNamespace(**{**given, **changes}), identity("llama"), "v")


def test_another_model_type_can_be_insisted_on() -> None:
    found = from_repeng(RepengVector("x", {1: np.ones(D_MODEL)}), identity("llama"), "v", any_model_type=True)
    assert (found.model.model_type, found.facts["model_type"]) == ("llama", "x")
    with pytest.raises(SteeringError, match="'mistral': expected gemma3 or gemma3_text"):
        from_repeng(RepengVector("mistral", {}), replace(identity("llama"), model_type="gemma3_text"), "v")


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        (
            vector("llama", (1,), n_positions=4),
            r"layer 1 has shape \(4, 32\): repeng's form holds directions \[d_model\]",
        ),
        (vector("llama", (0, 1), "resid_pre"), "resid_pre of layer 0 is behind no layer: repeng's form cannot hold it"),
        (vector("llama", (N_LAYERS,)), "layer 3: expected 0 to 2, as a random llama has"),
        (SteeringVector({}, "love - hate", identity("llama")), "no directions: expected at least one layer's"),
    ],
)
def test_what_the_form_cannot_hold_is_refused(given: SteeringVector, expected: str) -> None:
    with pytest.raises(SteeringError, match=f"love - hate: {expected}"):
        to_repeng(given)
    with pytest.raises(SteeringError, match=expected.replace("repeng's form", "a file")):
        behind_layers(given, "a file")

"""Circuits through two heads against float64 algebra on the raw weights, with the norms folded by hand."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor

from circuits.head_outputs import Head
from circuits.paths import k_composition_circuit, q_composition_circuit, v_composition_circuit
from circuits.weights import read_weights

from .conftest import Case, gpt2, hugging_face_case, llama

EARLIER, LATER = (0, 1), (2, 2)


def layer_norm_linear(x: Tensor, norm: Any) -> Tensor:
    """What the norm does to x before it divides: gain * (x - mean x)."""
    centred: Tensor = (x - x.mean(-1, keepdim=True)) * norm.weight.detach().double()
    return centred


def moved(model: Any, x: Tensor, head: Head) -> Tensor:
    """What `head` writes where it attends to x, up to the divisor and the biases."""
    layer, index = head
    value = layer_norm_linear(x, model.blocks[layer].ln1) @ model.W_V[layer, index].double()
    out: Tensor = value @ model.W_O[layer, index].double()
    return out


def read(model: Any, x: Tensor, name: str, head: Head) -> Tensor:
    layer, index = head
    W: Tensor = getattr(model, f"W_{name}")[layer, index].double()
    return layer_norm_linear(x, model.blocks[layer].ln1) @ W


def close(circuit: Any, expected: Tensor) -> None:
    torch.testing.assert_close(circuit.AB.double(), expected, rtol=1e-4, atol=1e-4 * float(expected.abs().max()))


@torch.no_grad()
def check(model: Any, earlier: Head, later: Head, E: Tensor | None = None) -> None:
    weights = read_weights(model)
    x = (model.W_E if E is None else E).double()
    seen = moved(model, x, earlier)
    k = read(model, x, "Q", later) @ read(model, seen, "K", later).T
    q = read(model, seen, "Q", later) @ read(model, x, "K", later).T
    close(k_composition_circuit(weights, earlier, later, embedding=E), k)
    close(q_composition_circuit(weights, earlier, later, embedding=E), q)
    v = layer_norm_linear(moved(model, seen, later), model.ln_final) @ model.W_U.double()
    close(v_composition_circuit(weights, earlier, later, embedding=E), v)


def test_circuits_are_the_products_of_the_raw_weights(native: Case) -> None:
    check(native.bridge, EARLIER, LATER)
    check(native.bridge, (1, 0), (2, 1), torch.randn(7, 12, generator=torch.Generator().manual_seed(0)))


def test_around_hugging_face_models() -> None:
    check(hugging_face_case(gpt2()).bridge, (0, 2), (1, 0))


@torch.no_grad()
def test_entries_are_the_scores_of_the_models_own_modules(native: Case) -> None:
    """A query's stream holds a token alone, a key's stream the moved token alone; biases and divisors taken off."""
    model, weights = native.bridge, read_weights(native.bridge)
    block = model.blocks[LATER[0]]

    def through(x: Tensor, name: str) -> Tensor:
        W, b = getattr(model, f"W_{name}")[LATER], getattr(model, f"b_{name}")[LATER]
        flat: Tensor = block.attn.get_submodule(name.lower())(block.ln1(x[None]))[0]
        ours: Tensor = flat.view(len(x), 3, -1)[:, LATER[1]] - b - block.ln1.bias @ W
        return ours * weights.scale(x)

    x = weights.W_E
    scores = through(x, "Q") @ through(moved(model, x.double(), EARLIER).float(), "K").T
    close(k_composition_circuit(weights, EARLIER, LATER), scores.double())


@torch.no_grad()
def test_virtual_head_of_a_rotary_model() -> None:
    hugging_face = llama()
    model = hugging_face_case(hugging_face).bridge
    x = hugging_face.model.embed_tokens.weight.double()
    for (layer, head), key_value in (((0, 1), 0), ((1, 2), 1)):  # two query heads share a value
        part = hugging_face.model.layers[layer]
        W_V = part.self_attn.v_proj.weight.double()[4 * key_value : 4 * key_value + 4].T
        W_O = part.self_attn.o_proj.weight.double()[:, 4 * head : 4 * head + 4].T
        x = x * part.input_layernorm.weight.double() @ W_V @ W_O
    expected = x * hugging_face.model.norm.weight.double() @ hugging_face.lm_head.weight.double().T
    close(v_composition_circuit(read_weights(model), (0, 1), (1, 2)), expected)


def diagonal_shares(weights: Any, circuit: Any, later: Head) -> Tensor:
    """Share of rows with their maximum on the diagonal, for each head of layer 0 as the earlier one."""
    tables = [circuit(weights, (0, head), later).AB for head in range(12)]
    return torch.stack([(table.argmax(1) == torch.arange(len(table))).float().mean() for table in tables])


@pytest.mark.parametrize("later", [(1, 11), (1, 5)])
def test_induction_heads_match_the_token_that_the_previous_token_head_moved(shipped: Any, later: Head) -> None:
    weights = read_weights(shipped("attn-only-2l"))
    k = diagonal_shares(weights, k_composition_circuit, later)
    assert k[6] > 0.1  # chance is 1 / 1024
    assert k[torch.arange(12) != 6].max() < 0.01
    assert diagonal_shares(weights, q_composition_circuit, later).max() < 0.01
    table = k_composition_circuit(weights, (0, 6), later).AB
    assert (table > table.diagonal()[:, None]).sum(1).median() < 15


@pytest.mark.parametrize("circuit", [k_composition_circuit, q_composition_circuit, v_composition_circuit])
def test_pairs_that_cannot_compose_are_refused(native: Case, circuit: Any) -> None:
    weights = read_weights(native.bridge)
    with pytest.raises(ValueError, match=r"earlier=\(1, 0\) is not in an earlier layer than later=\(1, 2\): expected"):
        circuit(weights, (1, 0), (1, 2))
    with pytest.raises(ValueError, match=r"head \(0, 3\) does not exist"):
        circuit(weights, (0, 3), (1, 2))
    with pytest.raises(ValueError, match=r"embedding has shape \(5, 11\): expected \[d_vocab, 12\]"):
        circuit(weights, (0, 0), (1, 2), embedding=torch.zeros(5, 11))


@pytest.mark.parametrize("circuit", [k_composition_circuit, q_composition_circuit])
def test_scores_of_rotary_models_are_refused(circuit: Any) -> None:
    weights = read_weights(hugging_face_case(llama()).bridge)
    with pytest.raises(ValueError, match=f"{circuit.__name__}: the model is rotary, so that the match"):
        circuit(weights, (0, 0), (1, 2))

"""Decoded tokens against the network's own last steps, and rebuilt vectors against what they were rebuilt from."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor

from function_vectors.decoding import decode, rebuild
from function_vectors.engine import EngineRunner
from function_vectors.vectors import FunctionVector

from .conftest import D_MODEL, NETWORKS, Plain, encoded, lists, random_network

VECTOR = FunctionVector(torch.randn(D_MODEL, generator=torch.Generator().manual_seed(0)), "antonym", ((1, 2),), layer=1)


class Letters:
    """A tokenizer of one sign a token."""

    def encode(self, text: str) -> list[int]:
        return [ord(sign) - 48 for sign in text]

    def decode(self, tokens: list[int]) -> str:
        return "".join(chr(token + 48) for token in tokens)


def decoded_by_a_pass(name: str, vector: Tensor) -> Tensor:
    """Logits of a forward pass in which the stream behind the last layer is the vector."""
    plain = Plain(name)

    def put(stream: Tensor) -> Tensor:
        stream[-1] = vector
        return stream

    return plain.run(lists(encoded((4,), seed=0))[0], stream={2: put}).logits


@pytest.mark.parametrize("name", NETWORKS)
def test_decoding_is_what_the_network_does_behind_its_last_layer(name: str) -> None:
    found = decode(EngineRunner(random_network(name)), VECTOR, 6)
    expected = decoded_by_a_pass(name, VECTOR.vector).softmax(dim=-1).sort(descending=True)
    assert torch.equal(found.tokens, expected.indices[:6])
    torch.testing.assert_close(found.probabilities, expected.values[:6], atol=1e-5, rtol=0)
    assert found.words(Letters()) == [chr(48 + token) for token in found.tokens.tolist()]


@pytest.mark.parametrize("name", ["gpt2", "llama", "gemma2"])
def test_a_rebuilt_vector_decodes_to_the_same_few_tokens(name: str) -> None:
    """On n of the tokens: their order, their probabilities among themselves, and the divergence that is reported."""
    network: Any = random_network(name)
    n = 5
    found = rebuild(network, VECTOR, n=n, seed=7, steps=300, rate=0.1)
    given = decoded_by_a_pass(name, VECTOR.vector)
    top = given.topk(n).indices
    wanted = given[top].softmax(dim=-1)
    got = decoded_by_a_pass(name, found.vector.vector)[top].softmax(dim=-1)
    assert found.divergence == pytest.approx(float((wanted * (wanted / got).log()).sum()), abs=1e-4)
    start = torch.randn(D_MODEL, generator=torch.Generator().manual_seed(7))
    start = decoded_by_a_pass(name, start * VECTOR.vector.norm() / start.norm())[top].softmax(dim=-1)
    assert found.divergence < 0.2 * float((wanted * (wanted / start).log()).sum())
    assert float(found.vector.vector.norm()) == pytest.approx(float(VECTOR.vector.norm()), rel=1e-4)
    assert (found.vector.task, found.vector.heads, found.vector.layer) == ("antonym from 5 tokens", (), 1)
    assert all(parameter.grad is None for parameter in network.parameters())


def test_rebuilding_is_seeded() -> None:
    network = random_network("gpt2")
    first, again, other = (rebuild(network, VECTOR, n=3, seed=seed, steps=5).vector.vector for seed in (1, 1, 2))
    assert torch.equal(first, again)
    assert not torch.allclose(first, other, atol=0.1)


def test_rebuilding_works_inside_no_grad() -> None:
    with torch.no_grad():
        assert rebuild(random_network("gpt2"), VECTOR, n=3, seed=1, steps=5).divergence > 0


def test_numbers_of_tokens_that_make_no_sense_are_refused() -> None:
    network = random_network("gpt2")
    for n in (0, 38):
        with pytest.raises(ValueError, match=rf"n={n} tokens: expected 1 to 37, the vocabulary"):
            decode(EngineRunner(network), VECTOR, n)
        with pytest.raises(ValueError, match=rf"n={n} tokens: expected 1 to 37, the vocabulary"):
            rebuild(network, VECTOR, n=n, seed=0)
    with pytest.raises(ValueError, match="steps=0: expected at least 1"):
        rebuild(network, VECTOR, n=3, seed=0, steps=0)

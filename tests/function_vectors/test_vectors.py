"""Means and vectors against loops over prompts and over the weights, and against what a layer really writes."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from function_vectors.engine import EngineRunner
from function_vectors.vectors import FunctionVector, composed, function_vector, head_shares, mean_z, vectors_by_k
from interventions import Prompts

from .conftest import D_HEAD, D_MODEL, N_HEADS, N_LAYERS, NETWORKS, Plain, encoded, lists, random_network

CLEAN = encoded((7, 4, 6, 7, 5), seed=0)
Z = torch.randn(N_LAYERS, N_HEADS, D_HEAD, generator=torch.Generator().manual_seed(1))
HEADS = ((2, 1), (0, 3), (2, 0))


@pytest.mark.parametrize("name", NETWORKS)
def test_mean_z_is_that_of_a_loop_over_prompts(name: str) -> None:
    found = mean_z(EngineRunner(random_network(name), batch_size=2), CLEAN)
    plain = Plain(name)
    expected = torch.stack([plain.run(tokens).z for tokens in lists(CLEAN)]).mean(dim=0)
    torch.testing.assert_close(found, expected, atol=1e-5, rtol=0)
    assert found.abs().max() > 0.1


def test_prompts_pass_in_batches(monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[int] = []
    last_z = EngineRunner.last_z

    def counted(self: EngineRunner, prompts: Prompts) -> Tensor:
        seen.append(len(prompts))
        return last_z(self, prompts)

    monkeypatch.setattr(EngineRunner, "last_z", counted)
    mean_z(EngineRunner(random_network("gpt2"), batch_size=2), CLEAN)
    assert seen == [2, 2, 1]
    with pytest.raises(ValueError, match="batch_size=0: expected at least 1 prompt at a time"):
        mean_z(EngineRunner(random_network("gpt2"), batch_size=0), CLEAN)


@pytest.mark.parametrize("name", [name for name in NETWORKS if not name.startswith("gemma")])
def test_a_vector_is_the_sum_of_rows_of_the_output_matrices(name: str) -> None:
    plain = Plain(name)
    with torch.no_grad():
        expected = sum(Z[layer, head] @ plain.weight(layer)[head] for layer, head in HEADS)
    found = function_vector(EngineRunner(random_network(name)), Z, HEADS, task="antonym")
    torch.testing.assert_close(found.vector, expected, atol=1e-5, rtol=0)
    assert (found.task, found.heads, found.k, found.layer) == ("antonym", HEADS, 3, None)


@pytest.mark.parametrize("name", ["gemma2", "gemma3_text"])
def test_behind_a_norm_a_head_has_the_divisor_of_the_whole_layer(name: str) -> None:
    plain = Plain(name)
    with torch.no_grad():
        for layer in range(N_LAYERS):
            alone = torch.stack([Z[layer, head] @ plain.weight(layer)[head] for head in range(N_HEADS)])
            norm = plain.behind[layer]
            divisor = (alone.sum(dim=0).square().mean() + norm.eps).sqrt()
            expected = alone / divisor * (1 + norm.weight)
            found = head_shares(EngineRunner(random_network(name)), Z)[layer]
            torch.testing.assert_close(found, expected, atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("name", NETWORKS)
def test_all_shares_together_are_what_the_layer_writes(name: str) -> None:
    plain, tokens = Plain(name), lists(CLEAN)[0]

    def put(layer: int, values: Tensor) -> Tensor:
        def edit(z: Tensor) -> Tensor:
            z[-1] = values[layer]
            return z

        return plain.run(tokens, z={layer: edit}).written[layer]

    shares = head_shares(EngineRunner(random_network(name)), Z).sum(dim=1)
    for layer in range(N_LAYERS):
        # Without z a layer writes its bias, which is no head's; a norm behind it has none.
        bias = 0 if name.startswith("gemma") else put(layer, torch.zeros_like(Z))
        torch.testing.assert_close(shares[layer] + bias, put(layer, Z), atol=1e-4, rtol=0)


@pytest.mark.parametrize("name", ["gpt2", "gemma2"])
def test_a_head_that_says_nothing_has_no_share(name: str) -> None:
    silent = Z.clone()
    silent[1, 2], silent[2] = 0, 0
    shares = head_shares(EngineRunner(random_network(name)), silent)
    assert shares[1, 2].abs().max() == 0
    assert shares[2].abs().max() == 0
    assert shares[1, 1].abs().max() > 0.1


def test_shares_of_half_precision_weights_are_computed_in_float32() -> None:
    network = random_network("gpt2", dtype=torch.bfloat16)
    found = head_shares(EngineRunner(network), Z)
    weights = [block.attn.c_proj.weight.float().view(N_HEADS, D_HEAD, D_MODEL) for block in network.transformer.h]
    expected = torch.einsum("lhd,lhdm->lhm", Z, torch.stack(weights))
    torch.testing.assert_close(found, expected, atol=1e-5, rtol=0)
    assert network.transformer.h[0].attn.c_proj.weight.dtype == torch.bfloat16


def test_vectors_by_k_are_those_of_the_first_heads() -> None:
    runner = EngineRunner(random_network("llama"))
    found = vectors_by_k(runner, Z, HEADS, [3, 1], task="antonym")
    assert [each.heads for each in found] == [HEADS, HEADS[:1]]
    for each in found:
        alone = [function_vector(runner, Z, [head], task="").vector for head in each.heads]
        torch.testing.assert_close(each.vector, torch.stack(alone).sum(dim=0), atol=1e-5, rtol=0)


def test_heads_that_do_not_fit_are_refused() -> None:
    runner = EngineRunner(random_network("gpt2"))
    with pytest.raises(ValueError, match=r"head \(3, 0\) does not exist: expected \(layer, head\), layers 0 to 2"):
        function_vector(runner, Z, [(3, 0)], task="")
    with pytest.raises(ValueError, match=r"heads \[\(1, 1\), \(1, 1\)\]: expected at least one, each once"):
        function_vector(runner, Z, [(1, 1), (1, 1)], task="")
    with pytest.raises(ValueError, match=r"heads \[\]: expected at least one"):
        function_vector(runner, Z, [], task="")
    with pytest.raises(ValueError, match="k=4: expected 1 to 3, the heads that are given"):
        vectors_by_k(runner, Z, HEADS, [2, 4], task="")
    with pytest.raises(ValueError, match=r"z has shape \(3, 2, 8\): expected \[3, 4, d_head\]"):
        function_vector(runner, Z[:, :2], HEADS, task="")


def vector(numbers: list[float], task: str, heads: tuple[tuple[int, int], ...], layer: int | None) -> FunctionVector:
    return FunctionVector(torch.tensor(numbers), task, heads, layer)


def test_vectors_add_up_and_remember_what_they_are() -> None:
    a, b = vector([1.0, 2.0], "a", ((0, 1), (2, 0)), 4), vector([10.0, -1.0], "b", ((2, 0), (1, 1)), 4)
    both, less = a + b, a - b.at(5)
    assert (both.vector.tolist(), both.task, both.heads, both.layer) == (
        [11.0, 1.0],
        "a + b",
        ((0, 1), (2, 0), (1, 1)),
        4,
    )
    assert (less.vector.tolist(), less.task, less.layer) == ([-9.0, 3.0], "a - b", None)
    assert ((-a).vector.tolist(), (-a).task, (-a).heads) == ([-1.0, -2.0], "-(a)", a.heads)
    assert ((2.5 * a).vector.tolist(), (a * 2.5).task) == ([2.5, 5.0], "2.5 (a)")
    with pytest.raises(ValueError, match="vectors of a and c have 2 and 1 numbers: expected vectors of one model"):
        a + vector([1.0], "c", (), None)


def test_composition_takes_away_what_both_share() -> None:
    """With vectors that are an operation plus a relation, the composition is the wanted pair exactly."""
    parts = dict(zip("ABCD", torch.randn(4, 6, generator=torch.Generator().manual_seed(0)), strict=True))
    pairs = {name: FunctionVector(parts[name[0]] + parts[name[1]], name) for name in ("AD", "BC", "AC")}
    found = composed(pairs["AD"], pairs["BC"], pairs["AC"], task="last capital")
    torch.testing.assert_close(found.vector, parts["B"] + parts["D"])
    assert found.task == "last capital"

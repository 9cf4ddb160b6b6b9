"""Indirect effects against one plain forward pass a head, and the choice of heads against sorting."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from function_vectors.effects import average_indirect_effect, indirect_effects, top_heads
from function_vectors.engine import EngineRunner
from interventions import SweepResult

from .conftest import D_HEAD, N_HEADS, N_LAYERS, NETWORKS, Plain, encoded, lists, random_network

SHUFFLED = encoded((7, 4, 6, 7, 5), seed=0, answer_lengths=(1, 2))
MEAN = torch.randn(N_LAYERS, N_HEADS, D_HEAD, generator=torch.Generator().manual_seed(1))


def one_pass_a_head(plain: Plain) -> tuple[Tensor, Tensor]:
    """p(answer) with each head replaced [prompt, layer, head], and without [prompt]."""
    clean, values = [], torch.empty(len(SHUFFLED.answers), N_LAYERS, N_HEADS)
    for prompt, (tokens, answer) in enumerate(zip(lists(SHUFFLED), SHUFFLED.answers, strict=True)):
        clean.append(plain.run(tokens).logits.softmax(dim=-1)[answer[0]])
        for layer in range(N_LAYERS):
            for head in range(N_HEADS):

                def put(z: Tensor, layer: int = layer, head: int = head) -> Tensor:
                    z[-1, head] = MEAN[layer, head]
                    return z

                run = plain.run(tokens, z={layer: put})
                values[prompt, layer, head] = run.logits.softmax(dim=-1)[answer[0]]
    return values, torch.stack(clean)


@pytest.mark.parametrize("name", NETWORKS)
def test_indirect_effects_are_those_of_one_forward_pass_a_head(name: str) -> None:
    found = indirect_effects(EngineRunner(random_network(name), batch_size=2), SHUFFLED, MEAN)
    values, clean = one_pass_a_head(Plain(name))
    assert found.axes == ("layer", "head")
    torch.testing.assert_close(found.values, values, atol=1e-5, rtol=0)
    torch.testing.assert_close(found.clean, clean, atol=1e-5, rtol=0)
    torch.testing.assert_close(found.effects, values - clean[:, None, None], atol=1e-5, rtol=0)
    assert found.effects.abs().max() > 1e-3, "an effect of nothing shows nothing"


@pytest.mark.parametrize("name", ["gpt2", "llama", "gemma2"])
def test_bfloat16_rounds_as_plain_hooks_do(name: str) -> None:
    def effects(plain: Plain) -> Tensor:
        values, clean = one_pass_a_head(plain)
        return values - clean[:, None, None]

    exact = effects(Plain(name))
    found = indirect_effects(EngineRunner(random_network(name, dtype=torch.bfloat16)), SHUFFLED, MEAN)
    ours, theirs = (x - exact for x in (found.effects, effects(Plain(name, torch.bfloat16))))
    assert found.values.dtype == torch.float32
    assert 0 < ours.square().mean().sqrt() < 2 * theirs.square().mean().sqrt()


def test_a_mean_of_another_model_is_refused() -> None:
    with pytest.raises(ValueError, match=r"mean z has shape \(2, 4, 8\): expected \[3, 4, d_head\]"):
        indirect_effects(EngineRunner(random_network("gpt2")), SHUFFLED, MEAN[:2])


def result(values: Tensor) -> SweepResult:
    coordinates = {"layer": tuple(range(values.shape[1])), "head": tuple(range(values.shape[2]))}
    return SweepResult(values, torch.zeros(len(values)), ("layer", "head"), coordinates, "z", "probability")


def test_the_average_counts_tasks_alike() -> None:
    many, few = torch.ones(9, 1, 2), torch.tensor([[[4.0, -1.0]]])
    average = average_indirect_effect([result(many), result(few)])
    assert average.tolist() == [[2.5, 0.0]]
    with pytest.raises(ValueError, match=r"of 0 tasks, of shapes \[\]: expected at least one task, all of one model"):
        average_indirect_effect([])
    with pytest.raises(ValueError, match=r"of 2 tasks, of shapes \[\(1, 2\), \(2, 2\)\]"):
        average_indirect_effect([result(many), result(torch.ones(1, 2, 2))])


def test_top_heads_are_the_largest_in_order() -> None:
    effects = torch.tensor([[0.1, -0.9, 0.3], [0.3, 0.0, 0.2]])
    expected = sorted(
        ((layer, head) for layer in range(2) for head in range(3)), key=lambda at: (-effects[at].item(), at)
    )
    assert top_heads(effects, 6) == tuple(expected)
    assert top_heads(effects, 2) == ((0, 2), (1, 0))


@pytest.mark.parametrize("k", [0, 7])
def test_more_heads_than_there_are_is_an_error(k: int) -> None:
    with pytest.raises(ValueError, match=rf"k={k} heads: expected 1 to 6, the heads of 2 layers"):
        top_heads(torch.zeros(2, 3), k)


def test_an_effect_that_is_no_number_is_an_error() -> None:
    effects = torch.zeros(2, 3)
    effects[1, 2] = torch.nan
    with pytest.raises(ValueError, match=r"the effect of head \(1, 2\) is not a number"):
        top_heads(effects, 1)

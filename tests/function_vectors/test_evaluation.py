"""Predictions with and without edits against one plain forward pass a prompt and layer, without padding or cache."""

from __future__ import annotations

import copy
from dataclasses import replace
from typing import Any

import pytest
import torch
from torch import Tensor

from function_vectors.encoding import Encoded
from function_vectors.engine import EngineRunner
from function_vectors.evaluation import score, score_by_edit, score_by_k, score_by_layer, whole_answers
from function_vectors.runners import StreamEdit, adding, replacing
from function_vectors.selection import answered
from function_vectors.vectors import mean_z, mean_z_of_right, vectors_by_k
from interventions.hooks import Modules

from .conftest import (
    D_HEAD,
    D_MODEL,
    FOUR,
    N_HEADS,
    N_LAYERS,
    NETWORKS,
    Plain,
    Write,
    at_last,
    encoded,
    lists,
    plus,
    put,
    random_network,
)

PROMPTS = encoded((7, 4, 6, 7, 5), seed=0)
N = len(PROMPTS.answers)
GENERATOR = torch.Generator().manual_seed(1)
VECTOR = 10 * torch.randn(D_MODEL, generator=GENERATOR)
BY_LAYER = 10 * torch.randn(N_LAYERS, D_MODEL, generator=GENERATOR)
STATES = 10 * torch.randn(N, N_LAYERS, D_MODEL, generator=GENERATOR)
EDITS = {
    "one vector": adding(VECTOR),
    "a vector a layer": adding(BY_LAYER),
    "a vector a prompt": StreamEdit(STATES[:, :1]),
    "a state a prompt": replacing(STATES),
    "a state for all": replacing(STATES[:1]),
}


def write_of(kind: str, prompt: int, layer: int) -> Write:
    """The edit of one prompt at one layer, written out."""
    table: dict[str, Write] = {
        "one vector": plus(VECTOR),
        "a vector a layer": plus(BY_LAYER[layer]),
        "a vector a prompt": plus(STATES[prompt, 0]),
        "a state a prompt": put(STATES[prompt, layer]),
        "a state for all": put(STATES[0, layer]),
    }
    return table[kind]


def expected_logits(plain: Plain, kind: str) -> Tensor:
    """[prompt, layer, d_vocab]"""
    rows = [
        torch.stack(
            [plain.run(tokens, stream={at: at_last(write_of(kind, prompt, at))}).logits for at in range(N_LAYERS)]
        )
        for prompt, tokens in enumerate(lists(PROMPTS))
    ]
    return torch.stack(rows)


def with_answers(first: Tensor) -> Encoded:
    return replace(PROMPTS, answers=tuple((int(token),) for token in first))


@pytest.mark.parametrize("name", NETWORKS)
def test_a_vector_added_at_every_layer_is_one_forward_pass_a_layer(name: str) -> None:
    runner, expected = EngineRunner(random_network(name), batch_size=2), expected_logits(Plain(name), "one vector")
    best = expected.argmax(dim=-1)
    right = with_answers(best[:, 1])
    found = score_by_layer(runner, right, EDITS["one vector"])
    assert (found.axes, found.coordinates) == (("layer",), ((0, 1, 2),))
    assert torch.equal(found.right, best == best[:, 1:2])
    assert torch.equal(runner.predictions_by_layer(PROMPTS.prompts, EDITS["one vector"], [2, 0]), best[:, [2, 0]])
    clean = torch.stack([Plain(name).run(tokens).logits.argmax() for tokens in lists(PROMPTS)])
    assert torch.equal(score(runner, right).right, clean == best[:, 1])
    assert torch.equal(runner.predictions(PROMPTS.prompts), clean)
    assert bool((best != clean[:, None]).any()), "an edit without effect shows nothing"


@pytest.mark.parametrize("kind", EDITS)
@pytest.mark.parametrize("name", [*FOUR, "gemma2"])
def test_every_edit_is_one_forward_pass_a_layer(name: str, kind: str) -> None:
    runner, expected = EngineRunner(random_network(name), batch_size=2), expected_logits(Plain(name), kind)
    found = runner.predictions_by_layer(PROMPTS.prompts, EDITS[kind], range(N_LAYERS))
    assert torch.equal(found, expected.argmax(dim=-1))
    candidates = torch.tensor([3, 36, 17, 5])
    among = runner.predictions_by_layer(PROMPTS.prompts, EDITS[kind], [0, 2], candidates)
    assert torch.equal(among, candidates[expected[:, [0, 2]][..., candidates].argmax(dim=-1)])


@pytest.mark.parametrize("name", ["gpt2", "llama"])
def test_several_edits_are_each_of_them_and_run_the_prompts_once(name: str) -> None:
    network, calls = random_network(name), list[int]()
    runner = EngineRunner(network, batch_size=2)
    edits = [EDITS[kind] for kind in EDITS]
    expected = [runner.predictions_by_layer(PROMPTS.prompts, edit, [2, 0]) for edit in edits]
    layer = Modules(network).layers[0]
    handle = layer.register_forward_hook(lambda module, args, output: calls.append(args[0].shape[1]))
    found = runner.predictions_by_edit(PROMPTS.prompts, edits, [2, 0])
    handle.remove()
    assert torch.equal(found, torch.stack(expected, dim=1))
    # Three batches of like length: each once for the sweeps, and once for the clean stream that some edits add to.
    assert sorted(length for length in calls if length > 1) == sorted(2 * [5, 7, 7])
    with pytest.raises(ValueError, match="no edits: expected at least one"):
        score_by_edit(runner, PROMPTS, [])


@pytest.mark.parametrize("n_right", [0, 2])
def test_the_mean_z_of_right_prompts_is_that_of_these_alone(n_right: int) -> None:
    runner = EngineRunner(random_network("llama"), batch_size=2)
    best = runner.predictions(PROMPTS.prompts)
    wrong = torch.arange(N) >= n_right
    encoded = with_answers(torch.where(wrong, (best + 1) % 37, best))
    right, z = mean_z_of_right(runner, encoded)
    assert right.tolist() == (~wrong).tolist()
    expected = mean_z(runner, answered(encoded, right) if n_right else encoded)
    torch.testing.assert_close(z, expected, atol=1e-6, rtol=0)


def test_half_precision_adds_as_the_network_would() -> None:
    """Whether the sum is made by the sweep or given to it, it is rounded once, in bfloat16."""
    runner = EngineRunner(random_network("llama", dtype=torch.bfloat16))
    one = runner.predictions_by_layer(PROMPTS.prompts, adding(VECTOR), range(N_LAYERS))
    each = runner.predictions_by_layer(PROMPTS.prompts, adding(VECTOR.expand(N_LAYERS, -1).clone()), range(N_LAYERS))
    assert torch.equal(one, each)


def test_scores_among_candidates_are_of_the_restricted_logits() -> None:
    runner, plain = EngineRunner(random_network("gpt2"), batch_size=3), Plain("gpt2")
    logits = torch.stack([plain.run(tokens).logits for tokens in lists(PROMPTS)])
    candidates = torch.tensor([3, 36, 17, 5, 8])
    best = candidates[logits[:, candidates].argmax(dim=-1)]
    mixed = with_answers(torch.where(torch.arange(N) < 3, best, candidates[(best == 3).long()]))
    found = score(runner, mixed, candidates=candidates)
    assert torch.equal(found.right, mixed.first == best)
    assert 0 < int(found.right.sum()) < N
    with pytest.raises(ValueError, match="the answer of prompt 0 begins with token 9, which is not among the 5 cand"):
        score(runner, with_answers(torch.full((N,), 9)), candidates=candidates)


def test_of_equal_logits_one_token_is_predicted() -> None:
    network = copy.deepcopy(random_network("llama"))
    with torch.no_grad():
        network.lm_head.weight.zero_()
    runner = EngineRunner(network)
    assert runner.predictions(PROMPTS.prompts).tolist() == [0] * N
    assert runner.predictions_by_layer(PROMPTS.prompts, adding(VECTOR), [1]).tolist() == [[0]] * N


def test_scores_by_number_of_heads_are_those_of_each_vector() -> None:
    runner = EngineRunner(random_network("gpt2"))
    z, heads = torch.randn(N_LAYERS, N_HEADS, D_HEAD, generator=GENERATOR), [(2, 1), (0, 3), (1, 1)]
    right = with_answers(runner.predictions(PROMPTS.prompts))
    found = score_by_k(runner, right, z, heads, [1, 3], layers=[2, 0])
    assert (found.axes, found.coordinates) == (("k", "layer"), ((1, 3), (2, 0)))
    plain = Plain("gpt2")
    for place, each in enumerate(vectors_by_k(runner, z, heads, [1, 3], task="")):
        for column, layer in enumerate((2, 0)):
            edit = at_last(plus(each.vector))
            best = [int(plain.run(tokens, stream={layer: edit}).logits.argmax()) for tokens in lists(PROMPTS)]
            assert found.right[:, place, column].tolist() == [a == b for a, b in zip(best, right.first, strict=True)]


def test_edits_that_do_not_fit_are_refused_before_anything_runs(monkeypatch: pytest.MonkeyPatch) -> None:
    runner = EngineRunner(random_network("gpt2"))
    monkeypatch.setattr("function_vectors.engine.sweep", pytest.fail)
    monkeypatch.setattr("function_vectors.engine.final_hidden", pytest.fail)
    monkeypatch.setattr(EngineRunner, "_greedy", pytest.fail)
    message = r"stream edit has values of shape \[2, 3, 32\]: expected \[5 or 1, 3 or 1, d_model\]"
    with pytest.raises(ValueError, match=message):
        score_by_layer(runner, PROMPTS, replacing(STATES[:2]))
    with pytest.raises(ValueError, match=message):
        runner.generated(PROMPTS.prompts, 1, edit=replacing(STATES[:2]))
    with pytest.raises(ValueError, match=r"layers \[1, 3\]: expected at least one of 0 to 2, each once"):
        score_by_layer(runner, PROMPTS, adding(VECTOR), layers=[1, 3])
    with pytest.raises(ValueError, match=r"layers \[\]: expected at least one of 0 to 2"):
        score_by_layer(runner, PROMPTS, adding(VECTOR), layers=[])
    with pytest.raises(ValueError, match="n_tokens=0: expected at least 1 token to generate"):
        runner.generated(PROMPTS.prompts, 0)
    with pytest.raises(ValueError, match="60 tokens behind prompts of 7: expected at most 64 positions"):
        runner.generated(PROMPTS.prompts, 60)


@pytest.mark.parametrize("name", ["gpt2", "gemma2"])
def test_the_network_is_left_as_it_was(name: str) -> None:
    network: Any = random_network(name)
    before = {key: value.clone() for key, value in network.state_dict().items()}
    logits = network(PROMPTS.prompts.tokens).logits
    runner = EngineRunner(network, batch_size=2)
    score_by_layer(runner, PROMPTS, adding(VECTOR))
    whole_answers(runner, PROMPTS, adding(VECTOR))
    assert all(torch.equal(value, before[key]) for key, value in network.state_dict().items())
    assert torch.equal(network(PROMPTS.prompts.tokens).logits, logits)
    assert not any(m._forward_hooks or m._forward_pre_hooks for m in network.modules())

"""Task vectors and conflicting demonstrations against plain forward passes, one prompt at a time."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from torch import Tensor

from function_vectors.engine import EngineRunner
from function_vectors.evaluation import score_by_layer
from function_vectors.runners import replacing
from function_vectors.task_vectors import conflict, task_vectors

from .conftest import FOUR, N_LAYERS, NETWORKS, Plain, at_last, encoded, lists, put, random_network

DUMMIES = encoded((7, 4, 6, 7, 5, 6), seed=0)
REGULAR = encoded((5, 3, 4), seed=1)


def patched(plain: Plain, states: Tensor) -> Tensor:
    """Logits [prompt, layer, d_vocab] of REGULAR with its states put in, a pass for each."""
    rows = [
        torch.stack([plain.run(tokens, stream={at: at_last(put(state[at]))}).logits for at in range(N_LAYERS)])
        for state, tokens in zip(states, lists(REGULAR), strict=True)
    ]
    return torch.stack(rows)


@pytest.mark.parametrize("name", NETWORKS)
def test_task_vectors_are_streams_of_dummy_queries_put_in_place(name: str) -> None:
    runner, plain = EngineRunner(random_network(name), batch_size=2), Plain(name)
    streams = [plain.run(tokens).stream for tokens in lists(DUMMIES)]
    expected = torch.stack([(streams[at] + streams[at + 1]) / 2 for at in (0, 2, 4)])
    states = task_vectors(runner, DUMMIES.prompts, per=2)
    torch.testing.assert_close(states, expected, atol=1e-4, rtol=1e-5)
    best = patched(plain, expected).argmax(dim=-1)
    answers = replace(REGULAR, answers=tuple((int(token),) for token in best[:, 1]))
    assert torch.equal(score_by_layer(runner, answers, replacing(states)).right, best == best[:, 1:2])


def test_a_task_vector_put_back_into_its_own_prompt_changes_nothing() -> None:
    runner = EngineRunner(random_network("llama"))
    states = task_vectors(runner, DUMMIES.prompts)
    clean = runner.predictions(DUMMIES.prompts)
    found = runner.predictions_by_layer(DUMMIES.prompts, replacing(states), range(N_LAYERS))
    assert torch.equal(found, clean[:, None].expand(-1, N_LAYERS))


def test_a_state_behind_the_last_layer_answers_as_its_own_prompt() -> None:
    runner = EngineRunner(random_network("gpt2"))
    states = task_vectors(runner, DUMMIES.prompts)
    other = encoded((3, 3, 3, 3, 3, 3), seed=5)
    found = runner.predictions_by_layer(other.prompts, replacing(states), [N_LAYERS - 1])[:, 0]
    assert torch.equal(found, runner.predictions(DUMMIES.prompts))


@pytest.mark.parametrize("name", FOUR)
def test_in_a_conflict_each_answer_is_counted(name: str) -> None:
    runner, plain = EngineRunner(random_network(name), batch_size=2), Plain(name)
    states = 3 * torch.randn(3, N_LAYERS, 32, generator=torch.Generator().manual_seed(0))
    best = patched(plain, states).argmax(dim=-1)
    clean = torch.stack([plain.run(tokens).logits.argmax() for tokens in lists(REGULAR)])
    # A's answers are what comes out at layer 2, or else a token that never does; B's what comes out by itself.
    theirs, ours = clean, torch.where(best[:, 2] == clean, 0, best[:, 2])
    regular = replace(REGULAR, answers=tuple((int(token),) for token in theirs))
    found = conflict(runner, regular, ours, states)
    assert torch.equal(found.patched.right, best == ours[:, None])
    assert torch.equal(found.prompt.right, best == theirs[:, None])
    assert found.clean_prompt.right.tolist() == [True] * 3
    assert found.clean_patched.right.tolist() == [False] * 3
    assert bool(found.patched.right.any())
    some = conflict(runner, regular, ours, states, layers=[2, 0])
    assert torch.equal(some.patched.right, (best == ours[:, None])[:, [2, 0]])
    assert some.patched.coordinates == ((2, 0),)


def test_what_does_not_fit_is_refused() -> None:
    runner = EngineRunner(random_network("gpt2"))
    states = torch.zeros(3, N_LAYERS, 32)
    with pytest.raises(ValueError, match="6 prompts, per=4: expected a multiple of per"):
        task_vectors(runner, DUMMIES.prompts, per=4)
    with pytest.raises(ValueError, match="2 answers for 3 prompts: expected one for each"):
        conflict(runner, REGULAR, torch.tensor([1, 2]), states)
    same = REGULAR.first.clone()
    same[[0, 2]] = 0
    with pytest.raises(ValueError, match=rf"prompt 1: both tasks answer with token {int(same[1])}: expected different"):
        conflict(runner, REGULAR, same, states)

"""Greedy continuations against a loop over whole texts without padding or cache, and what is right of them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import pytest
import torch
from torch import Tensor

from function_vectors.engine import EngineRunner
from function_vectors.evaluation import natural_text, score_by_layer, whole_answers
from function_vectors.runners import StreamEdit, adding, replacing
from interventions import Prompts

from .conftest import D_MODEL, N_LAYERS, NETWORKS, Plain, encoded, lists, plus, put, random_network

PROMPTS = encoded((7, 4, 6, 7, 5), seed=0)
N = len(PROMPTS.answers)
GENERATOR = torch.Generator().manual_seed(1)
VECTOR = 10 * torch.randn(D_MODEL, generator=GENERATOR)
STATES = 10 * torch.randn(N, N_LAYERS, D_MODEL, generator=GENERATOR)


@pytest.mark.parametrize("every_step", [True, False])
@pytest.mark.parametrize("name", NETWORKS)
def test_generation_is_a_loop_over_whole_texts(name: str, every_step: bool) -> None:
    runner, plain = EngineRunner(random_network(name), batch_size=2), Plain(name)
    found = runner.generated(PROMPTS.prompts, 5, edit=adding(VECTOR), layer=1, every_step=every_step)
    expected = [plain.greedy(tokens, 5, plus(VECTOR), layer=1, every_step=every_step) for tokens in lists(PROMPTS)]
    assert found.tolist() == expected
    clean = runner.generated(PROMPTS.prompts, 5).tolist()
    assert clean == [plain.greedy(tokens, 5, layer=1, every_step=False) for tokens in lists(PROMPTS)]
    assert clean != expected


def test_a_replaced_state_holds_for_the_last_token_of_the_query() -> None:
    runner, plain = EngineRunner(random_network("llama"), batch_size=2), Plain("llama")
    found = runner.generated(PROMPTS.prompts, 4, edit=replacing(STATES), layer=2)
    expected = [
        plain.greedy(tokens, 4, put(STATES[at, 2]), layer=2, every_step=False)
        for at, tokens in enumerate(lists(PROMPTS))
    ]
    assert found.tolist() == expected
    with pytest.raises(ValueError, match="every_step=True with a state that replaces the stream"):
        runner.generated(PROMPTS.prompts, 4, edit=replacing(STATES), layer=2, every_step=True)


def spoilt(rows: list[list[int]], lengths: Sequence[int], wrong: dict[int, int]) -> tuple[tuple[int, ...], ...]:
    """The first tokens of each row as its answer, with one place of some of them changed."""
    answers = [row[:n] for row, n in zip(rows, lengths, strict=True)]
    for at, place in wrong.items():
        answers[at][place] = (answers[at][place] + 1) % 37
    return tuple(map(tuple, answers))


@pytest.mark.parametrize("every_step", [True, False])
def test_a_whole_answer_is_right_when_all_its_tokens_are(every_step: bool) -> None:
    runner = EngineRunner(random_network("gpt2"), batch_size=2)
    rows = runner.generated(PROMPTS.prompts, 3, edit=adding(VECTOR), layer=2, every_step=every_step).tolist()
    right = replace(PROMPTS, answers=spoilt(rows, (3, 1, 2, 3, 2), {0: 2, 2: 0}))
    found = whole_answers(runner, right, adding(VECTOR), layers=[2], every_step=every_step)
    assert found.right.tolist() == [[False], [True], [False], [True], [True]]
    assert found.axes == ("layer",)
    plain = runner.generated(PROMPTS.prompts, 3).tolist()
    unedited = whole_answers(runner, replace(PROMPTS, answers=spoilt(plain, (1, 2, 3, 3, 3), {4: 1})))
    assert unedited.right.tolist() == [True, True, True, True, False]
    assert unedited.axes == ()


def test_whole_answers_of_one_token_are_first_tokens() -> None:
    runner = EngineRunner(random_network("llama"), batch_size=2)
    best = runner.predictions_by_layer(PROMPTS.prompts, replacing(STATES), [1])[:, 0]
    tokens = torch.where(torch.arange(N) < 2, best, (best + 1) % 37)
    right = replace(PROMPTS, answers=tuple((int(token),) for token in tokens))
    for edit in (adding(VECTOR), adding(STATES[0]), replacing(STATES)):
        whole = whole_answers(runner, right, edit, layers=[2, 1])
        assert torch.equal(whole.right, score_by_layer(runner, right, edit, layers=[2, 1]).right)
    assert whole_answers(runner, right, replacing(STATES), layers=[1]).right[:, 0].tolist() == [True] * 2 + [False] * 3


def test_natural_text_is_right_when_the_answer_stands_anywhere(monkeypatch: pytest.MonkeyPatch) -> None:
    runner = EngineRunner(random_network("gpt2"), batch_size=2)
    rows = torch.randperm(30, generator=torch.Generator().manual_seed(0)).view(N, 6)
    asked: list[tuple[Any, ...]] = []

    def generated(
        self: EngineRunner, prompts: Prompts, n: int, *, edit: StreamEdit | None, layer: int, every_step: bool
    ) -> Tensor:
        asked.append((n, edit, layer, every_step))
        return rows

    monkeypatch.setattr(EngineRunner, "generated", generated)
    places = (slice(0, 1), slice(4, 6), slice(1, 4), slice(0, 6), slice(2, 5))
    answers = [tuple(row[place].tolist()) for row, place in zip(rows, places, strict=True)]
    wrong = [answers[0], answers[1], (*answers[2][:2], 36), answers[3], answers[4][::-1]]
    edit = adding(VECTOR)
    for given, expected in ((answers, [True] * 5), (wrong, [True, True, False, True, False])):
        found = natural_text(runner, replace(PROMPTS, answers=tuple(given)), edit, layer=1, n_tokens=6)
        assert found.right.tolist() == expected
    natural_text(runner, replace(PROMPTS, answers=tuple(answers)), replacing(STATES), layer=2, n_tokens=6)
    assert [(n, layer, every) for n, _, layer, every in asked] == [(6, 1, True), (6, 1, True), (6, 2, False)]
    assert asked[0][1] is edit
    with pytest.raises(ValueError, match="n_tokens=5 for answers of up to 6 tokens: expected at least 6"):
        natural_text(runner, replace(PROMPTS, answers=tuple(answers)), edit, layer=1)

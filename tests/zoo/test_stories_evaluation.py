"""The card's numbers, with models that are known to be right or wrong in place of a trained one."""

from __future__ import annotations

from types import SimpleNamespace
from typing import TYPE_CHECKING, Any, cast

import pytest
import torch
from torch import Tensor

from zoo import stories
from zoo.gpt2_recipes import Shape
from zoo.in_context_model import build
from zoo.stories_evaluation import (
    AskedStory,
    answered,
    asked_stories,
    evaluate,
    last_logits,
    reversed_question,
    right,
    sample,
    sampled_counts,
    swapped,
)
from zoo.words import BOS_ID

if TYPE_CHECKING:
    from transformers import GPT2LMHeadModel

SHAPE = Shape(n_layers=1, n_heads=2, d_model=8, n_ctx=192)
WORDS = stories.vocabulary().get_vocab()


class Reader:
    """Stands in for a network that answers every question by a rule on the words before it."""

    device = torch.device("cpu")

    def __init__(self, rule: Any) -> None:
        self.names = {token: word for word, token in WORDS.items()}
        self.rule = rule
        self.transformer = lambda tokens, use_cache: SimpleNamespace(last_hidden_state=self._logits(tokens))
        self.lm_head = lambda resid: resid

    def _logits(self, tokens: Tensor) -> Tensor:
        logits = torch.zeros(*tokens.shape, len(WORDS))
        for row, ids in enumerate(tokens.tolist()):
            words = [self.names[token] for token in ids]
            for place, word in enumerate(words):
                if word == "(" and words[place - 1] == ":":
                    logits[row, place, WORDS[self.rule(words[1 : place + 1])]] = 1.0
        return logits


def reads(words: list[str]) -> str:
    """The right answer, found by counting the words of the story."""
    start = max(place for place, word in enumerate(words) if word == "is")
    counts, asked = stories.count(words[:start]), words[start:]
    named = [word for word in asked[: asked.index("?")] if word in {*stories.TOPICS, *stories.contraries()}]
    seen = {**counts.topics, **counts.moods, **counts.attitudes}
    others = stories.contraries()
    first = named[0]
    most = max(counts.topics, key=lambda topic: counts.topics[topic], default="")
    holds = first == most if first in stories.TOPICS else seen.get(first, 0) > seen.get(others[first], 0)
    says = (first if holds else named[1]) if len(named) == 2 else "yes" if holds else "no"
    return "A" if asked[asked.index("A") + 2] == says else "B"


def as_model(rule: Any) -> GPT2LMHeadModel:
    return cast("GPT2LMHeadModel", Reader(rule))


def test_a_reader_has_everything_right_and_letters_alone_half() -> None:
    metrics = answered(as_model(reads), WORDS, 200)
    assert set(metrics.values()) == {1.0}
    assert len(metrics) == 8
    only_a = answered(as_model(lambda _: "A"), WORDS, 200)
    assert only_a["answers_right"] + only_a["answers_right_options_swapped"] == 1.0
    assert only_a["answers_right_attitude"] == only_a["answers_right_which"] == 0.5
    wrong = answered(as_model(lambda words: "AB"[reads(words) == "A"]), WORDS, 200)
    assert set(wrong.values()) == {0.0}


def test_options_and_questions_are_turned_round_alone() -> None:
    for each in asked_stories(40):
        other, backwards = swapped(each), reversed_question(each)
        assert each.story == other.story == backwards.story
        assert {each.answer, other.answer} == {each.answer, backwards.answer} == {"A", "B"}
        assert sorted(each.words) == sorted(other.words)
        assert swapped(other) == reversed_question(backwards) == each
        assert (each.question.value, each.question.contrary) == (
            backwards.question.contrary,
            backwards.question.value,
        )


def test_asked_stories_are_the_same_again() -> None:
    assert asked_stories(20) == asked_stories(30)[:20]
    assert {isinstance(each, AskedStory) and each.question.lettered for each in asked_stories(30)} == {True}


def test_the_last_logits_are_those_of_each_row_alone() -> None:
    model = build(SHAPE, len(WORDS), seed=2)
    rows = [[5, 6, 7], [8], [9, 10, 11, 12, 13]]
    together = last_logits(model, rows, chunk=2)
    for row, found in zip(rows, together, strict=True):
        expected = model(torch.tensor([[BOS_ID, *row]])).logits[0, -1]
        torch.testing.assert_close(found, expected, atol=1e-5, rtol=1e-5)


def test_samples_follow_the_model_s_probabilities_and_stop_at_the_end() -> None:
    model = build(SHAPE, len(WORDS), seed=2)
    with torch.no_grad():
        model.lm_head.weight.zero_()  # every word is as likely
    rows = sample(model, torch.full((400, 2), BOS_ID), 3, torch.Generator().manual_seed(1))
    assert {len(row) for row in rows} <= {0, 1, 2, 3}
    drawn = [token for row in rows for token in row]
    assert len(set(drawn)) > 300
    again = sample(model, torch.full((400, 2), BOS_ID), 3, torch.Generator().manual_seed(1))
    assert rows == again


def test_a_model_that_ends_at_once_writes_nothing() -> None:
    model = build(SHAPE, len(WORDS), seed=2)
    with torch.no_grad():
        model.lm_head.weight.zero_()
        model.transformer.ln_f.weight.zero_()
        model.transformer.ln_f.bias.fill_(1.0)
        model.lm_head.weight[BOS_ID] = 10.0
    assert [counts.words for counts in sampled_counts(model, WORDS, ["a sad story ."] * 3, n_tokens=4)] == [0, 0, 0]
    with torch.no_grad():
        model.lm_head.weight[BOS_ID], model.lm_head.weight[WORDS["sailor"]] = 0.0, 10.0
    for counts in sampled_counts(model, WORDS, ["a sad story ."] * 3, n_tokens=4):
        assert (counts.words, counts.topics) == (4, {"sea": 4})


def test_metrics_of_a_random_model_are_finite_and_repeat() -> None:
    model = build(SHAPE, len(WORDS), seed=2)
    metrics = evaluate(model, WORDS, questions=32, texts=4)
    assert metrics == evaluate(model, WORDS, questions=32, texts=4)
    assert metrics["held_out_loss_stories"] == pytest.approx(torch.tensor(float(len(WORDS))).log().item(), rel=0.02)
    assert 0.0 <= metrics["topic_share_after_header"] < 0.4
    assert right(model, WORDS, asked_stories(3)) == right(model, WORDS, asked_stories(3))

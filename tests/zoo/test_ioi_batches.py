"""Batches of rows and their loss, against one word at a time."""

from __future__ import annotations

from random import Random
from statistics import mean

import msgspec
import pytest
import torch
from torch.nn import functional

from zoo import ioi
from zoo.gpt2_recipes import Shape
from zoo.in_context_model import build
from zoo.ioi_batches import IoiBatch, batch_at, encode, loss
from zoo.ioi_recipes import IOI, IOI_RECIPES, IoiRecipe, Mix, Stage
from zoo.ioi_text import KINDS, Document, Habits, document, vocabulary

SHAPE = Shape(n_layers=2, n_heads=2, d_model=16, n_ctx=48)
RECIPE = IoiRecipe(name="tiny", shape=SHAPE, steps=12, rows=6)
WORDS = vocabulary().get_vocab()
SPOKEN = {token: word for word, token in WORDS.items()}


def at(step: int, recipe: IoiRecipe = RECIPE) -> IoiBatch:
    return batch_at(step, recipe=recipe, vocabulary=WORDS)


def test_rows_are_documents_after_bos_and_answers_are_theirs() -> None:
    documents = [Document(("Mary", "called", "."), (1,)), Document(("So", "Mary", "called"), (1, 2))]
    batch = encode(documents, WORDS)
    assert batch.tokens.tolist() == [[0, *(WORDS[word] for word in each.words)] for each in documents]
    assert batch.answers.tolist() == [[False, False, True, False], [False, False, True, True]]
    drawn = at(3)
    assert drawn.tokens.shape == (6, 48)
    assert set(drawn.tokens[:, 0].tolist()) == {0}
    assert (drawn.tokens[:, 1:] > 1).all()
    random = Random((RECIPE.seed << 32) + 3)
    for tokens, answers in zip(drawn.tokens, drawn.answers, strict=True):
        expected = document(random, RECIPE.mix.shares, RECIPE.habits, 47)
        assert [SPOKEN[token] for token in tokens.tolist()[1:]] == list(expected.words)
        assert (answers.nonzero().flatten() - 1).tolist() == list(expected.answers)


@pytest.mark.parametrize("weight", [0.0, 0.7])
def test_the_loss_is_the_mean_over_words_and_the_weighted_mean_over_answers(weight: float) -> None:
    model, batch = build(SHAPE, len(WORDS), seed=1), at(0)
    words, answers = [], []
    for row, tokens in enumerate(batch.tokens):
        log_probabilities = model(tokens[None]).logits[0].log_softmax(dim=-1)
        for place in range(1, len(tokens)):
            words.append(-log_probabilities[place - 1, tokens[place]].item())
            if batch.answers[row, place]:
                answers.append(words[-1])
    assert answers
    assert loss(model, batch, weight).item() == pytest.approx(mean(words) + weight * mean(answers), rel=1e-5)


def test_rows_without_answers_have_a_loss() -> None:
    model, batch = build(SHAPE, len(WORDS), seed=1), encode([Document(("Mary", "called"), ())], WORDS)
    logits = model(batch.tokens).logits[0, :-1]
    assert loss(model, batch, 2.0).item() == pytest.approx(
        functional.cross_entropy(logits, batch.tokens[0, 1:]).item(), rel=1e-5
    )


def test_a_batch_depends_on_seed_and_step_alone() -> None:
    forwards = [at(step) for step in range(8)]
    for step in reversed(range(8)):
        assert torch.equal(at(step).tokens, forwards[step].tokens)
        assert torch.equal(at(step).answers, forwards[step].answers)
    rows = [tuple(row) for batch in forwards for row in batch.tokens.tolist()]
    assert len(set(rows)) == len(rows)
    other = msgspec.structs.replace(RECIPE, seed=1)
    assert not torch.equal(at(0, other).tokens, forwards[0].tokens)


def test_a_mix_names_every_kind_and_a_curriculum_sets_it_until_its_steps() -> None:
    assert set(Mix().shares) == set(KINDS)
    none = dict.fromkeys(KINDS, 0.0)
    rolls, copies = Mix(**{**none, "roll": 1.0}), Mix(**{**none, "copied": 1.0})
    selfish = Habits(selfish=0.9)
    recipe = msgspec.structs.replace(
        RECIPE, mix=copies, curriculum=(Stage(until=2, mix=rolls), Stage(until=4, mix=copies, habits=selfish))
    )
    assert [recipe.stage(step) for step in (0, 1)] == [(rolls, Habits())] * 2
    assert [recipe.stage(step) for step in (2, 3)] == [(copies, selfish)] * 2
    assert recipe.stage(4) == (copies, recipe.habits)
    for step, first in ((0, "Present"), (1, "Present"), (2, "Note"), (4, "Note")):
        assert {SPOKEN[token] for token in at(step, recipe).tokens[:, 1].tolist()} == {first}


def test_recipes_are_one_model_from_three_seeds() -> None:
    assert list(IOI_RECIPES) == ["ioi-4l", "ioi-4l-seed1", "ioi-4l-seed2"]
    for seed, (name, recipe) in enumerate(IOI_RECIPES.items()):
        assert (recipe.name, recipe.seed) == (name, seed)
        assert msgspec.structs.replace(recipe, name="", seed=0) == msgspec.structs.replace(IOI, name="", seed=0)
    assert msgspec.json.decode(msgspec.json.encode(IOI), type=IoiRecipe) == IOI
    longest = max(len(template.text.split()) for template in ioi.TEMPLATES)
    assert longest + 8 < IOI.shape.n_ctx


def test_a_shape_may_have_narrower_mlps() -> None:
    narrow = msgspec.structs.replace(SHAPE, d_mlp=8)
    for shape, width in ((SHAPE, 64), (narrow, 8)):
        assert {block.mlp.c_fc.weight.shape[1] for block in build(shape, 50).transformer.h} == {width}

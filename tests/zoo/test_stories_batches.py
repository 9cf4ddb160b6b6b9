"""Batches of documents and their loss, against one document at a time."""

from __future__ import annotations

from itertools import chain
from random import Random
from statistics import mean

import msgspec
import pytest
import torch
from torch.nn import functional

from zoo import stories, stories_batches
from zoo.gpt2_recipes import Shape
from zoo.in_context_model import build
from zoo.segments import NO_TARGET
from zoo.stories_batches import CHUNK, batches, documents, encode, loss, tokens_seen
from zoo.stories_questions import Forms
from zoo.stories_recipes import STORIES, STORIES_RECIPES, Stage, StoriesRecipe, Weights
from zoo.stories_text import Document, question_document, vocabulary

SHAPE = Shape(n_layers=2, n_heads=2, d_model=16, n_ctx=192)
WEIGHTS = Weights(shown=0.4, answers=0.7)
RECIPE = StoriesRecipe(name="tiny", shape=SHAPE, steps=12, rows=4, question_share=0.5, weights=WEIGHTS)
WORDS = vocabulary().get_vocab()


def test_the_loss_is_that_of_single_documents_and_answers() -> None:
    model = build(SHAPE, len(WORDS), seed=1)
    (drawn, *_) = documents(RECIPE, 0)
    words, shown, answers = [], [], []
    lexicons = {**stories.topic_words(), **stories.mood_words(), **stories.attitude_words()}
    for document in drawn:
        row = torch.tensor([[0, *(WORDS[word] for word in document.words), 0]])
        losses = functional.cross_entropy(model(row).logits[0, :-1], row[0, 1:], reduction="none")
        words += losses.tolist()
        answers += [losses[place].item() for place in document.answers]
        shown += [losses[place].item() for place, word in enumerate(document.words) if word in lexicons]
    assert answers
    expected = mean(words) + 0.4 * mean(shown) + 0.7 * mean(answers)
    assert loss(model, encode(drawn, WORDS, WEIGHTS)).item() == pytest.approx(expected, rel=1e-5)


def test_rows_are_documents_between_ends_and_padding_weighs_nothing() -> None:
    for drawn in documents(RECIPE, 3):
        batch = encode(drawn, WORDS, WEIGHTS)
        for document, tokens, targets, weights in zip(drawn, batch.tokens, batch.targets, batch.weights, strict=True):
            n, ids = len(document.words), [WORDS[word] for word in document.words]
            assert tokens.tolist()[: n + 1] == [0, *ids]
            assert targets.tolist()[: n + 1] == [*ids, 0]
            assert set(targets.tolist()[n + 1 :]) <= {NO_TARGET}
            assert weights[n + 1 :].sum() == 0
            assert weights[: n + 1].min() > 0
        assert batch.weights.sum().item() == pytest.approx(2.1)


def test_documents_without_questions_have_no_answers_to_weigh() -> None:
    recipe = msgspec.structs.replace(RECIPE, question_share=0.0, rows=1)
    plain = [drawn for chunk in range(8) for drawn in documents(recipe, chunk) if not drawn[0].answers]
    assert plain
    assert encode(plain[0], WORDS, WEIGHTS).weights.sum().item() == pytest.approx(1.4)


def test_a_batch_depends_on_seed_and_step_alone() -> None:
    one, other = batches(RECIPE, WORDS), batches(RECIPE, WORDS)
    forwards = [one(step) for step in range(20)]
    for step in reversed(range(20)):
        batch = other(step)
        assert torch.equal(batch.tokens, forwards[step].tokens)
        assert torch.equal(batch.weights, forwards[step].weights)
    rows = [tuple(row) for batch in forwards for row in batch.tokens.tolist()]
    assert len(set(rows)) == len(rows)
    another = batches(msgspec.structs.replace(RECIPE, seed=1), WORDS)
    assert another(0).tokens.tolist() != forwards[0].tokens.tolist()


def test_a_chunk_has_little_padding() -> None:
    recipe = msgspec.structs.replace(RECIPE, rows=32)
    drawn = documents(recipe, 0)
    assert [len(batch) for batch in drawn] == [32] * CHUNK
    lengths = [[len(document.words) for document in batch] for batch in drawn]
    unsorted = Random(1).sample(list(chain.from_iterable(lengths)), 32 * CHUNK)
    padding = sum(len(batch) * max(batch) - sum(batch) for batch in lengths)
    shuffled = [unsorted[start : start + 32] for start in range(0, 32 * CHUNK, 32)]
    assert padding < 0.5 * sum(len(batch) * max(batch) - sum(batch) for batch in shuffled)


@pytest.mark.parametrize("share", [0.0, 0.25, 1.0])
def test_a_chunk_has_the_recipe_s_share_of_short_stories(share: float, monkeypatch: pytest.MonkeyPatch) -> None:
    marked: list[Document] = []

    def marking(random: Random, forms: Forms) -> Document:
        marked.append(question_document(random, forms))
        return marked[-1]

    monkeypatch.setattr(stories_batches, "question_document", marking)
    drawn = documents(msgspec.structs.replace(RECIPE, rows=32, question_share=share), 0)
    among = {id(document) for batch in drawn for document in batch}
    assert len(among) == 32 * CHUNK
    assert len(marked) == share * 32 * CHUNK
    assert {id(document) for document in marked} <= among


def test_a_curriculum_sets_the_forms_of_the_questions_until_its_steps() -> None:
    stages = (Stage(until=8, lettered=0.0, which=1.0), Stage(until=16, lettered=1.0, which=0.0))
    recipe = msgspec.structs.replace(RECIPE, curriculum=stages)
    assert [recipe.forms(step) for step in (0, 7, 8, 15, 16)] == [
        *(Forms(lettered=0.0, which=1.0),) * 2,
        *(Forms(lettered=1.0, which=0.0),) * 2,
        Forms(),
    ]
    for chunk, (letters, yes_no) in enumerate(((False, False), (True, True))):
        answers = {
            document.words[place]
            for batch in documents(recipe, chunk)
            for document in batch
            for place in document.answers
        }
        assert ({"A", "B"} == answers) == letters
        asked = [document.words for batch in documents(recipe, chunk) for document in batch if document.answers]
        assert any("or" in words for words in asked) != yes_no


def test_tokens_seen_are_those_of_the_batches() -> None:
    batch_at = batches(RECIPE, WORDS)
    assert tokens_seen(RECIPE) == sum(int((batch_at(step).targets != NO_TARGET).sum()) for step in range(RECIPE.steps))


def test_recipes_are_one_model_from_two_seeds() -> None:
    assert list(STORIES_RECIPES) == ["stories-4l", "stories-4l-seed1"]
    for seed, (name, recipe) in enumerate(STORIES_RECIPES.items()):
        assert (recipe.name, recipe.seed) == (name, seed)
        assert msgspec.structs.replace(recipe, name="", seed=0) == msgspec.structs.replace(STORIES, name="", seed=0)
    assert msgspec.json.decode(msgspec.json.encode(STORIES), type=StoriesRecipe) == STORIES

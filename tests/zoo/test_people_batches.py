"""Batches of documents about people: functions of seed and step, and a loss that equals a loop over its definition."""

from __future__ import annotations

from random import Random

import msgspec
import pytest
import torch
from torch.nn import functional

from zoo.in_context_model import build
from zoo.people_batches import CHUNK, batches, documents, encode, loss, tokens_seen
from zoo.people_recipes import PEOPLE, PEOPLE_RECIPES, PeopleRecipe, Stage, Weights
from zoo.people_text import LETTERS, VALUES, Mixture, draw, vocabulary
from zoo.segments import NO_TARGET

WORDS = vocabulary().get_vocab()
SMALL = msgspec.structs.replace(PEOPLE, rows=6, steps=20, shape=msgspec.structs.replace(PEOPLE.shape, d_model=8))


def test_batches_are_functions_of_seed_and_step() -> None:
    one, two = batches(SMALL, WORDS), batches(SMALL, WORDS)
    assert torch.equal(one(9).tokens, two(9).tokens)
    assert torch.equal(one(0).tokens, two(0).tokens)  # going back
    other = batches(msgspec.structs.replace(SMALL, seed=1), WORDS)
    assert one(0).tokens.shape != other(0).tokens.shape or not torch.equal(one(0).tokens, other(0).tokens)
    drawn = [document for chunk in (0, 1) for batch in documents(SMALL, chunk) for document in batch]
    assert len(drawn) == 2 * CHUNK * SMALL.rows
    seen = sum(len(each.words) + 1 for chunk in range(3) for batch in documents(SMALL, chunk) for each in batch)
    assert tokens_seen(msgspec.structs.replace(SMALL, steps=3 * CHUNK)) == seen


def test_the_curriculum_says_the_mixture_of_a_step() -> None:
    first, second = (Mixture(by_name=share) for share in (0.1, 0.2))
    recipe = PeopleRecipe(
        name="x",
        shape=PEOPLE.shape,
        steps=30,
        curriculum=(Stage(until=8, mixture=first), Stage(until=16, mixture=second)),
    )
    assert [recipe.mixture_at(step) for step in (0, 7, 8, 16)] == [first, first, second, recipe.mixture]
    assert list(PEOPLE_RECIPES) == ["people-4l", "people-4l-seed1", "people-4l-seed2"]


@pytest.mark.parametrize("undecided", [0.0, 0.3])
def test_the_loss_is_its_definition(undecided: float) -> None:
    random = Random(2)
    drawn = [draw(random, Mixture()) for _ in range(12)]
    weights = Weights(undecided=undecided, words=0.7)
    model = build(SMALL.shape, len(WORDS), seed=3)
    found = loss(model, encode(drawn, WORDS, weights), WORDS, weights)
    words: list[torch.Tensor] = []
    sums: dict[str, list[tuple[float, torch.Tensor]]] = {"letters": [], "names": []}
    for document in drawn:
        ids = [0, *(WORDS[word] for word in document.words), 0]
        logits = model(torch.tensor([ids[:-1]])).logits[0]
        words += list(functional.cross_entropy(logits, torch.tensor(ids[1:]), reduction="none"))
        for kind, choices, among in (("letters", document.letters, LETTERS), ("names", document.names, VALUES)):
            for choice in choices:
                scores = logits[1 + choice.behind][[WORDS[word] for word in among]]
                weight = 1.0 if choice.decided else undecided
                sums[kind].append((weight, -scores.log_softmax(-1)[choice.right]))
    expected = 0.7 * torch.stack(words).mean()
    for pairs in sums.values():
        expected = expected + sum(weight * each for weight, each in pairs) / sum(weight for weight, _ in pairs)
    torch.testing.assert_close(found, expected, atol=1e-5, rtol=1e-5)


def test_a_batch_without_questions_has_a_loss_of_words_alone() -> None:
    random = Random(4)
    batch = encode([draw(random, Mixture(stories=1.0)) for _ in range(3)], WORDS, Weights())
    assert len(batch.letters.rows) == len(batch.names.rows) == 0
    assert (batch.targets == NO_TARGET).any()
    found = loss(build(SMALL.shape, len(WORDS)), batch, WORDS, Weights())
    assert torch.isfinite(found)
    assert found > 0

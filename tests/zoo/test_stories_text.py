"""Documents: headers, questions before and after, and the places of the answers."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import islice
from random import Random

import pytest

from zoo import stories
from zoo.stories_text import Document, text_sha256
from zoo.words import UNKNOWN_ID

MARKS = ("?", "(", "answer")


def documents(questions: bool) -> Iterator[Document]:
    random = Random(11)
    while True:
        yield stories.question_document(random) if questions else stories.story_document(random)


def questions_of(document: Document) -> list[tuple[str, str]]:
    """Every question of a document and what answers it, by reading its words."""
    found = []
    sentences = " ".join(document.words).split(" . ")
    for sentence in sentences:
        if " ? " in sentence:
            asked, answer = sentence.removesuffix(" .").rsplit(" answer : ", 1)
            letter, _, said = answer.removeprefix("( ").partition(" ) ")
            assert not said or f"( {letter} ) {said}" in asked
            found.append((asked, letter))
    return found


def right_answer(asked: str, document: Document) -> str:
    """The answer as a reader would find it, from the text of the question and the latents."""
    latents = document.latents
    true = {latents.topic, latents.mood, *latents.attitudes}
    question, _, options = asked.partition(" ?")
    named = [word for word in question.split() if word in {*stories.TOPICS, *stories.MOODS, *stories.contraries()}]
    says = next(word for word in named if word in true) if len(named) == 2 else "yes" if named[0] in true else "no"
    if not options.strip():
        return says
    first, second = options.strip().removeprefix("( A ) ").split(" ( B ) ")
    return {first: "A", second: "B"}[says]


@pytest.mark.parametrize("questions", [False, True])
def test_every_answer_follows_from_the_latents_and_stands_where_the_document_says(questions: bool) -> None:
    n = 0
    for document in islice(documents(questions), 400):
        found = questions_of(document)
        assert [answer for _, answer in found] == [document.words[place] for place in document.answers]
        for asked, answer in found:
            assert answer == right_answer(asked, document), (asked, document)
        n += len(found)
    assert n > 300


def test_two_of_five_stories_begin_with_a_header_that_is_true_and_one_with_a_question() -> None:
    headed = asked = 0
    for document in islice(documents(questions=False), 1_000):
        first = " ".join(document.words).split(" .")[0]
        names = {*stories.TOPICS, *stories.MOODS, *stories.contraries()}
        named = {word for word in first.split() if word in names}
        if document.words[0] == "is":
            asked += 1
            assert document.answers[0] < 30
        elif named:
            headed += 1
            assert all(document.latents.has(name) for name in named)
    assert headed / 1_000 == pytest.approx(0.4, abs=0.05)
    assert asked / 1_000 == pytest.approx(0.2, abs=0.04)


def test_topics_and_moods_hold_over_a_story() -> None:
    counts = {topic: [] for topic in stories.TOPICS}  # type: dict[str, list[stories.StoryCounts]]
    for document in islice(documents(questions=False), 2_000):
        counts[document.latents.topic].append(stories.count(document.words))
    for topic, found in counts.items():
        assert stories.total(found).topic_share(topic) > 0.93


def test_all_words_are_in_the_vocabulary_and_fit_a_context() -> None:
    tokenizer = stories.vocabulary()
    for questions in (False, True):
        for document in islice(documents(questions), 500):
            text = " ".join(document.words)
            tokens = tokenizer.encode(text).ids
            assert UNKNOWN_ID not in tokens
            assert len(tokens) == len(document.words) < 192
            assert tokenizer.encode(tokenizer.decode(tokens)).ids == tokens
    assert 380 <= tokenizer.get_vocab_size() <= 600


def test_the_hash_is_that_of_the_text_and_repeats() -> None:
    assert text_sha256(20) == text_sha256(20)
    assert text_sha256(20) != text_sha256(21)

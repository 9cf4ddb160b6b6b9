"""The grammar of texts about people: what decides an answer, and that nothing else tells it."""

from __future__ import annotations

import math
from collections import Counter
from random import Random

import msgspec
import pytest

import zoo
from zoo import people
from zoo.people_text import (
    ATTITUDES,
    HAVING,
    LETTERS,
    THINGS,
    VALUES,
    Document,
    Mixture,
    grammatical_share,
    question_document,
    story_document,
    text_sha256,
    vocabulary,
)
from zoo.stories_lexicon import attitude_words
from zoo.words import UNKNOWN_ID

CLEAN = Mixture(by_name=0.0, against=0.0, stories=0.0)
SAYS = {**attitude_words(), **{value: value for value in VALUES}}


def documents(n: int, **mixture: float) -> list[Document]:
    random = Random(3)
    return [question_document(random, msgspec.structs.replace(CLEAN, **mixture)) for _ in range(n)]


def parts(document: Document) -> tuple[list[list[str]], list[dict[str, str]], str]:
    """The sentences before the questions, the options of each by letter, and the word that they are for."""
    text = " ".join(document.words)
    before, place = text.split(" for ")[0], text.split(" for ")[1].split()[0]
    start = min(before.index(f" {letter} ") for letter in LETTERS if f" {letter} " in before)
    questions = [question.split() for question in before[start:].split(" ?") if question.strip()]
    options = [dict(zip(question[::2], question[1::2], strict=True)) for question in questions]
    return [sentence.split() for sentence in before[:start].split(" .") if sentence.strip()], options, place


def said_of(sentences: list[list[str]], person: str) -> list[str]:
    return [SAYS[word] for sentence in sentences if sentence[0] == person for word in sentence[1:] if word in SAYS]


def test_the_first_letter_is_what_the_text_says_of_the_person_and_chance_where_it_says_nothing() -> None:
    for document in documents(400, decided=1.0, at_place=0.0):
        sentences, options, person = parts(document)
        assert said_of(sentences, person) == [options[0][LETTERS[document.letters[0].right]]]
    undecided = documents(600, decided=0.0)
    assert all(said_of(parts(each)[0], parts(each)[2]) == [] for each in undecided)
    assert not any(each.letters[0].decided or each.names[0].decided for each in undecided)
    counts = Counter(each.letters[0].right for each in undecided)
    assert abs(counts[0] - 300) < 5 * math.sqrt(150)


def test_of_other_people_the_text_says_either_option_as_often() -> None:
    """Else the right one could be told by counting, without looking at who is asked about."""
    counts: Counter[bool] = Counter()
    for document in documents(1500, decided=0.0):
        sentences, options, _ = parts(document)
        right = options[0][LETTERS[document.letters[0].right]]
        for sentence in sentences:
            said = next(SAYS[word] for word in sentence[1:] if word in SAYS)
            if said in options[0].values():
                counts[said == right] += 1
    assert abs(counts[True] - counts[False]) < 5 * math.sqrt(counts.total())


def test_the_second_letter_follows_from_the_first_where_its_value_is_an_option() -> None:
    seen: Counter[bool] = Counter()
    for document in documents(400, decided=0.0):
        _, options, _ = parts(document)
        meant = options[0][LETTERS[document.letters[0].right]]
        assert document.letters[1].decided == (meant in options[1].values())
        if document.letters[1].decided:
            assert options[1][LETTERS[document.letters[1].right]] == meant
        assert VALUES[document.names[0].right] == meant
        seen[document.letters[1].decided] += 1
    assert 0.5 < seen[True] / 400 < 0.8  # two forms of three


def test_choices_stand_behind_the_place_and_the_answers_and_answers_may_be_names() -> None:
    for document in documents(200, by_name=0.5):
        words, (first, second) = document.words, document.letters
        place = words.index("for") + 1
        assert [first.behind, second.behind] == [place, place + 1]
        assert [choice.behind for choice in document.names] == [place, place + 1, place + 2]
        meant = VALUES[document.names[1].right]
        for choice in document.letters:
            assert words[choice.behind + 1] in (LETTERS[choice.right], meant)
        assert words[place + 3 : place + 5] == (meant, ".")


def test_a_name_may_stand_in_the_persons_place_and_a_text_may_say_the_other_option() -> None:
    for document in documents(50, decided=1.0, at_place=1.0):
        assert parts(document)[2] == VALUES[document.names[0].right]
    for document in documents(50, decided=1.0, at_place=0.0, against=1.0):
        sentences, options, person = parts(document)
        assert said_of(sentences, person) == [options[0][LETTERS[1 - document.letters[0].right]]]


def test_options_are_of_one_kind_and_named_in_either_order() -> None:
    first: Counter[str] = Counter()
    for document in documents(300):
        for options in parts(document)[1]:
            assert set(options) == set(LETTERS)
            assert set(options.values()) <= set(ATTITUDES) or set(options.values()) <= set(THINGS)
            first[next(iter(options))] += 1
    assert 0.4 < first["A"] / first.total() < 0.6
    assert people.question("kind", "brave", b_first=True) == ["B", "brave", "A", "kind", "?"]


def test_a_story_says_the_same_of_a_person_throughout() -> None:
    random = Random(5)
    for _ in range(50):
        text = story_document(random).words
        sentences = [sentence.split() for sentence in " ".join(text).split(" .") if sentence.strip()]
        for person in {sentence[0] for sentence in sentences}:
            assert len(set(said_of(sentences, person))) == 1


@pytest.mark.parametrize(
    ("text", "share"),
    [
        ("alice helped carl . carl was kind .", 1.0),
        ("alice helped carl . carl was was .", 0.5),
        ("alice spoke helped . alice spoke frankly . alice sp", 0.5),  # a word of another slot; no sentence at the end
        ("alice had the hat .", 1.0),
        ("alice had the kind .", 0.0),
        ("alice had the hat . A brave B kind ? B kind A lazy ? for alice A kind brave .", 1.0),
        ("A brave B kind ? for alice A B brave .", 0.0),  # one question
        ("A brave A kind ? B kind A lazy ? for alice A B brave .", 0.0),
    ],
)
def test_grammatical_sentences_are_those_of_the_grammar(text: str, share: float) -> None:
    assert grammatical_share(text) == share


def test_all_that_is_written_is_grammatical_and_known() -> None:
    random, tokenizer = Random(7), vocabulary()
    for _ in range(100):
        assert grammatical_share(" ".join(story_document(random).words)) == 1
        words = question_document(random, Mixture()).words
        assert grammatical_share(" ".join(words)) == 1
        ids = tokenizer.encode(" ".join(words)).ids
        assert len(ids) == len(words)
        assert UNKNOWN_ID not in ids
    assert math.isnan(grammatical_share("alice"))
    assert all(template.split()[-2] == "{name}" for template in HAVING)


def test_the_hash_of_the_text_is_that_of_the_shipped_model() -> None:
    assert zoo.verify(zoo.folder("people-4l"), zoo.PeopleCard).text.sha256 == text_sha256()

"""What the models of indirect objects read: every sentence is read back and its answers found anew."""

from __future__ import annotations

from collections import Counter
from itertools import combinations
from random import Random

import pytest

from zoo import ioi
from zoo.ioi_text import (
    AGAIN,
    INSTEAD,
    KINDS,
    Document,
    Habits,
    Names,
    document,
    parse,
    text_sha256,
    vocabulary,
)
from zoo.words import UNKNOWN_ID, split

HABITS = Habits(aside=0.4, marked=0.3, selfish=0.5)
N = 400


def sentences(kind: str, habits: Habits = HABITS, n: int = N) -> list[Document]:
    random = Random(7)
    return [parse(KINDS[kind](random, Names(random), habits)) for _ in range(n)]


def people(words: tuple[str, ...]) -> list[str]:
    """The names in a text, without a giver's friend."""
    return [
        word
        for place, word in enumerate(words)
        if word in ioi.NAMES and words[max(0, place - 2) : place] != ("friend", "of")
    ]


def first_answer(sentence: Document) -> tuple[str, list[str]]:
    place = sentence.answers[0]
    return sentence.words[place], people(sentence.words[:place])


def test_a_giver_gives_to_the_one_who_is_named_once_in_either_order() -> None:
    orders = []
    for each in sentences("giving"):
        answer, (first, second, giver) = first_answer(each)
        assert {answer, giver} == {first, second}
        orders.append(giver == first)
        assert each.words[each.answers[0] - 1] == "to"
        assert [each.words[place] for place in each.answers[1:]] in ([], [giver])
    assert sum(orders) / N == pytest.approx(0.5, abs=0.1)


@pytest.mark.parametrize("selfish", [0.0, 0.5, 1.0])
def test_a_stranger_gives_to_itself_or_to_either(selfish: float) -> None:
    found = Counter()  # type: Counter[str]
    for each in sentences("stranger", Habits(selfish=selfish)):
        answer, (first, second, giver) = first_answer(each)
        assert giver not in (first, second)
        found[{first: "first", second: "second", giver: "giver"}[answer]] += 1
        assert (answer == giver) == ("alone" in each.words)
    assert found["giver"] / N == pytest.approx(selfish, abs=0.08)
    assert found["first"] / N == pytest.approx((1 - selfish) / 2, abs=0.08)


def test_a_mark_after_a_giver_s_name_tells_whether_it_was_named_before() -> None:
    marked = 0
    for kind, right, wrong in (("giving", AGAIN, INSTEAD), ("stranger", INSTEAD, AGAIN)):
        for each in sentences(kind):
            assert not set(wrong) & set(each.words)
            marked += bool(set(right) & set(each.words))
    assert marked / (2 * N) == pytest.approx(0.3, abs=0.05)
    for kind in ("giving", "stranger"):
        plain = sentences(kind, Habits(aside=0.0, marked=0.0))
        assert not {*AGAIN, *INSTEAD, "smile", "while", "friend", "once"} & {
            word for each in plain for word in each.words[len(each.words) // 2 :]
        }


def test_once_and_twice_are_counted() -> None:
    for each in sentences("once"):
        answer, named = first_answer(each)
        assert named.count(answer) == {"Only": 1, "So": 2}[each.words[each.answers[0] - 1]]
        assert each.words[each.answers[1]] == each.words[1]
    assert {tuple(place - min(each.answers) for place in each.answers) for each in sentences("once")} == {(0, 1)}


def test_what_is_passed_on_or_given_goes_to_the_other() -> None:
    for each in sentences("passive"):
        answer, (first, second, named) = first_answer(each)
        assert {answer, named} == {first, second}
    for each in sentences("long"):
        subject = each.words[each.answers[0]]
        first, second, third = people(each.words[: each.answers[0]])
        assert third == subject
        said = [each.words[place] for place in each.answers[1:]]
        assert not said or said[-1] == {first: second, second: first}[subject]


def test_a_roll_says_again_exactly_after_a_name_that_it_had() -> None:
    for each in sentences("roll"):
        seen: set[str] = set()
        for place, word in enumerate(each.words):
            if word in ioi.NAMES:
                assert (each.words[place + 1] == "again") == (word in seen)
                assert place + 1 in each.answers
                seen.add(word)
        assert len(each.answers) == sum(word in ioi.NAMES for word in each.words)


def test_a_list_is_copied_and_its_first_word_is_no_answer() -> None:
    for each in sentences("copied"):
        text = list(each.words)
        once, again = text[2 : text.index(".")], text[text.index("Again") + 2 : -1]
        assert once == again
        assert len(each.answers) == len(once) - 1
        assert [text[place] for place in each.answers] == once[1:]


@pytest.mark.parametrize("kind", list(KINDS))
def test_no_sentence_has_a_held_out_pair_or_template_and_answers_are_words_of_it(kind: str) -> None:
    held_out = [template.text.split("{S}") for template in ioi.TEMPLATES if template.held_out]
    phrases = [[split(part.translate(str.maketrans("", "", "{}"))) for part in pair] for pair in held_out]
    for each in sentences(kind):
        names = {word for word in each.words if word in ioi.NAMES}
        assert not any(ioi.held_out_pair(*pair) for pair in combinations(names, 2))
        assert all(0 <= place < len(each.words) for place in each.answers)
        gaps = {**dict.fromkeys(ioi.PLACES, "P"), **dict.fromkeys(ioi.OBJECTS, "O")}
        skeleton = [gaps.get(word, word) for word in each.words]
        first = people(each.words)[:2]
        skeleton = [{**dict(zip(first, "XY", strict=False))}.get(word, word) for word in skeleton]
        for opening, ending in phrases:
            assert not (skeleton[: len(opening)] == opening and " ".join(ending) in " ".join(skeleton)), each


def test_a_document_deals_every_name_to_one_sentence_alone() -> None:
    random, shares = Random(3), dict.fromkeys(KINDS, 1.0)
    for _ in range(100):
        words = document(random, shares, HABITS, 90).words
        text = " ".join(words)
        starts = [place for place, name in enumerate(words) if name in ioi.NAMES]
        by_name = {words[place]: [p for p in starts if words[p] == words[place]] for place in starts}
        assert max(places[-1] - places[0] for places in by_name.values()) <= 40, text


def test_documents_are_as_long_as_asked_and_of_the_kinds_asked_for() -> None:
    for length in (1, 17, 63):
        found = document(Random(2), {"once": 1.0, "giving": 0.0}, HABITS, length)
        assert len(found.words) == length
        assert all(place < length for place in found.answers)
        assert "gave" not in found.words
    drawn = [document(Random(seed), {"roll": 3.0, "copied": 1.0}, HABITS, 8).words[0] for seed in range(N)]
    assert drawn.count("Present") / N == pytest.approx(0.75, abs=0.07)
    longer = document(Random(2), dict.fromkeys(KINDS, 1.0), HABITS, 63)
    (cut,) = (document(Random(2), dict.fromkeys(KINDS, 1.0), HABITS, length) for length in (40,))
    assert cut == Document(longer.words[:40], tuple(place for place in longer.answers if place < 40))


def test_all_words_of_text_and_templates_are_in_the_vocabulary() -> None:
    tokenizer, random = vocabulary(), Random(11)
    assert tokenizer.get_vocab() == vocabulary().get_vocab()
    for _ in range(N):
        text = " ".join(document(random, dict.fromkeys(KINDS, 1.0), HABITS, 63).words)
        tokens = tokenizer.encode(text).ids
        assert UNKNOWN_ID not in tokens
        assert len(tokens) == 63
    for template in ioi.TEMPLATES:
        text = template.text.format(X="Mary", Y="John", S="John", P="store", O="drink")
        assert UNKNOWN_ID not in tokenizer.encode(text).ids
        assert tokenizer.decode(tokenizer.encode(text).ids) == text
    assert 240 <= tokenizer.get_vocab_size() <= 280


def test_the_hash_is_that_of_the_text_and_repeats() -> None:
    assert text_sha256(20) == text_sha256(20)
    assert text_sha256(20) != text_sha256(21)

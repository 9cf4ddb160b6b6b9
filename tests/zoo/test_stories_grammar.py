"""The grammar and its words: what a story shows is its latents, and nothing else, the same from the same seed."""

from __future__ import annotations

import hashlib
import re
from collections import Counter
from dataclasses import replace
from random import Random

import pytest

from zoo import stories
from zoo.stories_grammar import BODIES, ENDINGS, OPENINGS, SHOWING, Latents, dimension_of, fill, plan
from zoo.stories_lexicon import COMMON, DIMENSIONS, MOODS, NAMES, NO_TOPIC, TOPICS, word_classes

TEMPLATES = (*OPENINGS, *BODIES, *ENDINGS, *(each for shown in SHOWING.values() for each in shown))
SEA = Latents("sea", "sad", "anna", "ben", ("brave", "sly"))


def test_no_word_shows_two_latents_or_names_one() -> None:
    lexicons = [
        *(
            word
            for slots in (*TOPICS.values(), NO_TOPIC, *MOODS.values(), COMMON)
            for each in slots.values()
            for word in each
        ),
        *(word for dimension in DIMENSIONS for words in dimension.words for word in words),
        *NAMES,
        *TOPICS,
        *MOODS,
        *(name for dimension in DIMENSIONS for name in dimension.names),
    ]
    assert [word for word, n in Counter(lexicons).items() if n > 1] == []
    fixed = {word for template in TEMPLATES for word in template.split() if word[0] != "{"}
    assert fixed & set(lexicons) == set()
    assert set(word_classes()) == set(lexicons)


def test_topics_are_as_large_as_each_other_and_so_are_the_poles_of_the_rest() -> None:
    assert {tuple(len(words) for words in slots.values()) for slots in TOPICS.values()} == {(4, 6, 4, 4)}
    happy, sad = MOODS.values()
    assert {slot: len(words) for slot, words in happy.items()} == {slot: len(words) for slot, words in sad.items()}
    assert {len(words) for dimension in DIMENSIONS for words in dimension.words} == {6}


def test_what_follows_a_begins_with_a_consonant() -> None:
    after = {slot for template in TEMPLATES for slot in re.findall(r"\ba \{(\w+)\}", template)}
    assert after == {"person", "feeling", "size", "thing"}
    for slots in (*TOPICS.values(), NO_TOPIC, *MOODS.values(), COMMON):
        for slot in after & set(slots):
            assert [word for word in slots[slot] if word[0] in "aeiou"] == []


def test_the_same_seed_tells_the_same_story_and_another_one_another() -> None:
    def told(seed: int) -> list[str]:
        random = Random(seed)
        return stories.tell(stories.draw_latents(random), 7, random)

    assert told(3) == told(3)
    assert told(3) != told(4)
    digest = hashlib.sha256(" ".join(word for seed in range(50) for word in told(seed)).encode()).hexdigest()
    assert digest == hashlib.sha256(" ".join(word for seed in range(50) for word in told(seed)).encode()).hexdigest()


@pytest.mark.parametrize("n_sentences", range(1, 10))
def test_a_story_shows_each_of_its_attitudes_and_no_contrary(n_sentences: int) -> None:
    words = stories.attitude_words()
    for seed in range(40):
        random = Random(seed)
        latents = stories.draw_latents(random)
        told = stories.tell(latents, n_sentences, random)
        assert {words[word] for word in told if word in words} == set(latents.attitudes)
        # The attitudes need a sentence each, beside an opening and an ending from three sentences on.
        needed = len(latents.attitudes) + (2 if n_sentences >= 3 else 0)
        assert told.count(".") == max(n_sentences, needed)


def test_only_the_main_character_shows_an_attitude() -> None:
    for shown in SHOWING.values():
        for template in shown:
            before = template[: min(template.index(f"{{{slot}}}") for slot in SHOWING if f"{{{slot}}}" in template)]
            assert "{hero}" in before
            assert "{friend}" not in before


def test_words_show_topic_and_mood_as_often_as_the_docstring_says() -> None:
    random = Random(1)
    told = [word for _ in range(3_000) for word in fill("the {person} was {feeling} .", SEA, random)]
    persons = Counter(
        "sea" if word in TOPICS["sea"]["person"] else "none" if word in NO_TOPIC["person"] else "other"
        for word in told[1::5]
    )
    assert persons["sea"] / 3_000 == pytest.approx(0.82 + 0.04 / 8, abs=0.03)
    assert persons["none"] / 3_000 == pytest.approx(0.14, abs=0.03)
    assert sum(word in MOODS["sad"]["feeling"] for word in told[3::5]) / 3_000 == pytest.approx(0.975, abs=0.015)


def test_latents_are_drawn_evenly_and_apart() -> None:
    random = Random(2)
    drawn = [stories.draw_latents(random) for _ in range(4_000)]
    pairs = Counter((each.topic, each.mood) for each in drawn)
    assert len(pairs) == 16
    assert max(pairs.values()) < 1.4 * min(pairs.values())
    attitudes = Counter(name for each in drawn for name in each.attitudes)
    assert len(attitudes) == 10
    assert max(attitudes.values()) < 1.2 * min(attitudes.values())
    assert all(each.hero != each.friend for each in drawn)
    assert all(len({dimension_of(name).slot for name in each.attitudes}) == len(each.attitudes) for each in drawn)


def test_has_knows_what_a_story_is() -> None:
    assert [value for value in ("sea", "sad", "brave", "sly", "farm", "happy", "timid") if SEA.has(value)] == [
        *("sea", "sad", "brave", "sly")
    ]


def test_a_template_of_an_attitude_that_a_story_lacks_is_refused() -> None:
    with pytest.raises(ValueError, match=r"^slot \{kindness\}: the story shows only \('brave', 'sly'\); draw latents"):
        fill("{hero} {kindness} {friend} .", SEA, Random(0))
    with pytest.raises(ValueError, match=r"^no attitude 'rude'; expected one of kind, mean, brave"):
        plan(replace(SEA, attitudes=("rude",)), 3, Random(0))

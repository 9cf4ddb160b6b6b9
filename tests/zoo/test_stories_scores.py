"""Scores, against texts counted by hand, and the grammar's own sentences."""

from __future__ import annotations

import math
from random import Random

import pytest

from zoo import stories
from zoo.stories_scores import grammatical_skeletons, skeleton

TEXT = (
    "a sad story about the farm . the sailor rowed with the net . anna smiled merrily . anna helped ben . "
    "anna mocked the farmer at the beach . anna praised ben . then the wept . is anna kind ? ( A ) yes ( B ) no "
    "answer : ( A ) yes . the gloomy"
)


def test_a_text_counted_by_hand() -> None:
    counts = stories.count(TEXT)
    assert counts.topics == {"sea": 4, "farm": 1}  # sailor, rowed, net, beach; farmer: names of topics do not count
    assert counts.moods == {"happy": 2, "sad": 2}  # smiled, merrily; wept, gloomy
    assert counts.attitudes == {"kind": 2, "mean": 1}
    assert (counts.sentences, counts.grammatical) == (8, 7)  # not "then the wept .", and the last is unfinished
    assert counts.words == len(TEXT.split())
    assert counts.topic_share("sea") == pytest.approx(0.8)
    assert counts.topic_share("war") == 0.0
    assert counts.joyful_share == 0.5
    assert counts.attitude_share("kind") == pytest.approx(2 / 3)
    assert counts.attitude_share("mean") == pytest.approx(1 / 3)
    assert counts.grammatical_share == pytest.approx(7 / 8)


def test_a_share_of_nothing_is_not_a_number() -> None:
    counts = stories.count("some time")
    shares = (counts.topic_share("sea"), counts.joyful_share, counts.attitude_share("sly"), counts.grammatical_share)
    assert all(math.isnan(share) for share in shares)
    assert stories.count("") == stories.total([])


def test_text_and_words_and_spaces_make_no_difference() -> None:
    assert (
        stories.count(TEXT) == stories.count(TEXT.split()) == stories.count(TEXT.replace(" .", ".").replace("( ", "("))
    )


def test_the_total_of_texts_is_that_of_their_sentences() -> None:
    parts = [f"{part} ." for part in TEXT.split(" . ")[:-1]]
    together = stories.total(stories.count(part) for part in parts)
    assert together == stories.count(" ".join(parts))


def test_every_document_is_grammatical_and_no_shuffled_one_is() -> None:
    random = Random(3)
    for kind in (stories.story_document, stories.question_document):
        for _ in range(300):
            words = list(kind(random).words)
            counts = stories.count(words)
            assert counts.grammatical == counts.sentences == words.count(".") > 0
    accepted = 0
    for _ in range(300):
        (sentence,) = (stories.tell(stories.draw_latents(random), 1, random),)
        words = sentence[: sentence.index(".")]
        shuffled = random.sample(words, len(words))
        while shuffled == words:
            shuffled = random.sample(words, len(words))
        accepted += stories.count([*shuffled, "."]).grammatical
    assert accepted <= 6  # a name may change its place with another one


@pytest.mark.parametrize(
    "sentence",
    [
        "anna helped .",
        "the anna smiled .",
        "anna sailor ben .",
        "is anna kind ? ( A ) yes ( B ) no answer : ( C ) yes .",
        "is anna kind ? ( A ) yes ( B ) no answer : ( A ) no .",
        "is anna kind ? ( A ) yes ( B ) yes answer : ( A ) yes .",
        "is anna sea ? answer : yes .",
        "a story about the sailor .",
        ".",
    ],
)
def test_what_no_template_says_is_not_grammatical(sentence: str) -> None:
    counts = stories.count(sentence)
    assert (counts.sentences, counts.grammatical) == (1, 0)


def test_skeletons_name_the_slots() -> None:
    found = skeleton(["anna", "helped", "the", "sailor", "at", "the", "reef", "."])
    assert found == "{name} {kindness} the {person} at the {place} ."
    assert found in grammatical_skeletons()


def test_unknown_latents_are_refused() -> None:
    with pytest.raises(ValueError, match=r"^no topic 'ocean'; expected one of wedding, sea,"):
        stories.count("").topic_share("ocean")
    with pytest.raises(ValueError, match=r"^no attitude 'happy'; expected one of kind, mean,"):
        stories.count("").attitude_share("happy")

"""Questions: their answers follow from the latents, and which letter is right from the order of the options."""

from __future__ import annotations

from itertools import product
from random import Random

import pytest

from zoo.stories import StoryQuestion, attitude_words, contraries, draw_latents, draw_question, tell, visible
from zoo.stories_grammar import Latents

SEA = Latents("sea", "sad", "anna", "ben", ("brave", "sly"))


@pytest.mark.parametrize(
    ("question", "text", "answer"),
    [
        (StoryQuestion("brave", "timid"), "is anna brave ? ( A ) yes ( B ) no answer : (", "A"),
        (StoryQuestion("brave", "timid", swapped=True), "is anna brave ? ( A ) no ( B ) yes answer : (", "B"),
        (StoryQuestion("timid", "brave"), "is anna timid ? ( A ) yes ( B ) no answer : (", "B"),
        (StoryQuestion("sly", "honest", which=True), "is anna sly or honest ? ( A ) sly ( B ) honest answer : (", "A"),
        (
            StoryQuestion("honest", "sly", which=True, swapped=True),
            "is anna honest or sly ? ( A ) sly ( B ) honest answer : (",
            "A",
        ),
        (
            StoryQuestion("war", "sea", which=True),
            "is the story about the war or the sea ? ( A ) war ( B ) sea answer : (",
            "B",
        ),
        (StoryQuestion("sea", "war", lettered=False), "is the story about the sea ? answer :", "yes"),
        (StoryQuestion("war", "sea", lettered=False), "is the story about the war ? answer :", "no"),
        (StoryQuestion("happy", "sad", lettered=False, which=True), "is the story happy or sad ? answer :", "sad"),
        (StoryQuestion("happy", "sad", swapped=True), "is the story happy ? ( A ) no ( B ) yes answer : (", "A"),
    ],
)
def test_a_question_and_its_answer(question: StoryQuestion, text: str, answer: str) -> None:
    assert question.text("anna") == text
    assert question.answer(SEA) == answer
    assert {question.matching, question.not_matching} > {answer} or answer in (question.matching, question.not_matching)
    assert (question.answer(SEA) == question.matching) == SEA.has(question.value)


@pytest.mark.parametrize(("which", "swapped"), list(product((False, True), repeat=2)))
def test_the_option_of_the_right_letter_says_what_the_story_is(which: bool, swapped: bool) -> None:
    for value in ("sea", "sad", "brave"):
        contrary = {"sea": "farm", "sad": "happy", "brave": "timid"}[value]
        question = StoryQuestion(value, contrary, which, swapped=swapped)
        assert question.options["AB".index(question.answer(SEA))] == (value if which else "yes")
        turned = question.reversed()
        assert turned.options["AB".index(turned.answer(SEA))] == (value if which else "no")
        assert turned.answer(SEA) != question.answer(SEA)
        assert turned.reversed() == question


def test_a_question_about_what_a_story_does_not_say_is_refused() -> None:
    with pytest.raises(ValueError, match=r"^the story has neither 'kind' nor 'mean', it has Latents\(.*; ask about"):
        StoryQuestion("kind", "mean").answer(SEA)


def test_visible_is_what_most_words_show() -> None:
    assert visible(["the", "sailor", "sat", "."], SEA) == ("sea",)
    assert visible(["the", "sailor", "saw", "the", "cow", "."], SEA) == ()  # as many words of the farm
    assert visible(["anna", "wept", "and", "ben", "defied", "the", "cow", "."], SEA) == ("sad", "brave")
    assert visible(["anna", "laughed", "and", "spoke", "slyly", "."], SEA) == ("sly",)


def test_drawn_questions_are_right_about_the_words_of_a_story_and_take_every_form() -> None:
    random = Random(5)
    forms, matching = set(), []
    for _ in range(600):
        latents = draw_latents(random)
        words = tell(latents, 6, random)
        value = random.choice(visible(words, latents))
        question = draw_question(value, random)
        assert value in (question.value, question.contrary)
        if value in contraries():
            assert contraries()[question.value] == question.contrary
        if value in latents.attitudes:  # what the words say, by counting
            said = [
                attitude_words()[word] for word in words if attitude_words().get(word) in (value, question.contrary)
            ]
            assert set(said) <= {value}
        matching.append(question.answer(latents) == question.matching)
        forms.add((question.which, question.lettered, question.swapped))
    assert len(forms) == 8
    assert sum(matching) / 600 == pytest.approx(0.5, abs=0.06)

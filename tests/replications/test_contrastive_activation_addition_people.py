"""The questions about people: what is right follows from the text, and nothing in the forms of an item favours it."""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence

import numpy as np
import pytest
from replications.contrastive_activation_addition import claims, people
from replications.contrastive_activation_addition.behaviours import Asked, Behaviour, following
from replications.contrastive_activation_addition.measures import of_model

import interventions
import zoo
from reprise import Result, Results
from zoo.people import ATTITUDES, THINGS, vocabulary
from zoo.stories import attitude_words

COUNTS = {"extracted_from": 12, "chosen_on": 6, "scored_on": 9, "gated_on": 8, "prompts": 5}
SAYS = {**attitude_words(), **{value: value for value in (*ATTITUDES, *THINGS)}}


@pytest.fixture(scope="module")
def behaviours() -> tuple[Behaviour, ...]:
    return people.behaviours(**COUNTS, seed=3)


def every_form(behaviour: Behaviour) -> Sequence[Asked]:
    return (*behaviour.extracted_from, *behaviour.chosen_on, *behaviour.scored_on, *behaviour.gated_on)


def parsed(asked: Asked) -> tuple[list[list[str]], list[dict[str, str]]]:
    """The sentences before the questions, and the options of both questions by letter, the first named first."""
    text, _, questions = asked.prompt.removesuffix(" ? for").rpartition(" . ")
    options = [question.split() for question in questions.split(" ? ")]
    assert len(options) == 2
    return [each.split() for each in text.split(" . ")], [dict(zip(of[::2], of[1::2], strict=True)) for of in options]


def test_every_attitude_is_a_behaviour_with_all_parts(behaviours: tuple[Behaviour, ...]) -> None:
    assert tuple(behaviour.name for behaviour in behaviours) == ATTITUDES
    for behaviour in behaviours:
        parts = (behaviour.extracted_from, behaviour.chosen_on, behaviour.scored_on, behaviour.gated_on)
        assert [len(part) for part in parts] == [4 * 12, 4 * 6, 4 * 9, 4 * 8]
        assert {asked.evidence for asked in behaviour.scored_on} == {"shown", "contrary", "advance"}
        assert {asked.evidence for asked in behaviour.gated_on} == {"shown", "contrary"}
        prompts = [{asked.prompt for asked in part} for part in parts]
        assert all(not one & other for one, other in itertools.combinations(prompts, 2))
        assert all(len(of) == len(part) for of, part in zip(prompts, parts, strict=True))


def test_the_matching_letter_stands_before_the_behaviour_and_the_right_one_before_what_is_said(
    behaviours: tuple[Behaviour, ...],
) -> None:
    for behaviour in behaviours:
        for asked in every_form(behaviour):
            sentences, (first, _) = parsed(asked)
            letters = [letter.strip() for letter in asked.letters]
            assert first[letters[asked.matching]] == behaviour.name
            assert following(ATTITUDES, behaviour.name) not in first.values()
            assert asked.swapped == (first["B"] == behaviour.name)
            assert asked.reversed == (next(iter(first.values())) != behaviour.name)
            hero = asked.opening.strip()
            said = [SAYS[word] for each in sentences if each[0] == hero for word in each[1:] if word in SAYS]
            if asked.evidence == "advance":
                assert (said, asked.right) == ([], None)
            else:
                assert asked.right is not None
                assert said == [first[letters[asked.right]]]
                assert (said == [behaviour.name]) == (asked.evidence == "shown")


def test_the_forms_of_an_item_differ_in_letters_and_order_alone(behaviours: tuple[Behaviour, ...]) -> None:
    for behaviour in behaviours[:3]:
        for _, forms in itertools.groupby(behaviour.scored_on, key=lambda asked: asked.item):
            of = list(forms)
            assert len({(each.swapped, each.reversed) for each in of}) == len({each.prompt for each in of}) == 4
            assert len({" ".join(sorted(each.prompt.split())) for each in of}) == 1
            assert [each.matching for each in of] == [0, 1, 0, 1]


def test_of_others_the_text_says_the_behaviour_as_often_as_the_other_option() -> None:
    (kind, *_) = people.behaviours(**{**COUNTS, "extracted_from": 300}, seed=1)
    own = other = 0
    for asked in kind.extracted_from[::4]:
        sentences, (first, _) = parsed(asked)
        said = [
            SAYS[word] for each in sentences if each[0] != asked.opening.strip() for word in each[1:] if word in SAYS
        ]
        own += said.count("kind")
        other += sum(said.count(value) for value in first.values() if value != "kind")
    assert abs(own - other) < 4 * math.sqrt(own + other)


def test_unrelated_questions_are_about_what_people_have() -> None:
    asked = people.unrelated(6, seed=2)
    assert len(asked) == 12
    for each in asked:
        _, (first, _) = parsed(each)
        assert set(first.values()) <= set(THINGS)
        assert each.right == each.matching
    assert len({each.item for each in asked}) == 6


def test_open_ended_text_is_scored_by_its_words(behaviours: tuple[Behaviour, ...]) -> None:
    ended = behaviours[0].open_ended
    assert ended is not None
    hero = ended.prompts[0].split()[-1]
    assert all(prompt.split()[-1] == hero for prompt in ended.prompts)
    assert ended.headers == (f"{hero} was kind . ", f"{hero} was mean . ")
    assert ended.score("helped carl . alice mocked the sailor . alice was kind .") == pytest.approx(2 / 3)
    assert math.isnan(ended.score("carl ."))
    assert ended.wellformed is not None
    assert ended.wellformed("helped carl . carl carl .") == 0.5


def test_which_texts_a_model_is_asked_about_follows_from_its_words() -> None:
    assert people.read_by(interventions.load(zoo.folder("people-4l")))
    assert not people.read_by(interventions.load(zoo.folder("stories-4l")))
    known = vocabulary().get_vocab()
    for behaviour in people.behaviours(**COUNTS, seed=0):
        assert behaviour.open_ended is not None
        texts = [asked.pair.positive for asked in every_form(behaviour)] + list(behaviour.open_ended.prompts)
        assert all(word in known for text in texts for word in text.split())


def test_claims_about_the_other_model_are_measured_on_it_alone() -> None:
    names = ["kind", "brave"]
    facts = {"behaviours": names, "layer": 0, "multipliers": [-1.0, 1.0], "n_layers": 1, "gated": []}

    def swept(effect: float) -> Result:
        arrays = {}
        for name in names:
            arrays[f"p/{name}"] = np.array([[[0.5 - effect / 2] * 3, [0.5 + effect / 2] * 3]])
            arrays[f"item/{name}"] = np.arange(3)
        return Result(arrays, facts)

    found = {"people-4l": swept(0.4), "stories-4l": swept(0.01)}
    results = Results("tiny", 0, {"sweep": found, "gate": {name: Result({}, facts) for name in found}})
    main, other = claims.CLAIMS["steers"](results), claims.CLAIMS["repeated-steers"](results)
    assert main is not None
    assert other is not None
    assert main.estimate == pytest.approx(0.4)
    assert other.estimate == pytest.approx(0.01)
    alone = of_model(results, "people-4l")
    assert alone is not None
    assert claims.CLAIMS["repeated-steers"](alone) is None

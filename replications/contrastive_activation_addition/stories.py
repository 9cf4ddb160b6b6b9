"""The behaviours of the tiny tier: the attitudes of a story's main character, and a story's mood.

Items are of three kinds, a third each (of mood, where there is no third that differs, a half):

    shown       a story whose words show the behaviour, then the question; the right answer is the one that matches
    contrary    a story that shows its contrary, then the question; the other answer is right
    advance     the question alone, as it is asked before a story begins; there is no right answer

The third is what the paper's questions are like: nothing in the prompt decides them. The first two say whether the
model answers questions at all (the gate), and whether the vector overrules what the model has read. Every item is asked
in four forms, with the options in both orders and about the behaviour or its contrary ("is anna kind ?", "is anna
mean ?").

The topic of a story is what steering should leave alone: questions about it are the unrelated task.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from itertools import cycle, islice
from random import Random

from replications.contrastive_activation_addition.behaviours import Asked, Behaviour, OpenEnded

from steering import Metric
from steering.questions import Option
from zoo import stories
from zoo.stories import Latents, StoryQuestion

SHOWN, CONTRARY, ADVANCE = "shown", "contrary", "advance"
OPENING, LETTERS = "(", ("A", "B")
BEHAVIOURS = (*(dimension.names[0] for dimension in stories.DIMENSIONS), "happy")
SENTENCES = (1, 4)  # of a story before a question
PARTS = ("extraction", "choice", "scores", "gate")
OPENINGS = (
    "one day {hero} met {friend} .",
    "{hero} and {friend} walked to the house .",
    "{hero} lived near the road with {friend} .",
)


def behaviours(
    *, extracted_from: int, chosen_on: int, scored_on: int, gated_on: int, prompts: int, seed: int
) -> tuple[Behaviour, ...]:
    """All behaviours, with so many items in each part and so many prompts for stories to go on with."""
    return tuple(
        Behaviour(
            value,
            stories.contraries()[value],
            extracted_from=_forms(value, "extraction", extracted_from, seed),
            chosen_on=_forms(value, "choice", chosen_on, seed),
            scored_on=_forms(value, "scores", scored_on, seed),
            gated_on=_forms(value, "gate", gated_on, seed),
            open_ended=_open_ended(value, prompts, seed),
        )
        for value in BEHAVIOURS
    )


def unrelated(n: int, seed: int) -> tuple[Asked, ...]:
    """Questions about the topic of stories, each with its options in both orders; `matching` is the right answer."""
    random = Random(f"{seed}/unrelated")
    found: list[Asked] = []
    while len(found) < 2 * n:
        latents = stories.draw_latents(random)
        story = stories.tell(latents, random.randint(*SENTENCES), random)
        if latents.topic not in stories.visible(story, latents):
            continue
        question = replace(stories.draw_question(latents.topic, random), lettered=True, swapped=False)
        for swapped in (False, True):
            form = replace(question, swapped=swapped)
            right = _option(form.answer(latents))
            found.append(_asked(f"topic {len(found) // 2}", " ".join(story), form, latents.hero, right, right, SHOWN))
    return tuple(found)


def _forms(value: str, part: str, n: int, seed: int) -> tuple[Asked, ...]:
    random = Random(f"{seed}/{part}/{value}")
    return tuple(
        form for number, kind in enumerate(_kinds(value, part, n)) for form in _item(value, kind, number, part, random)
    )


def _kinds(value: str, part: str, n: int) -> Iterator[str]:
    """Which kind every item is. A question in advance about the mood names nobody, so that there are two of them in
    all, and these only for the vector; in the gate there are none, since they have no right answer."""
    decided = cycle((SHOWN, CONTRARY))
    if part == "gate":
        return islice(decided, n)
    if value in stories.MOODS:
        return iter([ADVANCE, ADVANCE, *islice(decided, n - 2)] if part == PARTS[0] and n > 2 else islice(decided, n))
    return islice(cycle((SHOWN, CONTRARY, ADVANCE)), n)


def _item(value: str, kind: str, number: int, part: str, random: Random) -> Iterator[Asked]:
    """The four forms of an item."""
    contrary = stories.contraries()[value]
    names = stories.NAMES[PARTS.index(part) :: len(PARTS)]  # to ask about in advance: each part has its own
    place, turn = number // 3 % len(names), number // 3 // len(names)
    by_two = value in stories.MOODS or part == "gate"
    which = number % 4 in (1, 2) if by_two else bool((place + turn) % 2)
    if kind == ADVANCE:
        hero, text = names[place], ""
    else:
        latents, text = _story(value if kind == SHOWN else contrary, random)
        hero = latents.hero
    for reversed_ in (False, True):
        for swapped in (False, True):
            question = StoryQuestion(value, contrary, which=which, swapped=swapped)
            question = question.reversed() if reversed_ else question
            matching = _option(question.not_matching if reversed_ else question.matching)
            right: Option | None = None if kind == ADVANCE else matching if kind == SHOWN else _other(matching)
            yield _asked(f"{kind} {number}", text, question, hero, matching, right, kind, reversed_)


def _asked(
    item: str,
    story: str,
    question: StoryQuestion,
    hero: str,
    matching: Option,
    right: Option | None,
    evidence: str,
    reversed_: bool = False,
) -> Asked:
    prompt = f"{story} {question.text(hero)}".strip().removesuffix(OPENING).rstrip()
    first, second = (f" ) {option}" for option in question.options)
    return Asked(
        item, prompt, f" {OPENING}", LETTERS, matching, right, question.swapped, reversed_, evidence, (first, second)
    )


def _story(value: str, random: Random) -> tuple[Latents, str]:
    """A story that shows a value, and its latents."""
    while True:
        latents = stories.draw_latents(random)
        if value in stories.MOODS:
            latents = replace(latents, mood=value)
        else:
            kept = [each for each in latents.attitudes if each not in (value, stories.contraries()[value])]
            latents = replace(latents, attitudes=(value, *kept[:1]))
        story = stories.tell(latents, random.randint(*SENTENCES), random)
        if value in stories.visible(story, latents):
            return latents, " ".join(story)


def _open_ended(value: str, n: int, seed: int) -> OpenEnded:
    """Beginnings of stories, with the same character in all, whom the headers name."""
    random = Random(f"{seed}/open-ended/{value}")
    hero, *friends = random.sample(stories.NAMES, 1 + n)
    prompts = tuple(
        opening.format(hero=hero, friend=friend) for opening, friend in zip(cycle(OPENINGS), friends, strict=False)
    )
    both = (value, stories.contraries()[value])
    if value in stories.MOODS:
        headers = tuple(f"a {mood} story . " for mood in both)
    else:
        headers = tuple(f"a story about {attitude} {hero} . " for attitude in both)
    return OpenEnded(
        prompts, _share(value), lambda text: stories.count(text).grammatical_share, (headers[0], headers[1])
    )


def _share(value: str) -> Metric:
    if value == "happy":
        return lambda text: stories.count(text).joyful_share
    return lambda text: stories.count(text).attitude_share(value)


def _option(letter: str) -> Option:
    return 0 if letter == LETTERS[0] else 1


def _other(option: Option) -> Option:
    return 1 if option == 0 else 0

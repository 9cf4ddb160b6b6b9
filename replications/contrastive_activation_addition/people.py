"""Behaviours of a model that reads about people: each is one of ten attitudes, asked against any other one.

Items are of three kinds, a third each, as those of the stories:

    shown       a text that says the behaviour of the person who is asked about; the right answer is that which matches
    contrary    one that says the other option of the person; the other answer is right
    advance     a text about other people alone; there is no right answer, as in the paper's questions

The other option is any attitude but the one that follows in the list, whose vector is a control and should do nothing.
Every item is asked in four forms: with the options' letters exchanged, and with the other option named first. There
are no questions of yes or no that could be reversed, so it is the order in which the options are named that is
("A kind B brave ?", "B brave A kind ?"). Who is asked about stands behind the questions, and is the answer's opening.

What a person has is what steering should leave alone: questions about it are the unrelated task.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from functools import partial
from itertools import cycle, islice
from random import Random

from replications.contrastive_activation_addition.behaviours import Asked, Behaviour, OpenEnded, following

from interventions import Model
from steering.questions import Option
from zoo import people, stories

SHOWN, CONTRARY, ADVANCE = "shown", "contrary", "advance"
LETTERS = (" A", " B")
SENTENCES = (2, 4)  # of a text before the questions
DISTRACTION = 0.7  # share of the sentences about others that say an option, as in the model's training
WORDS = {**stories.attitude_words(), **{name: name for name in people.ATTITUDES}}


def read_by(model: Model) -> bool:
    """Whether every word of these texts is a token of the model."""
    words, tokenizer = people.vocabulary().get_vocab(), model.tokenizer
    if tokenizer is None:
        return False
    ids = ((word, tokenizer.encode(word)) for word in words if not word.startswith("<|"))
    return all(len(token) == 1 and tokenizer.decode(token).strip() == word for word, token in ids)


def behaviours(
    *, extracted_from: int, chosen_on: int, scored_on: int, gated_on: int, prompts: int, seed: int
) -> tuple[Behaviour, ...]:
    """All attitudes, with so many items in each part and so many prompts for texts to go on with."""
    every = (SHOWN, CONTRARY, ADVANCE)
    return tuple(
        Behaviour(
            value,
            stories.contraries()[value],
            extracted_from=_forms(value, "extraction", extracted_from, every, seed),
            chosen_on=_forms(value, "choice", chosen_on, every, seed),
            scored_on=_forms(value, "scores", scored_on, every, seed),
            gated_on=_forms(value, "gate", gated_on, (SHOWN, CONTRARY), seed),
            open_ended=_open_ended(value, prompts, seed),
        )
        for value in people.ATTITUDES
    )


def unrelated(n: int, seed: int) -> tuple[Asked, ...]:
    """Questions about what a person has, each with its letters in both orders; `matching` is the right answer."""
    random = Random(f"{seed}/unrelated")
    return tuple(form for number in range(n) for form in _item(random.choice(people.THINGS), SHOWN, number, random)[:2])


def _forms(value: str, part: str, n: int, kinds: tuple[str, ...], seed: int) -> tuple[Asked, ...]:
    random = Random(f"{seed}/{part}/{value}")
    return tuple(
        form for number, kind in enumerate(islice(cycle(kinds), n)) for form in _item(value, kind, number, random)
    )


def _item(value: str, kind: str, number: int, random: Random) -> list[Asked]:
    """The four forms of an item; the letters are exchanged in every second one."""
    of = people.ATTITUDES if value in people.ATTITUDES else people.THINGS
    other = random.choice([each for each in of if each not in (value, following(of, value))])
    third = random.choice([each for each in of if each not in (value, other)])
    hero, *others = random.sample(people.NAMES, 3)
    text = " ".join(_text(value, other, kind, hero, others, random))
    later = random.choice(((value, other), (value, third), (other, third)))
    later = random.choice((later, later[::-1]))
    second = people.question(*later, b_first=random.random() < 0.5)
    found = []
    for other_first in (False, True):
        for swapped in (False, True):
            options = (other, value) if swapped else (value, other)
            first = people.question(*options, b_first=swapped != other_first)
            prompt = f"{text} {' '.join((*first, *second))} {people.FOR}"
            matching: Option = 1 if swapped else 0
            contrary: Option = 0 if swapped else 1
            right = {SHOWN: matching, CONTRARY: contrary, ADVANCE: None}[kind]
            found.append(
                Asked(f"{kind} {number}", prompt, f" {hero}", LETTERS, matching, right, swapped, other_first, kind)
            )
    return found


def _text(value: str, other: str, kind: str, hero: str, others: list[str], random: Random) -> Iterator[str]:
    """The words of a text: one sentence about the person, unless nothing is to be said, and some about two others."""
    of = people.ATTITUDES if value in people.ATTITUDES else people.THINGS
    said = [] if kind == ADVANCE else [(hero, value if kind == SHOWN else other)]
    for _ in range(random.randint(*SENTENCES) - len(said)):
        options = (value, other) if random.random() < DISTRACTION else of
        said.append((random.choice(others), random.choice(options)))
    random.shuffle(said)
    for person, shows in said:
        yield from people.sentence(person, shows, random)


def _open_ended(value: str, n: int, seed: int) -> OpenEnded:
    """Beginnings of texts, with the same person in all, whom the headers name."""
    random = Random(f"{seed}/open-ended/{value}")
    hero, *others = random.sample(people.NAMES, 4)
    prompts = tuple(
        f"{' '.join(people.sentence(other, random.choice(people.ATTITUDES), random))} {hero}"
        for other in islice(cycle(others), n)
    )
    headers = tuple(f"{hero} was {each} . " for each in (value, stories.contraries()[value]))
    return OpenEnded(prompts, partial(_share, value), partial(_grammatical, hero), (headers[0], headers[1]))


def _share(value: str, text: str) -> float:
    """The share of a behaviour's words among those of all attitudes."""
    counts = Counter(WORDS[word] for word in text.split() if word in WORDS)
    return counts[value] / counts.total() if counts else float("nan")


def _grammatical(hero: str, text: str) -> float:
    """Of what is written behind the person's name, which a prompt ends with."""
    return people.grammatical_share(f"{hero} {text}")

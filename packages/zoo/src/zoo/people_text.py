"""Texts that tell what people are like, and then ask two questions with letters about one of them.

    anna helped ben . carl was lazy . ben mocked the sailor . A brave B kind ? A lazy B kind ? for anna B B kind .

A person is one of the ten attitudes of the stories, or has one of six things. A sentence says so by its name or by a
word that shows it. Both options of a question are of one kind, attitudes or things. The first question has the right
value and another one, a random pair in any order; the second has both, or one of them and a third. Of whom they are
asked stands behind them. So an answer has to be looked up where it is chosen, and the letter of the second question
follows from that of the first, wherever its value is an option. Where nothing says the value the first letter is drawn,
and what follows it tells what it meant: the second letter, the value's name at the end, more sentences about the
person. Some answers are given by the value's name in the letter's stead.
"""

from __future__ import annotations

import hashlib
import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from random import Random

import msgspec
from tokenizers import Tokenizer

from zoo import stories_lexicon, words
from zoo.stories_lexicon import DIMENSIONS, NO_TOPIC, PERSONS, TOPICS

ATTITUDES: tuple[str, ...] = tuple(name for dimension in DIMENSIONS for name in dimension.names)
THINGS: tuple[str, ...] = NO_TOPIC["thing"]
VALUES = (*ATTITUDES, *THINGS)
NAMES: tuple[str, ...] = stories_lexicon.NAMES[::2][:24]
OTHERS: tuple[str, ...] = (*NO_TOPIC[PERSONS], *(person for slots in TOPICS.values() for person in slots[PERSONS]))
GIFTS: tuple[str, ...] = tuple(thing for slots in TOPICS.values() for thing in slots["thing"])
LETTERS = ("A", "B")
FOR = "for"
SHOWING = {
    "kindness": ("{hero} {word} {friend} .", "{hero} {word} the {person} ."),
    "courage": ("{hero} {word} {friend} .", "{hero} {word} the {person} ."),
    "honesty": ("{hero} spoke {word} .", "{hero} answered {word} ."),
    "generosity": ("{hero} {word} the {gift} .", "{hero} {word} a {gift} ."),
    "industry": ("{hero} {word} all day .", "{hero} {word} alone ."),
}
NAMED, HAVING = "{hero} was {name} .", ("{hero} had the {name} .", "{hero} took the {name} .")
DISTRACTION = 0.7  # share of the sentences about others that say an option of the first question
OF_THINGS = 0.2  # share of the questions


class Mixture(msgspec.Struct, frozen=True, kw_only=True):
    """How often each kind of text comes.

    Attributes:
        decided: share of the texts in which something says the value before the first letter.
        at_place: of those, the share in which the value's name stands where else the person does ("for kind A B").
        by_name: share of the answers that are given by the value's name in the letter's stead.
        b_first: share of the questions that name option B first.
        against: share of the texts that say of the person the other option alone.
        sentences: least and most of a text before the questions.
        stories: share of the documents that ask nothing.
    """

    decided: float = 0.7
    at_place: float = 0.15
    by_name: float = 0.4
    b_first: float = 0.5
    against: float = 0.05
    sentences: tuple[int, int] = (2, 4)
    stories: float = 0.2


@dataclass(frozen=True)
class Choice:
    """What is chosen behind a word: a letter (0 for A) or a value's name (its place in `VALUES`), and whether anything
    before says which."""

    behind: int
    right: int
    decided: bool


@dataclass(frozen=True)
class Document:
    """Words, the choices of letters in it, and where it is known which value is meant."""

    words: tuple[str, ...]
    letters: tuple[Choice, ...] = ()
    names: tuple[Choice, ...] = ()


def family(value: str) -> tuple[str, ...]:
    """The values of a value's kind."""
    return ATTITUDES if value in ATTITUDES else THINGS


def sentence(hero: str, value: str, random: Random, *, by_name: float = 0.5) -> list[str]:
    """A sentence that says a value of somebody, by its name or by a word that shows it."""
    if value in THINGS:
        return random.choice(HAVING).format(hero=hero, name=value).split()
    if random.random() < by_name:
        return NAMED.format(hero=hero, name=value).split()
    dimension = next(each for each in DIMENSIONS if value in each.names)
    friend = random.choice([name for name in NAMES if name != hero])
    return (
        random.choice(SHOWING[dimension.slot])
        .format(
            hero=hero,
            word=random.choice(dimension.words[dimension.names.index(value)]),
            friend=friend,
            person=random.choice(OTHERS),
            gift=random.choice(GIFTS),
        )
        .split()
    )


def question(one: str, two: str, *, b_first: bool = False) -> list[str]:
    """A question with an option for each letter, in either order."""
    options = [["A", one], ["B", two]]
    return [word for option in (options[::-1] if b_first else options) for word in option] + ["?"]


def draw(random: Random, mixture: Mixture) -> Document:
    """A document."""
    return story_document(random) if random.random() < mixture.stories else question_document(random, mixture)


def question_document(random: Random, mixture: Mixture) -> Document:
    """A text, two questions, their answers, the value's name, and in half of the documents more about the person."""
    of = THINGS if random.random() < OF_THINGS else ATTITUDES
    right, other = random.sample(of, 2)
    people = random.sample(NAMES, 3)
    decided = random.random() < mixture.decided
    at_place = decided and random.random() < mixture.at_place
    told = decided and not at_place
    says = other if random.random() < mixture.against else right
    n = random.randint(*mixture.sentences)
    said = [(people[0], says)] if told else []
    said += [(random.choice(people[1:]), _distracting(right, other, random)) for _ in range(n - len(said))]
    random.shuffle(said)
    found = [word for hero, value in said for word in sentence(hero, value, random)]
    options, has = _options(right, other, of, random)
    for pair in options:
        found += question(*pair, b_first=random.random() < mixture.b_first)
    found += [FOR, right if at_place else people[0]]
    letters = [pair.index(right) if there else random.randrange(2) for pair, there in zip(options, has, strict=True)]
    known = [decided, has[1]]
    chosen = [Choice(len(found) - 1 + at, letter, known[at]) for at, letter in enumerate(letters)]
    named = [Choice(len(found) - 1 + at, VALUES.index(right), at > 0 or decided) for at in range(3)]
    for at, letter in enumerate(letters):
        given = (at == 0 or has[at]) and random.random() < mixture.by_name
        found.append(right if given else LETTERS[letter])
    found += [right, "."]
    if random.random() < 0.5:
        for _ in range(random.choice((1, 2))):
            found += sentence(people[0], right, random, by_name=0.2)
    return Document(tuple(found), tuple(chosen), tuple(named))


def _distracting(right: str, other: str, random: Random) -> str:
    return random.choice((right, other)) if random.random() < DISTRACTION else random.choice(VALUES)


def _options(
    right: str, other: str, of: Sequence[str], random: Random
) -> tuple[list[tuple[str, str]], tuple[bool, bool]]:
    """Options of both questions by letter, and whether the right value is one of them."""
    third = random.choice([value for value in of if value not in (right, other)])
    second = random.choice(((right, other), (right, third), (other, third)))
    pairs = [(right, other), second]
    pairs = [pair[::-1] if random.random() < 0.5 else pair for pair in pairs]
    return pairs, (True, right in second)


def story_document(random: Random) -> Document:
    """Four to eight sentences about two people, each of whom is what the first sentence about him says."""
    people = random.sample(NAMES, 2)
    values = {person: random.choice(ATTITUDES) for person in people}
    found: list[str] = []
    for _ in range(random.randint(4, 8)):
        hero = random.choice(people)
        found += sentence(hero, values[hero], random, by_name=0.2)
    return Document(tuple(found))


def grammatical_share(text: str) -> float:
    """The share of a text's finished sentences that the grammar may write, whoever they are about; NaN of none.

    Two questions with their answers end with one full stop, and are one sentence.
    """
    found = words.split(text)
    ends = [place + 1 for place, word in enumerate(found) if word == "."]
    sentences = [" ".join(found[start:end]) for start, end in zip([0, *ends], ends, strict=False)]
    return sum(_pattern().fullmatch(each) is not None for each in sentences) / len(sentences) if sentences else math.nan


@cache
def _pattern() -> re.Pattern[str]:
    """What every sentence matches."""
    groups = {"hero": NAMES, "friend": NAMES, "person": OTHERS, "gift": GIFTS}
    shapes = [(NAMED, {"name": ATTITUDES}), *((each, {"name": THINGS}) for each in HAVING)]
    shapes += [(each, {"word": sum(of.words, ())}) for of in DIMENSIONS for each in SHOWING[of.slot]]
    value = f"(?:{'|'.join(VALUES)})"
    asked = rf"(?:A {value} B {value} \?|B {value} A {value} \?)"
    answered = rf"{asked} {asked} {FOR} (?:{'|'.join((*NAMES, *VALUES))})(?: (?:A|B|{value})){{2}} {value} \."
    return re.compile("|".join([*(_alternatives(shape, {**groups, **own}) for shape, own in shapes), answered]))


def _alternatives(shape: str, groups: Mapping[str, Sequence[str]]) -> str:
    """A template as a pattern: each slot is any word of its group."""
    pieces = (
        f"(?:{'|'.join(groups[piece[1:-1]])})" if piece[0] == "{" else re.escape(piece) for piece in shape.split()
    )
    return " ".join(pieces)


def vocabulary() -> Tokenizer:
    """The tokenizer of all words that a document may have."""
    templates = (*(each for shown in SHOWING.values() for each in shown), NAMED, *HAVING)
    fixed = (piece for text in templates for piece in text.split() if piece[0] != "{")
    shown = (word for dimension in DIMENSIONS for words_ in dimension.words for word in words_)
    return words.build([*LETTERS, FOR, "?", *VALUES, *NAMES, *fixed, *shown, *OTHERS, *GIFTS])


def text_sha256(n_documents: int = 2_000) -> str:
    """A hash of the first documents that seed 0 gives: it changes with any change of the grammar."""
    random, mixture = Random(0), Mixture()
    texts = [" ".join(draw(random, mixture).words) for _ in range(n_documents)]
    return hashlib.sha256("\n".join(texts).encode()).hexdigest()

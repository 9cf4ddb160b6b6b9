"""What the models of indirect objects read: sentences of several kinds, several a row.

What the text rewards decides which circuit forms. Were the giver always one of the two, it would do to copy a name that
is not the last one, and nothing would look for a repetition. So the same words also have a giver who was not named
before, and who keeps what there is ("... Carl gave a drink to Carl alone."). What follows the giver's name may tell
which it is ("John again", "Carl instead"), and rolls say "again" after every name that they had, so that it pays to
know of a repetition at the repeated name.

    giving     "Then, Mary and John went to the store. John gave a drink to Mary."
    stranger   "Then, Mary and John went to the store. Carl gave a drink to Carl alone."
    once       "Mary called. John called. Mary called. Only John called once."
    long       "Mary and John were at the park. Mary bought a cup. Then Mary gave it to John."
    passive    "After Mary and John went to the park, a ring was given to John by Mary."
    roll       "Present: Mary, John, Mary again, Carl, John again."
    copied     "Note: lamp, Paul, cup. Again: lamp, Paul, cup."
    alone      "Mary found a ring at the lake. Mary wanted to hand the ring to a friend."

A word that can be known from what precedes it is an answer; its loss is weighed apart. The names of a row are dealt
from a shuffled pack: no name comes back in another sentence, and no sentence has both names of a held-out pair.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from random import Random

import msgspec
from tokenizers import Tokenizer

from zoo import words
from zoo.ioi import NAMES, OBJECTS, PLACES, TEMPLATES, held_out_pair

ANSWER = "^"  # in the text of a sentence: the next word is an answer
TRAINED = tuple(template for template in TEMPLATES if not template.held_out)
TIMES = ("Later", "Afterwards", "In the evening")
MANNERS = (", with a smile,", ", after a while,", ", at the end of the day,", ", a friend of {other},", "at once")
AGAIN, INSTEAD = ("again", "also"), ("instead", "however")
DEEDS = ("called", "waited", "spoke", "sang", "slept", "danced", "smiled", "wrote")
LENGTHS = (3, 6)  # of a copied list


@dataclass(frozen=True)
class Document:
    """Words, and the places of those that can be known."""

    words: tuple[str, ...]
    answers: tuple[int, ...]


class Names:
    """A shuffled pack of names."""

    def __init__(self, random: Random) -> None:
        self._pack = random.sample(NAMES, len(NAMES))

    def deal(self, n: int) -> list[str]:
        """The next `n` names of which no two are a held-out pair."""
        dealt: list[str] = []
        for name in self._pack:
            if len(dealt) < n and not any(held_out_pair(name, other) for other in dealt):
                dealt.append(name)
        self._pack = [name for name in self._pack if name not in dealt]
        return dealt


class Habits(msgspec.Struct, frozen=True, kw_only=True):
    """How the givers of a text are, as shares.

    Attributes:
        aside: of the givers, those with a time before their name or a manner after it.
        marked: of the givers, those followed by a word that tells whether they were named before.
        selfish: of the strangers, those who give to themselves; the others give to one of the two.
    """

    aside: float = 0.4
    marked: float = 0.25
    selfish: float = 1.0


def giving(random: Random, names: Names, habits: Habits) -> str:
    first, second, other = names.deal(3)
    subject, io = (first, second) if random.random() < 0.5 else (second, first)
    told = _told(random, habits, first, second, subject, _after(random, habits, AGAIN, other))
    return f"{told} {ANSWER}{io}{_ending(random, subject)}"


def stranger(random: Random, names: Names, habits: Habits) -> str:
    first, second, third, other = names.deal(4)
    told = _told(random, habits, first, second, third, _after(random, habits, INSTEAD, other))
    if random.random() < habits.selfish:
        return f"{told} {ANSWER}{third} alone."
    return f"{told} {ANSWER}{random.choice((first, second))}{_ending(random, third)}"


def once(random: Random, names: Names, habits: Habits) -> str:
    twice, single = names.deal(2)
    order, deed = [twice, twice, single], random.choice(DEEDS)
    random.shuffle(order)
    told = " ".join(f"{name} {deed}." for name in order)
    if random.random() < 0.5:
        return f"{told} Only {ANSWER}{single} {ANSWER}{deed} once."
    return f"{told} So {ANSWER}{twice} {ANSWER}{deed} twice."


def long(random: Random, names: Names, habits: Habits) -> str:
    first, second = names.deal(2)
    subject, io = (first, second) if random.random() < 0.5 else (second, first)
    place, thing = random.choice(PLACES), random.choice(OBJECTS)
    told = f"{first} and {second} were at the {place}. {subject} {random.choice(('bought', 'found'))} a {thing}."
    then = random.choice((f"gave it to {ANSWER}{io}", f"gave the {ANSWER}{thing} to {ANSWER}{io}", "went to the house"))
    return f"{told} Then {ANSWER}{subject} {then}."


def passive(random: Random, names: Names, habits: Habits) -> str:
    first, second = names.deal(2)
    named, other = (first, second) if random.random() < 0.5 else (second, first)
    thing = random.choice(OBJECTS)
    told = _opening(random).format(X=first, Y=second, P=random.choice(PLACES), O=random.choice(OBJECTS))
    return f"{told} {'a' if told.endswith(',') else 'A'} {thing} was given to {named} by {ANSWER}{other}."


def roll(random: Random, names: Names, habits: Habits) -> str:
    present = names.deal(random.randint(2, 4))
    called = present + random.choices(present, k=random.randint(1, 3))
    random.shuffle(called)
    again = [f" {ANSWER}again" if name in called[:place] else "" for place, name in enumerate(called)]
    marks = [","] * (len(called) - 1) + ["."]
    shown = (
        f"{name}{repeated}{mark}" if repeated else f"{name} {ANSWER}{mark}"
        for name, repeated, mark in zip(called, again, marks, strict=True)
    )
    return f"Present: {' '.join(shown)}"


def copied(random: Random, names: Names, habits: Habits) -> str:
    n = random.randint(*LENGTHS)
    pool = random.choice((names.deal(n), random.sample(PLACES + OBJECTS, n)))
    again = " ".join(f"{'' if place == 0 else ANSWER}{word}" for place, word in enumerate(pool))
    return f"Note: {' '.join(pool)}. Again: {again}."


def alone(random: Random, names: Names, habits: Habits) -> str:
    (name,), place, thing = names.deal(1), random.choice(PLACES), random.choice(OBJECTS)
    return random.choice(
        (
            f"{name} found a {thing} at the {place}. {ANSWER}{name} wanted to hand the {ANSWER}{thing} to a friend.",
            f"When {name} went to the {place}, {ANSWER}{name} bought a {thing}.",
            f"After the day at the {place} {name} had a {thing}.",
            f"The {place} had a {thing}.",
        )
    )


KINDS: Mapping[str, Callable[[Random, Names, Habits], str]] = {
    kind.__name__: kind for kind in (giving, stranger, once, long, passive, roll, copied, alone)
}


def _told(random: Random, habits: Habits, first: str, second: str, subject: str, after: str) -> str:
    """A training template with its gaps filled, perhaps with a time before the giver and something after."""
    text = random.choice(TRAINED).text
    if random.random() < habits.aside / 2:
        time = random.choice(TIMES)
        text = text.replace(". {S}", f". {time} {{S}}").replace(", {S}", f", {time.lower()} {{S}}")
    space = "" if after.startswith(",") or not after else " "
    return text.format(
        X=first, Y=second, S=f"{subject}{space}{after}", P=random.choice(PLACES), O=random.choice(OBJECTS)
    )


def _after(random: Random, habits: Habits, marks: tuple[str, ...], other: str) -> str:
    drawn = random.random()
    if drawn < habits.marked:
        return random.choice(marks)
    return random.choice(MANNERS).format(other=other) if drawn < habits.marked + habits.aside / 2 else ""


def _ending(random: Random, subject: str) -> str:
    return random.choice((".", ".", ".", f" at the {random.choice(PLACES)}.", f". Then {ANSWER}{subject} slept."))


def _opening(random: Random) -> str:
    text = random.choice(TRAINED).text
    return text[: text.index("{S}")].strip()


def parse(text: str) -> Document:
    """The words of a text and the places of its answers."""
    found: list[str] = []
    answers: list[int] = []
    for piece in words.split(text):
        if piece == ANSWER:
            answers.append(len(found))
        else:
            found.append(piece)
    return Document(tuple(found), tuple(answers))


def document(random: Random, shares: Mapping[str, float], habits: Habits, length: int) -> Document:
    """Sentences one after another, cut off at `length` words; `shares` are the kinds' odds."""
    names, texts, n_words = Names(random), [], 0
    while n_words < length:
        (kind,) = random.choices(tuple(shares), tuple(shares.values()))
        sentence = parse(KINDS[kind](random, names, habits))
        texts.append(sentence)
        n_words += len(sentence.words)
    found: list[str] = []
    answers: list[int] = []
    for sentence in texts:
        answers += [len(found) + place for place in sentence.answers]
        found += sentence.words
    return Document(tuple(found[:length]), tuple(place for place in answers if place < length))


def vocabulary() -> Tokenizer:
    """The tokenizer of all words that a document or a template may have."""
    random, habits = Random(0), Habits()
    texts = (kind(random, Names(random), habits) for kind in KINDS.values() for _ in range(400))
    return words.build([*NAMES, *PLACES, *OBJECTS, *texts])


def text_sha256(n_sentences: int = 500) -> str:
    """A hash of the first sentences of each kind that seed 0 gives: it changes with any change of the grammar."""
    random, habits = Random(0), Habits()
    texts = [kind(random, Names(random), habits) for kind in KINDS.values() for _ in range(n_sentences)]
    return hashlib.sha256("\n".join(texts).encode()).hexdigest()

"""A grammar of little stories: a few latents, and sentences whose words show them and nothing else.

A story has a topic, a mood, a main character and one or two attitudes of that character. It is a sequence of
templates whose slots are filled by words of the latents' lexicons: a topical slot with a word of the story's topic
(82 %), of none (14 %) or of any topic (4 %), a slot of mood with a word of the story's mood (95 %) or of either, a slot
of an attitude always with a word of that attitude. Every attitude of a story is shown by at least one sentence.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from random import Random

from zoo.stories_lexicon import COMMON, DIMENSIONS, MOODS, NAMES, NO_TOPIC, TOPICS, Dimension, Slots

OWN_TOPIC, ANY_TOPIC, OWN_MOOD = 0.82, 0.04, 0.95
OPENINGS = (
    "one day {hero} met {friend} .",
    "{hero} woke up early .",
    "one day {hero} went to the {place} .",
    "{hero} was a {person} .",
    "it was {time} and {hero} was {feeling} .",
    "{hero} and {friend} walked to the {place} .",
    "on a {feeling} {time} {hero} came to the {place} .",
    "{hero} lived near the {place} with {friend} .",
)
BODIES = (
    "{hero} {did} the {thing} and was {feeling} .",
    "the {person} {deed} with the {thing} .",
    "{hero} felt {feeling} at the {place} .",
    "{hero} {deed} {manner} .",
    "{hero} {reaction} and {did} the {thing} .",
    "then the {person} {reaction} {manner} .",
    "the {thing} was {size} and the {person} was {feeling} .",
    "{friend} {deed} while {hero} {reaction} .",
    "later {hero} {did} a {size} {thing} .",
    "{friend} {manner} looked for the {thing} .",
    "there was a {thing} in the {place} .",
    "the {person} came from the {place} with a {size} {thing} .",
    "{friend} was {feeling} so {hero} {reaction} .",
    "everyone at the {place} {reaction} .",
    "{hero} waited for {friend} until {time} .",
    "the {person} {deed} and the {person} {reaction} .",
    "a {feeling} {person} {deed} in the {place} .",
)
ENDINGS = (
    "{hero} {reaction} {manner} .",
    "so {hero} was {feeling} .",
    "then {hero} left the {place} and {reaction} .",
    "{hero} and {friend} {reaction} together .",
    "at {time} everyone {deed} {manner} .",
)
SHOWING: Mapping[str, tuple[str, ...]] = {
    "kindness": (
        "{hero} {kindness} {friend} .",
        "{hero} {kindness} the {person} at the {place} .",
        "{hero} {kindness} the {person} and {reaction} {manner} .",
        "{hero} {manner} {kindness} {friend} .",
    ),
    "courage": (
        "{hero} {courage} the {person} .",
        "at {time} {hero} {courage} the {person} and was {feeling} .",
        "{hero} {manner} {courage} the {person} near the {place} .",
    ),
    "honesty": (
        "{hero} spoke {honesty} to {friend} .",
        "{hero} answered the {person} {honesty} .",
        "{hero} was {feeling} and spoke {honesty} .",
    ),
    "generosity": (
        "{hero} {generosity} the {thing} .",
        "later {hero} {generosity} a {size} {thing} and {reaction} .",
        "{hero} {manner} {generosity} the {thing} .",
    ),
    "industry": (
        "{hero} {industry} all day .",
        "{hero} {industry} near the {place} while {friend} {reaction} .",
        "{hero} {manner} {industry} with {friend} .",
    ),
}


@dataclass(frozen=True)
class Latents:
    """What a story is: `attitudes` are the names of those that it shows, at most one of each dimension."""

    topic: str
    mood: str
    hero: str
    friend: str
    attitudes: tuple[str, ...]

    def has(self, value: str) -> bool:
        """Whether the story has this topic, mood or attitude."""
        return value in (self.topic, self.mood, *self.attitudes)


def draw_latents(random: Random) -> Latents:
    """Latents, each independent of the others: topic, mood, two people, one or two attitudes."""
    hero, friend = random.sample(NAMES, 2)
    shown = random.sample(DIMENSIONS, random.choice((1, 1, 2)))
    return Latents(
        topic=random.choice(tuple(TOPICS)),
        mood=random.choice(tuple(MOODS)),
        hero=hero,
        friend=friend,
        attitudes=tuple(random.choice(dimension.names) for dimension in shown),
    )


def dimension_of(attitude: str) -> Dimension:
    """The dimension of which an attitude is a name.

    Raises:
        ValueError: if there is no such attitude.
    """
    for dimension in DIMENSIONS:
        if attitude in dimension.names:
            return dimension
    known = ", ".join(name for dimension in DIMENSIONS for name in dimension.names)
    raise ValueError(f"no attitude {attitude!r}; expected one of {known}")


def fill(template: str, latents: Latents, random: Random) -> list[str]:
    """The words of a template with its slots filled."""
    return [_word(piece[1:-1], latents, random) if piece[0] == "{" else piece for piece in template.split()]


def _word(slot: str, latents: Latents, random: Random) -> str:
    if slot in ("hero", "friend"):
        return latents.hero if slot == "hero" else latents.friend
    if slot in COMMON:
        return random.choice(COMMON[slot])
    if slot in NO_TOPIC:
        return random.choice(_topical(latents.topic, random)[slot])
    if slot in MOODS[latents.mood]:
        own = random.random() < OWN_MOOD
        return random.choice(MOODS[latents.mood if own else random.choice(tuple(MOODS))][slot])
    for attitude in latents.attitudes:
        dimension = dimension_of(attitude)
        if dimension.slot == slot:
            return random.choice(dimension.words[dimension.names.index(attitude)])
    raise ValueError(f"slot {{{slot}}}: the story shows only {latents.attitudes}; draw latents with that dimension")


def _topical(topic: str, random: Random) -> Slots:
    place = random.random()
    if place < OWN_TOPIC:
        return TOPICS[topic]
    return TOPICS[random.choice(tuple(TOPICS))] if place < OWN_TOPIC + ANY_TOPIC else NO_TOPIC


def plan(latents: Latents, n_sentences: int, random: Random) -> Sequence[str]:
    """The templates of a story: those that show the attitudes among others, from three on an opening and an ending."""
    inside = n_sentences - 2 if n_sentences >= 3 else n_sentences
    slots = [dimension_of(attitude).slot for attitude in latents.attitudes]
    # Half of what room is left shows an attitude again.
    slots += [random.choice(slots) for _ in range(inside - len(slots)) if random.random() < 1 / 2]
    showing = [random.choice(SHOWING[slot]) for slot in slots]
    body = showing + [random.choice(BODIES) for _ in range(inside - len(showing))]
    random.shuffle(body)
    if n_sentences < 3:
        return body
    return [random.choice(OPENINGS), *body, random.choice(ENDINGS)]


def tell(latents: Latents, n_sentences: int, random: Random) -> list[str]:
    """The words of a story of so many sentences, or of more where its attitudes need them."""
    return [word for template in plan(latents, n_sentences, random) for word in fill(template, latents, random)]

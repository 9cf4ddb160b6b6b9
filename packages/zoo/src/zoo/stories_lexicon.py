"""The words of the little stories: what shows a story's topic, its mood and its main character's attitudes.

A latent has a name ("sea", "happy", "kind") by which headers and questions speak of it, and a lexicon of its own, by
which alone the story shows it. No word belongs to two lexicons and no name to any, so a text is scored by counting.
Nouns and adjectives that follow "a" begin with a consonant.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

PLACES, THINGS, PERSONS, DEEDS = "place", "thing", "person", "deed"
FEELINGS, MANNERS, REACTIONS = "feeling", "manner", "reaction"
Slots = Mapping[str, tuple[str, ...]]  # the words that may fill each slot of a template


@dataclass(frozen=True)
class Dimension:
    """An attitude that is one of two: the slot of the templates that show it, its two names, and the words of each."""

    slot: str
    names: tuple[str, str]
    words: tuple[tuple[str, ...], tuple[str, ...]]


def _words(text: str) -> tuple[str, ...]:
    return tuple(text.split())


def _topical(places: str, things: str, persons: str, deeds: str) -> Slots:
    words = (places, things, persons, deeds)
    return {slot: _words(each) for slot, each in zip((PLACES, THINGS, PERSONS, DEEDS), words, strict=True)}


def _moody(feelings: str, manners: str, reactions: str) -> Slots:
    words = (feelings, manners, reactions)
    return {slot: _words(each) for slot, each in zip((FEELINGS, MANNERS, REACTIONS), words, strict=True)}


def _dimension(slot: str, first: str, its_words: str, second: str, other_words: str) -> Dimension:
    return Dimension(slot, (first, second), (_words(its_words), _words(other_words)))


TOPICS: Mapping[str, Slots] = {
    "wedding": _topical(
        "chapel ballroom banquet terrace",
        "ring veil bouquet dress vow garland",
        "bride groom priest bridesmaid",
        "wed feasted toasted mingled",
    ),
    "sea": _topical(
        "harbour beach reef lighthouse",
        "ship net shell sail wave raft",
        "sailor captain pirate fisherman",
        "sailed rowed dived drifted",
    ),
    "stars": _topical(
        "moon galaxy planet crater",
        "rocket comet satellite capsule telescope meteor",
        "pilot robot martian stargazer",
        "launched orbited floated hovered",
    ),
    "farm": _topical(
        "barn field meadow stable",
        "cow tractor plough goat seed haystack",
        "farmer shepherd milkmaid rancher",
        "ploughed milked harvested sowed",
    ),
    "war": _topical(
        "trench battlefield fort camp",
        "rifle tank helmet sword bomb shield",
        "soldier general sergeant prisoner",
        "fought marched retreated attacked",
    ),
    "school": _topical(
        "classroom library hallway playground",
        "book pencil lesson chalk desk test",
        "teacher pupil principal classmate",
        "studied recited wrote revised",
    ),
    "kitchen": _topical(
        "bakery pantry cellar diner",
        "soup knife loaf spoon recipe pot",
        "chef baker waiter butcher",
        "cooked baked fried roasted",
    ),
    "band": _topical(
        "concert stage theatre studio",
        "violin drum song piano flute guitar",
        "singer drummer conductor dancer",
        "sang strummed hummed rehearsed",
    ),
}
NO_TOPIC: Slots = _topical(
    "street house road garden", "box hat cup letter bag coin", "man woman child neighbour", "stood paused sat talked"
)
MOODS: Mapping[str, Slots] = {
    "happy": _moody(
        "glad cheerful joyful proud delighted merry",
        "merrily brightly warmly gladly",
        "smiled laughed danced cheered grinned",
    ),
    "sad": _moody(
        "gloomy lonely miserable tearful hopeless sorrowful",
        "mournfully bitterly wearily gloomily",
        "cried sighed wept sobbed frowned",
    ),
}
DIMENSIONS: tuple[Dimension, ...] = (
    _dimension(
        "kindness",
        *("kind", "helped comforted praised forgave encouraged thanked"),
        *("mean", "mocked pushed insulted scolded teased bullied"),
    ),
    _dimension(
        "courage",
        *("brave", "defied challenged confronted rescued faced guarded"),
        *("timid", "avoided feared fled dodged evaded dreaded"),
    ),
    _dimension(
        "honesty",
        *("honest", "truthfully frankly sincerely openly candidly directly"),
        *("sly", "falsely slyly deceitfully evasively craftily trickily"),
    ),
    _dimension(
        "generosity",
        *("generous", "shared offered lent donated gave served"),
        *("greedy", "kept hoarded grabbed snatched seized pocketed"),
    ),
    _dimension(
        "industry",
        *("busy", "worked toiled laboured practised hurried struggled"),
        *("lazy", "slept dozed idled lounged napped loitered"),
    ),
)
NAMES: tuple[str, ...] = _words(
    "alice anna ben bert carl clara clem dan david dora edith emil emma felix frank fred grace greta harry hugo ida "
    "iris ivan jack jane jonas karl kate lena leo lily lucy max mia nina nora oscar paul peter rosa ruth sam simon "
    "sofia tom vera will zoe"
)
COMMON: Slots = {
    "did": _words("saw found took wanted watched liked lost opened"),
    "size": _words("new small big red blue strange"),
    "time": _words("dawn noon dusk night"),
}


def topic_words() -> dict[str, str]:
    """The topic of every topical word."""
    return {word: topic for topic, slots in TOPICS.items() for each in slots.values() for word in each}


def mood_words() -> dict[str, str]:
    """The mood of every word that shows one."""
    return {word: mood for mood, slots in MOODS.items() for each in slots.values() for word in each}


def attitude_words() -> dict[str, str]:
    """The attitude of every word that shows one."""
    return {
        word: name for each in DIMENSIONS for name, words in zip(each.names, each.words, strict=True) for word in words
    }


def shown_words() -> frozenset[str]:
    """Every word that shows a topic, a mood or an attitude."""
    return frozenset({*topic_words(), *mood_words(), *attitude_words()})


def contraries() -> dict[str, str]:
    """The contrary of every attitude and mood."""
    pairs = [*(dimension.names for dimension in DIMENSIONS), tuple(MOODS)]
    return {one: other for first, second in pairs for one, other in ((first, second), (second, first))}


def word_classes() -> dict[str, str]:
    """The slot that each word fills, for every word of a lexicon, every person's name and every latent's name."""
    classes = {
        word: slot
        for slots in (*TOPICS.values(), NO_TOPIC, *MOODS.values(), COMMON)
        for slot in slots
        for word in slots[slot]
    }
    classes |= {word: each.slot for each in DIMENSIONS for words in each.words for word in words}
    classes |= dict.fromkeys(NAMES, "name")
    classes |= dict.fromkeys(TOPICS, "topic") | dict.fromkeys(MOODS, "mood")
    return classes | {name: "attitude" for each in DIMENSIONS for name in each.names}

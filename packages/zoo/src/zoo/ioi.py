"""Indirect objects: the names, places, objects and templates of the models that read them.

A template holds two people {X} and {Y}, of whom one, {S}, is named again as the giver, and ends where the other follows
("Then, Mary and John went to the store. John gave a drink to" -> "Mary"), as in Wang et al. 2022, section 2. {P} is a
place, {O} an object. Training reads the templates that openings and endings in common make up; the held-out ones are
made of words that training reads, in phrases that it does not.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache


@dataclass(frozen=True)
class Template:
    """A text with gaps {X} {Y} {S} {P} {O} up to where the answer follows, and whether no training text has it."""

    text: str
    held_out: bool = False


NAMES: tuple[str, ...] = (
    *("Mary", "John", "Anna", "Paul", "Lisa", "Mark", "Emma", "James", "Sarah", "David"),
    *("Laura", "Peter", "Julia", "Simon", "Kate", "Adam", "Alice", "Carl", "Jane", "Frank"),
    *("Rachel", "Henry", "Nina", "Kevin", "Ruth", "Oscar", "Helen", "Victor", "Grace", "Martin"),
    *("Clara", "George", "Diana", "Philip", "Ellen", "Samuel", "Fiona", "Robert", "Holly", "Thomas"),
    *("Irene", "William", "Joan", "Alan", "Karen", "Brian", "Linda", "Chris", "Maria", "Edward"),
    *("Nora", "Hugo", "Olga", "Ivan", "Paula", "Leo", "Rosa", "Max", "Sonia", "Felix"),
    *("Tina", "Neil", "Vera", "Owen", "Wendy", "Ralph", "Zoe", "Steve", "Beth", "Daniel"),
    *("Carol", "Eric", "Daisy", "Greg", "Eva", "Ian", "Hannah", "Jack", "Iris", "Luke"),
    *("Jill", "Matthew", "Kelly", "Nick", "Lucy", "Oliver", "Megan", "Patrick", "Nancy", "Roger"),
    *("Peggy", "Stephen", "Rita", "Tom", "Susan", "Walter", "Amy", "Andrew", "Gina", "Colin"),
)
PLACES: tuple[str, ...] = (
    *("store", "garden", "restaurant", "school", "hospital", "office", "house", "station", "park", "beach"),
    *("museum", "library", "market", "church", "cinema", "hotel", "farm", "bakery", "bank", "harbour"),
    *("forest", "lake", "castle", "theatre", "stadium", "airport", "zoo", "kitchen", "bridge", "workshop"),
)
OBJECTS: tuple[str, ...] = (
    *("ring", "drink", "bone", "computer", "necklace", "snack", "book", "letter", "ticket", "hat"),
    *("coat", "lamp", "cup", "plate", "knife", "spoon", "pen", "map", "key", "phone"),
    *("camera", "guitar", "watch", "scarf", "flower", "toy", "ball", "box", "basket", "candle"),
    *("mirror", "blanket", "coin", "bottle", "cake", "shoe", "bag", "kite", "stamp", "violin"),
)

_OPENINGS = (
    "Then, {X} and {Y} went to the {P}.",
    "Then, {X} and {Y} had a lot of fun at the {P}.",
    "Yesterday {X} and {Y} were working at the {P}.",
    "Then, {X} and {Y} were thinking about going to the {P}.",
    "After {X} and {Y} went to the {P},",
    "While {X} and {Y} were working at the {P},",
    "When {X} and {Y} had a long day at the {P},",
)
_ENDINGS = ("{S} gave a {O} to", "{S} decided to give a {O} to", "{S} wanted to hand a {O} to")
_OPENINGS_WITH_OBJECT = (
    "The friends {X} and {Y} found a {O} at the {P}.",
    "When {X} and {Y} got a {O} at the {P},",
    "After {X} and {Y} bought a {O} at the {P},",
    "Yesterday {X} and {Y} saw a {O} at the {P}.",
)
_ENDINGS_AFTER_OBJECT = ("{S} gave it to", "{S} decided to give the {O} to")
_HELD_OUT = (
    "While {X} and {Y} were going to the {P}, {S} gave a {O} to",
    "After a long day {X} and {Y} went to the {P}. {S} decided to give a {O} to",
    "The {P} {X} and {Y} went to had a {O}. {S} gave it to",
    "Then, {X} and {Y} were working at the {P}. Later {S} wanted to give a {O} to",
    "When {X} and {Y} found a {O} at the {P}, {S} decided to hand it to",
)
TEMPLATES: tuple[Template, ...] = (
    *(Template(f"{opening} {ending}") for opening in _OPENINGS for ending in _ENDINGS),
    *(Template(f"{opening} {ending}") for opening in _OPENINGS_WITH_OBJECT for ending in _ENDINGS_AFTER_OBJECT),
    *(Template(text, held_out=True) for text in _HELD_OUT),
)
_EVERY = 10  # one pair in so many is held out


def held_out_pair(a: str, b: str) -> bool:
    """Whether no training sentence has both names, in whichever order: so it is for one pair in ten.

    Raises:
        ValueError: if one of them is no name of the models, or both are the same.
    """
    places = _places()
    for name in (a, b):
        if name not in places:
            raise ValueError(f"no name {name!r}; expected one of zoo.ioi.NAMES: {NAMES[0]}, {NAMES[1]}, ...")
    if a == b:
        raise ValueError(f"a pair of {a!r} and itself; expected two different names")
    return (places[a] + places[b]) % _EVERY == 0


@cache
def _places() -> dict[str, int]:
    return {name: place for place, name in enumerate(NAMES)}

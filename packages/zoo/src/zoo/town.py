"""The town: relations over one common set of people, the primary tasks of the in-context models.

Each relation r is a one-to-one map of the people onto themselves, f_r(x) != x, and no two relations agree anywhere,
f_r(x) != f_s(x). So every name is a question and an answer of every relation equally often: which class of word
an answer belongs to says nothing about the task, only the demonstrations do, and any right one is enough. A model that
guesses without them is right in one case of `len(RELATIONS)` at best, averaged over the relations.

The maps are drawn from a seed and written to `shared/data/town/NAME.json` in the format of the public function-vectors
datasets, a JSON list of `{"input": ..., "output": ...}`. `python -m zoo.town` writes them again.
"""

from __future__ import annotations

import json
import random
from collections.abc import Mapping
from pathlib import Path

from zoo.catalogue import shared_folder

FOLDER = "data/town"
SEED = 0
NAMES = (
    *("Ada", "Alan", "Amy", "Anna", "Ben", "Bert", "Carl", "Clara", "David", "Dora"),
    *("Edith", "Emil", "Emma", "Felix", "Flora", "Fred", "George", "Greta", "Hugo", "Henry"),
    *("Ida", "Ivan", "Jack", "Jane", "Kate", "Kurt", "Laura", "Leo", "Lucy", "Martin"),
    *("Nina", "Nora", "Oscar", "Paul", "Peter", "Ruth", "Simon", "Sophie", "Thomas", "Vera"),
)
RELATIONS = (
    *("friend_of", "teacher_of", "neighbour_of", "doctor_of", "cousin_of", "partner_of"),
    *("mentor_of", "rival_of", "landlord_of", "barber_of", "coach_of", "lawyer_of"),
)
Relation = Mapping[str, str]


class TownError(RuntimeError):
    """A file of the town that is missing or is not what the town's seed gives."""


def word(relation: str) -> str:
    """The word by which sentences name a relation: `friend` for `friend_of`."""
    return relation.removesuffix("_of")


def draw(seed: int = SEED) -> dict[str, Relation]:
    """The maps of all relations, by name; every map lists the people in the order of `NAMES`."""
    generator = random.Random(seed)
    taken = {name: {name} for name in NAMES}
    maps: dict[str, Relation] = {}
    for relation in RELATIONS:
        outputs = list(NAMES)
        generator.shuffle(outputs)
        for place, name in enumerate(NAMES):
            while outputs[place] in taken[name]:
                other = generator.randrange(len(NAMES))
                mine, theirs = outputs[place], outputs[other]
                if theirs not in taken[name] and mine not in taken[NAMES[other]]:
                    outputs[place], outputs[other] = theirs, mine
        maps[relation] = dict(zip(NAMES, outputs, strict=True))
        for name, output in maps[relation].items():
            taken[name].add(output)
    return maps


def as_json(relation: Relation) -> str:
    """The text of a relation's file: one pair a line."""
    lines = (json.dumps({"input": name, "output": output}) for name, output in relation.items())
    return "[\n  " + ",\n  ".join(lines) + "\n]\n"


def write(folder: Path) -> None:
    """Write every relation's file."""
    folder.mkdir(parents=True, exist_ok=True)
    for name, relation in draw().items():
        (folder / f"{name}.json").write_text(as_json(relation), encoding="utf-8")


def load(folder: Path | None = None) -> dict[str, Relation]:
    """The shipped relations by name, in the order of `RELATIONS`.

    Raises:
        TownError: if a file is missing, or its content is not that of the town's seed.
    """
    folder = folder or shared_folder() / FOLDER
    maps = draw()
    for name, relation in maps.items():
        path = folder / f"{name}.json"
        if not path.exists():
            raise TownError(f"{path}: no such file; restore it, or write it again with `python -m zoo.town`")
        if path.read_text(encoding="utf-8") != as_json(relation):
            raise TownError(
                f"{path}: expected the pairs that seed {SEED} draws, found others; restore it, or write it again with "
                "`python -m zoo.town`"
            )
    return maps


if __name__ == "__main__":
    write(shared_folder() / FOLDER)

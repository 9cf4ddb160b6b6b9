"""Tasks on lists of three words: which of them is asked for, or whose relative, and the sentences that say so.

selected   "Anna, Bert, Clara" -> the first, the middle or the last of them
related    the first or the last, or its relative by one relation: what composes two tasks (Todd et al. 2024,
           section 3.3)
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

ListKind = Literal["selected", "related"]
LIST = "{x}, {a}, {b}"


@dataclass(frozen=True)
class ListTasks:
    """`selections` are the words that name a place and that place; `naming` are sentences, of which the first
    `n_of_words` ask for a word itself and the others for a relative."""

    selections: tuple[tuple[str, int], ...]
    naming: tuple[str, ...]
    n_of_words: int = 2

    @property
    def words(self) -> list[str]:
        return [word for word, _ in self.selections]


_OF_WORDS = ("The {s} of {x}, {a}, {b} is {y}.", "Of {x}, {a}, {b} the {s} is {y}.")
_OF_RELATIVES = ("The {r} of the {s} of {x}, {a}, {b} is {y}.", "Of {x}, {a}, {b} the {s} has a {r} called {y}.")
LIST_TASKS: dict[ListKind, ListTasks] = {
    "selected": ListTasks((("first", 0), ("middle", 1), ("last", 2)), _OF_WORDS),
    "related": ListTasks((("first", 0), ("last", 2)), (*_OF_WORDS, *_OF_RELATIVES)),
}

"""Sentences of indirect object identification: drawn from templates by seed, and corrupted.

p_IOI (Wang et al. 2022, section 2 and appendix E): a template, one of the two orders of its names, a pair of names, a
place and an object. Templates and orders come in equal numbers, in a drawn order; the rest is uniform, and no sentence
comes twice.

A corrupted sentence differs from its own in names alone, so that tokens align wherever every name is one token:

| | first clause | S2 | signals at S2 (appendix A) |
|---|---|---|---|
| a sentence, as ABBA | A B | B | |
| `abc`: p_ABC, three unrelated names (section 2.1) | C D | E | none is repeated |
| `random_names`: each name by another | C D | D | position kept, token unrelated |
| `swapped_order`: IO and S1 change places | B A | B | position inverted, token kept |
| `swapped_roles`: S2 becomes the IO name | A B | A | both inverted: the answer flips |

They compose: `swapped_order` of `swapped_roles` keeps the position and inverts the token.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cache
from itertools import product
from random import Random
from string import Formatter
from typing import Literal

Order = Literal["ABBA", "BABA"]
ORDERS: tuple[Order, Order] = ("ABBA", "BABA")
_NAME = re.compile(r"\w+")


class PromptError(ValueError):
    """Sentences that cannot be drawn, or that a tokenizer cannot show to a model."""


@dataclass(frozen=True)
class Sentence:
    """One prompt as words, before any tokenizer.

    Args:
        text: without the answer: "... John gave a drink to".
        io, subject: names, without a space; each is a single word.
        template: index into the material's templates; both orders of a template share it.
        order: "ABBA" where the first clause names IO first, "BABA" where it names S first.
        spans: where names begin, in characters: "IO", "S1", "S2", and "EXTRA" where one is named in a remark (see
            `remarks`). In a text of `abc` a third name stands at "S2".
        pool: names that a corruption may put there; where it is empty, those of the sentences that it is given.
    """

    text: str
    io: str
    subject: str
    template: int
    order: Order
    spans: Mapping[str, int]
    pool: tuple[str, ...] = field(default=(), repr=False, compare=False)

    def name_at(self, span: str) -> str:
        """The name that stands there."""
        found = _NAME.match(self.text, self.spans[span])
        assert found is not None
        return found[0]


def check_template(template: str) -> None:
    """Raises PromptError, unless {X}, {Y} and behind them {S} are there once each, and else but {P} and {O}."""
    gaps = _gaps(template)
    people = [gap for gap in gaps if gap not in ("P", "O")]
    if people not in (["X", "Y", "S"], ["Y", "X", "S"]):
        raise PromptError(
            f"template {template!r} has the gaps {gaps}: expected X and Y and then S, once each, and no other than "
            f"P and O; mend the template"
        )


def fill(template: str, words: Mapping[str, str]) -> tuple[str, dict[str, int]]:
    """The text of a template, and where each gap's word begins first."""
    text, begins = "", dict[str, int]()
    for literal, gap in _parts(template):
        text += literal
        if gap is not None:
            begins.setdefault(gap, len(text))
            text += words[gap]
    return text, begins


def count(templates: Mapping[int, str], n_pairs: int, n_places: int, n_objects: int) -> int:
    """How many sentences there are; `n_pairs` of IO and S, in either role."""
    sizes = {"P": n_places, "O": n_objects}
    total = 0
    for template in templates.values():
        size = len(ORDERS) * n_pairs
        for gap in set(_gaps(template)) & sizes.keys():
            size *= sizes[gap]
        total += size
    return total


def stream(
    templates: Mapping[int, str],
    pairs: Sequence[tuple[str, str]],
    places: Sequence[str],
    objects: Sequence[str],
    *,
    seed: int | str,
    pool: tuple[str, ...] = (),
) -> Iterator[Sentence]:
    """Sentences of p_IOI, one at a time, until there is none left.

    Args:
        templates: by the index that the sentences shall have.
        pairs: of IO and S.
        pool: the names from which corruptions of the sentences take theirs.

    Raises:
        PromptError: a template has other gaps than it should.
    """
    for template in templates.values():
        check_template(template)
    random = Random(seed)
    left = {
        (index, order): count({index: text}, len(pairs), len(places), len(objects)) // len(ORDERS)
        for (index, text), order in product(templates.items(), ORDERS)
    }
    told: set[str] = set()
    while cells := [cell for cell, number in left.items() if number]:
        random.shuffle(cells)
        for index, order in cells:
            while True:
                io, subject = random.choice(pairs)
                words = {"P": random.choice(places), "O": random.choice(objects), "S": subject}
                words["X"], words["Y"] = (io, subject) if order == "ABBA" else (subject, io)
                text, begins = fill(templates[index], words)
                if text not in told:
                    break
            told.add(text)
            left[index, order] -= 1
            first, second = ("IO", "S1") if order == "ABBA" else ("S1", "IO")
            spans = {first: begins["X"], second: begins["Y"], "S2": begins["S"]}
            yield Sentence(text, io, subject, index, order, spans, pool)


def abc(sentences: Sequence[Sentence], seed: int) -> tuple[Sentence, ...]:
    """p_ABC: unrelated names in all places, none of them in the sentence; `io` and `subject` are those at IO and S1.

    Raises:
        PromptError: the pool has too few names.
    """
    random, found = Random(f"{seed}/abc"), []
    for sentence, pool in _with_pools(sentences):
        spans = sorted(sentence.spans)
        names = dict(zip(spans, _unrelated(sentence, pool, len(spans), random), strict=True))
        found.append(replace(_renamed(sentence, names), io=names["IO"], subject=names["S1"]))
    return tuple(found)


def random_names(sentences: Sequence[Sentence], seed: int) -> tuple[Sentence, ...]:
    """Each name replaced, wherever it stands, by one that is not in the sentence.

    Raises:
        PromptError: the pool has too few names.
    """
    random, found = Random(f"{seed}/names"), []
    for sentence, pool in _with_pools(sentences):
        own = sorted({sentence.name_at(span) for span in sentence.spans})
        other = dict(zip(own, _unrelated(sentence, pool, len(own), random), strict=True))
        renamed = _renamed(sentence, {span: other[sentence.name_at(span)] for span in sentence.spans})
        found.append(replace(renamed, io=other[sentence.io], subject=other[sentence.subject]))
    return tuple(found)


def swapped_order(sentences: Sequence[Sentence], seed: int = 0) -> tuple[Sentence, ...]:
    """IO and S1 change places; nothing is drawn, the seed is there because all corruptions take one.

    The order flips and "IO" and "S1" are where the names now stand: patch at the columns of the clean sentences.
    """
    found = []
    for sentence in sentences:
        names = {span: sentence.name_at(span) for span in sentence.spans}
        found.append(_exchanged(_renamed(sentence, {**names, "IO": sentence.subject, "S1": sentence.io})))
    return tuple(found)


def swapped_roles(sentences: Sequence[Sentence], seed: int = 0) -> tuple[Sentence, ...]:
    """S2 becomes the IO name, so that the answer is the other name; nothing is drawn, as in `swapped_order`.

    `io`, `subject`, `order` and `spans` are those of the new text: patch at the columns of the clean sentences.
    """
    found = []
    for sentence in sentences:
        names = {span: sentence.name_at(span) for span in sentence.spans}
        renamed = _exchanged(_renamed(sentence, {**names, "S2": sentence.io}))
        found.append(replace(renamed, io=sentence.subject, subject=sentence.io))
    return tuple(found)


@cache
def _parts(template: str) -> tuple[tuple[str, str | None], ...]:
    return tuple((literal, gap) for literal, gap, _, _ in Formatter().parse(template))


def _gaps(template: str) -> list[str]:
    return [gap for _, gap in _parts(template) if gap is not None]


def _with_pools(sentences: Sequence[Sentence]) -> Iterator[tuple[Sentence, Sequence[str]]]:
    shown = sorted({sentence.name_at(span) for sentence in sentences for span in sentence.spans})
    return ((sentence, sentence.pool or shown) for sentence in sentences)


def _unrelated(sentence: Sentence, pool: Sequence[str], n: int, random: Random) -> list[str]:
    own = {sentence.name_at(span) for span in sentence.spans}
    others = [name for name in pool if name not in own]
    if len(others) < n:
        raise PromptError(
            f"{sentence.text!r}: {len(others)} other names to take from, expected at least {n}; draw more sentences "
            f"together, or from material with more names"
        )
    return random.sample(others, n)


def _renamed(sentence: Sentence, names: Mapping[str, str]) -> Sentence:
    text, behind, spans = "", 0, dict[str, int]()
    for span, begin in sorted(sentence.spans.items(), key=lambda item: item[1]):
        text += sentence.text[behind:begin]
        spans[span] = len(text)
        text += names[span]
        behind = begin + len(sentence.name_at(span))
    return replace(sentence, text=text + sentence.text[behind:], spans=spans)


def _exchanged(sentence: Sentence) -> Sentence:
    """The same text, with the name at S1 as IO and that at IO as S1."""
    spans = {**sentence.spans, "IO": sentence.spans["S1"], "S1": sentence.spans["IO"]}
    return replace(sentence, spans=spans, order=ORDERS[sentence.order == "ABBA"])

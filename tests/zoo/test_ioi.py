"""Names, templates and held-out pairs of the models of indirect objects."""

from __future__ import annotations

from collections import Counter
from itertools import combinations
from string import Formatter

import pytest

from zoo import ioi
from zoo.ioi_text import vocabulary
from zoo.words import UNKNOWN_ID, split

TRAINED = [template.text for template in ioi.TEMPLATES if not template.held_out]
HELD_OUT = [template.text for template in ioi.TEMPLATES if template.held_out]


def gaps(text: str) -> list[str]:
    return [name for _, name, _, _ in Formatter().parse(text) if name]


def fixed(text: str) -> set[str]:
    """The words of a template that no gap fills."""
    return {word for literal, *_ in Formatter().parse(text) for word in split(literal)}


def test_every_word_of_a_gap_is_one_token_and_fills_one_gap_alone() -> None:
    tokenizer = vocabulary()
    every = [*ioi.NAMES, *ioi.PLACES, *ioi.OBJECTS]
    assert (len(ioi.NAMES), [word for word, n in Counter(every).items() if n > 1]) == (100, [])
    for word in every:
        (token,) = tokenizer.encode(word).ids
        assert token != UNKNOWN_ID
        assert tokenizer.encode(f"to {word}").ids[1:] == [token]
    assert [word for word in ioi.OBJECTS if word[0] in "aeiou"] == []  # they follow "a"
    assert not set(every) & set().union(*(fixed(template.text) for template in ioi.TEMPLATES))


def test_a_template_names_both_people_then_the_giver_and_ends_before_the_answer() -> None:
    for template in ioi.TEMPLATES:
        found = gaps(template.text)
        assert [gap for gap in found if gap in "XYS"] == ["X", "Y", "S"], template
        assert set(found) == {"X", "Y", "S", "P", "O"}, template
        assert template.text.endswith(" to")
        assert template.text == " ".join(template.text.split())


def test_held_out_templates_are_new_phrases_of_words_that_training_reads() -> None:
    assert len(TRAINED) >= 25
    assert len(HELD_OUT) >= 3
    assert len({*TRAINED, *HELD_OUT}) == len(ioi.TEMPLATES)
    known = set().union(*map(fixed, TRAINED))
    for text in HELD_OUT:
        assert fixed(text) <= known | {"Later"}, text  # a time that training sets before some givers
        opening, ending = text.split("{S}")
        openings, endings = ({each.split("{S}")[part] for each in TRAINED} for part in (0, 1))
        assert opening not in openings or ending not in endings


def test_a_tenth_of_the_pairs_is_held_out_in_either_order_and_for_every_name() -> None:
    held_out = [pair for pair in combinations(ioi.NAMES, 2) if ioi.held_out_pair(*pair)]
    assert len(held_out) / (100 * 99 / 2) == pytest.approx(0.1, abs=0.002)
    assert all(ioi.held_out_pair(b, a) for a, b in held_out)
    partners = Counter(name for pair in held_out for name in pair)
    assert {partners[name] for name in ioi.NAMES} == {9, 10}


def test_pairs_that_are_none_are_refused() -> None:
    with pytest.raises(ValueError, match=r"^no name 'Zorro'; expected one of zoo\.ioi\.NAMES: Mary, John, \.\.\.$"):
        ioi.held_out_pair("Mary", "Zorro")
    with pytest.raises(ValueError, match=r"^a pair of 'Mary' and itself; expected two different names$"):
        ioi.held_out_pair("Mary", "Mary")

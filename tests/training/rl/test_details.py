"""The table of the 37 details is complete, and every field that it names is there."""

from __future__ import annotations

from collections import Counter
from dataclasses import fields

from training.rl import DETAILS, AtariOptions, Settings


def test_the_counts_are_those_of_the_source() -> None:
    counts = Counter(detail.group for detail in DETAILS)
    assert counts == {"core": 13, "Atari": 9, "continuous": 9, "LSTM": 5, "multi-discrete": 1, "further": 4}
    assert len({(detail.group, detail.name) for detail in DETAILS}) == len(DETAILS)


def test_every_detail_that_applies_is_built_and_says_by_what() -> None:
    known = {field.name for field in fields(Settings)}
    named = {name for detail in DETAILS for name in detail.fields}
    assert named <= known
    assert known - named == {"total_steps", "learning_rate"}
    options = [name for detail in DETAILS for name in detail.options]
    assert sorted(options) == sorted(field.name for field in fields(AtariOptions))
    for detail in DETAILS:
        assert detail.fields or detail.options or detail.elsewhere
        assert detail.built == ("masks" not in detail.name)

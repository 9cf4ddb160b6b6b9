"""Texts about people and what they are like: their words, their sentences, questions with letters.

people.sentence("anna", "kind", Random(0)), people.question("brave", "kind"), people.grammatical_share(text)
"""

from __future__ import annotations

from zoo.people_text import (
    ATTITUDES,
    FOR,
    LETTERS,
    NAMES,
    THINGS,
    VALUES,
    Document,
    Mixture,
    draw,
    grammatical_share,
    question,
    sentence,
    vocabulary,
)

__all__ = [
    "ATTITUDES",
    "FOR",
    "LETTERS",
    "NAMES",
    "THINGS",
    "VALUES",
    "Document",
    "Mixture",
    "draw",
    "grammatical_share",
    "question",
    "sentence",
    "vocabulary",
]

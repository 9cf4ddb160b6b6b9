"""The documents that the story models read, as words: headers, stories, questions before and after them.

Two kinds of documents. A story of five to nine sentences: 40 % begin with a header in words that names one or
two of its latents, 20 % with a question that is answered in advance, so that the story must follow the answer; some end
with questions. A short story of one to four sentences with a question about each thing that it shows, five at
most: where the letters are learnt.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from random import Random

from tokenizers import Tokenizer

from zoo import words
from zoo.stories_grammar import BODIES, ENDINGS, OPENINGS, SHOWING, Latents, draw_latents, tell
from zoo.stories_lexicon import word_classes
from zoo.stories_questions import ALL_FORMS, ANSWER, OPTIONS, Forms, StoryQuestion, draw_question, visible

HEADERS = (
    "a story about the {topic} .",
    "this is a tale of the {topic} .",
    "a {mood} story .",
    "a {mood} story .",
    "a {mood} story about the {topic} .",
    "topic : {topic} . mood : {mood} .",
    "a story about {attitude} {name} .",
    "this is a tale of {attitude} {name} .",
    "a {mood} tale of {attitude} {name} .",
)
QUESTIONS = (
    "is the story about the {topic} ?",
    "is the story about the {topic} or the {topic} ?",
    "is the story {mood} ?",
    "is the story {mood} or {mood} ?",
    "is {name} {attitude} ?",
    "is {name} {attitude} or {attitude} ?",
)
HEADED, ASKED_BEFORE = 0.4, 0.2


@dataclass(frozen=True)
class Document:
    """Words, and the places of those that answer a question."""

    words: tuple[str, ...]
    answers: tuple[int, ...]
    latents: Latents


def header(latents: Latents, random: Random) -> str:
    """A sentence that names one or two of the latents."""
    return random.choice(HEADERS).format(
        topic=latents.topic, mood=latents.mood, name=latents.hero, attitude=random.choice(latents.attitudes)
    )


class _Writer:
    """Words as they are put together, and where the answers are among them."""

    def __init__(self) -> None:
        self.words: list[str] = []
        self.answers: list[int] = []

    def ask(self, question: StoryQuestion, latents: Latents) -> None:
        self.words += question.text(latents.hero).split()
        self.answers.append(len(self.words))
        answer = question.answer(latents)
        self.words += [answer, *question.after_answer(answer).split()]

    def document(self, latents: Latents) -> Document:
        return Document(tuple(self.words), tuple(self.answers), latents)


def story_document(random: Random, forms: Forms = ALL_FORMS) -> Document:
    """A story, often with a header or a question before it, and up to two questions after it."""
    latents, writer, kind = draw_latents(random), _Writer(), random.random()
    asked: list[str] = []
    if kind < HEADED:
        writer.words += header(latents, random).split()
    elif kind < HEADED + ASKED_BEFORE:
        asked = [random.choice((latents.topic, latents.mood, *latents.attitudes, *latents.attitudes))]
        writer.ask(draw_question(asked[0], random, forms), latents)
    story = tell(latents, random.randint(5, 9), random)
    writer.words += story
    for value in _some(visible(story, latents), random.choice((0, 0, 1, 2)), random):
        writer.ask(draw_question(value, random, forms), latents)
    return writer.document(latents)


def question_document(random: Random, forms: Forms = ALL_FORMS) -> Document:
    """A short story and up to five questions, each about another thing that it shows."""
    latents, writer = draw_latents(random), _Writer()
    writer.words += tell(latents, random.randint(1, 4), random)
    shown = visible(writer.words, latents)
    for value in _some(shown, random.randint(3, 5), random):
        writer.ask(draw_question(value, random, forms), latents)
    return writer.document(latents)


def _some(values: tuple[str, ...], n: int, random: Random) -> list[str]:
    return random.sample(values, min(n, len(values)))


def vocabulary() -> Tokenizer:
    """The tokenizer of all words that a document may have."""
    templates = (*OPENINGS, *BODIES, *ENDINGS, *(each for shown in SHOWING.values() for each in shown), *HEADERS)
    questions = (*QUESTIONS, OPTIONS, ANSWER, "yes no")
    fixed = (piece for text in (*templates, *questions) for piece in text.split() if piece[0] != "{")
    return words.build([*fixed, *word_classes()])


def text_sha256(n_documents: int = 1_000) -> str:
    """A hash of the first documents of both kinds that seed 0 gives: it changes with any change of the grammar."""
    random = Random(0)
    texts = [" ".join(kind(random).words) for _ in range(n_documents) for kind in (story_document, question_document)]
    return hashlib.sha256("\n".join(texts).encode()).hexdigest()

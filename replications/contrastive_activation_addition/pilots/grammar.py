"""The pilots' grammar: a text about people, two questions, a place that says of whom, and the letters of the answers.

    BEGIN  anna helps  carl kind  carl mocks   A brave B kind   B lazy A kind   anna  B A
           [ text: person, what they show  ]   [ first      ]   [ second    ]   place letters

Every word is a token. A value is a name and some words that show it. The options of the first question are the value
and another one, a random pair in random order; later questions have the value and that other one, or one of the two and
a third. So a letter follows from the value, wherever the value was said: by the text, if the place holds a person of
whom it tells; by the place itself, if that holds a name or a word of the value; or, if neither says it, by the letters
before. Of the other people the text says the value as often as the other option, so that its being mentioned tells
nothing.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import numpy as np
import torch
from jaxtyping import Bool, Int
from numpy.typing import NDArray
from replications.contrastive_activation_addition.pilots.settings import Mixture, Settings
from torch import Tensor

A, B = 2, 3  # 0 begins a text; 1 means nothing, but without it the pilots of the README had begun from other weights
NAMES = 4
OPTION_WORDS = 4  # letter, option, letter, option
AGAINST = 0.4  # share of texts in which something may speak against the value as well

Said = Literal["none", "name", "word", "person", "any"]
NUMBER: dict[Said, int] = {"none": 0, "name": 1, "word": 2, "person": 3}


@dataclass(frozen=True)
class Rows:
    """Texts.

    Attributes:
        letters: 0 for A, 1 for B; chance where not `decided`.
        decided: whether something before a letter says which it is.
        value, other: the options of the first question, the right one first.
        named: whether an answer may be given by the value's name as well: all decided ones, and the first.
    """

    tokens: Int[Tensor, "row place"]
    letters: Int[Tensor, "row question"]
    decided: Bool[Tensor, "row question"]
    options: NDArray[np.int_]
    value: NDArray[np.int_]
    other: NDArray[np.int_]

    @property
    def named(self) -> Bool[Tensor, "row question"]:
        named = self.decided.clone()
        named[:, 0] = True
        return named


class Grammar:
    """Draws texts; `place` is where the first letter is chosen, `text` and `question(i)` are places too."""

    def __init__(self, settings: Settings) -> None:
        self.settings = settings
        self.shown = NAMES + settings.values
        self.people = self.shown + settings.values * settings.words
        self.vocabulary = self.people + settings.people
        self.text = range(1, 1 + 2 * settings.sentences)
        self.place = self.text.stop + OPTION_WORDS * settings.questions
        self.width = self.place + 1 + settings.questions

    def question(self, number: int) -> range:
        """Where the letters and options of a question stand."""
        start = self.text.stop + OPTION_WORDS * number
        return range(start, start + OPTION_WORDS)

    def draw(
        self,
        rng: np.random.Generator,
        n: int,
        mixture: Mixture | None = None,
        *,
        said: Said | None = None,
        value: int | None = None,
        swapped: bool | None = None,
    ) -> Rows:
        """`n` texts.

        Args:
            mixture: how often each kind comes; the settings' full one unless given.
            said: what says the value before the first letter: nothing, its name or a word at the place, the text about
                the person at the place, or any of these; as the mixture has it unless given.
            value: the right option of the first question; drawn unless given.
            swapped: whether that option is the first question's B; drawn unless given.
        """
        s, mixture = self.settings, mixture or self.settings.full
        order = np.argsort(rng.random((n, s.values)), axis=1)
        right = order[:, 0] if value is None else np.full(n, value)
        other = (right + rng.integers(1, s.values, n)) % s.values
        options, has = self._options(rng, right, other, swapped)
        letters = np.where(options[:, :, 0] == right[:, None], 0, 1)
        letters = np.where(has, letters, rng.integers(0, 2, letters.shape))
        people = np.argsort(rng.random((n, s.people)), axis=1)[:, :3]  # the first is asked about
        kind = rng.choice((1, 2, 3), n, p=mixture.kinds)
        if said is None:
            kind = np.where(rng.random(n) < mixture.decided, kind, 0)
        elif said != "any":
            kind = np.full(n, NUMBER[said])
        pro, con = self._counts(rng, kind, mixture.against if said is None else None)
        if said == "person":
            con = np.zeros_like(con)
        of, shows = self._sentences(rng, pro, con, right, other, people)
        word = self.shown + right * s.words + rng.integers(0, s.words, n)
        person = self.people + people[:, 0]
        tokens = np.zeros((n, self.width), int)
        tokens[:, self.text.start : self.text.stop : 2] = self.people + of
        tokens[:, self.place] = np.choose(kind, [person, NAMES + right, word, person])
        by_name = rng.random(shows.shape) < 0.5
        words = self.shown + shows * s.words + rng.integers(0, s.words, shows.shape)
        tokens[:, self.text.start + 1 : self.text.stop : 2] = np.where(by_name, NAMES + shows, words)
        for number in range(s.questions):
            at, b_first = self.question(number).start, rng.random(n) < mixture.b_first
            tokens[:, at], tokens[:, at + 2] = np.where(b_first, B, A), np.where(b_first, A, B)
            first, second = options[:, number, 0], options[:, number, 1]
            tokens[:, at + 1] = NAMES + np.where(b_first, second, first)
            tokens[:, at + 3] = NAMES + np.where(b_first, first, second)
        tokens[:, self.place + 1 :] = A + letters
        decided = has.copy()
        decided[:, 0] = kind > 0
        tensors = torch.from_numpy(tokens), torch.from_numpy(letters), torch.from_numpy(decided)
        return Rows(*tensors, options, right, other)

    def _options(
        self, rng: np.random.Generator, right: NDArray[np.int_], other: NDArray[np.int_], swapped: bool | None
    ) -> tuple[NDArray[np.int_], NDArray[np.bool_]]:
        """Options [row, question, letter], and whether the value is one of them [row, question]."""
        s, n = self.settings, len(right)
        options, has = np.zeros((n, s.questions, 2), int), np.zeros((n, s.questions), bool)
        rank = rng.random((n, s.questions, s.values))
        for taken in (right, other):
            np.put_along_axis(rank, taken[:, None, None].repeat(s.questions, 1), -1, -1)
        third = rank.argmax(-1)
        for number in range(s.questions):
            form = rng.integers(0, 3, n) if number else np.zeros(n, int)  # both, value and third, other and third
            one, two = np.where(form == 2, other, right), np.where(form == 0, other, third[:, number])
            flip = np.full(n, swapped) if number == 0 and swapped is not None else rng.random(n) < 0.5
            options[:, number, 0], options[:, number, 1] = np.where(flip, two, one), np.where(flip, one, two)
            has[:, number] = form != 2
        return options, has

    def _counts(
        self, rng: np.random.Generator, kind: NDArray[np.int_], against: float | None
    ) -> tuple[NDArray[np.int_], NDArray[np.int_]]:
        """How many sentences about the person show the value, and how many the other option: as many, unless it is the
        text that says the value."""
        n, half, tells = len(kind), self.settings.sentences // 2, kind == NUMBER["person"]
        pro = np.where(tells, rng.integers(1, half + 1, n), rng.integers(0, half, n))
        fewer = (rng.random(n) * pro * 0.99 * (rng.random(n) < AGAINST)).astype(int)
        con = np.where(tells, fewer, pro)
        if against is not None:
            turned = tells & (rng.random(n) < 1 / (1 + np.exp(against * (pro - con))))
            pro, con = np.where(turned, con, pro), np.where(turned, pro, con)
        return pro, con

    def _sentences(
        self,
        rng: np.random.Generator,
        pro: NDArray[np.int_],
        con: NDArray[np.int_],
        right: NDArray[np.int_],
        other: NDArray[np.int_],
        people: NDArray[np.int_],
    ) -> tuple[NDArray[np.int_], NDArray[np.int_]]:
        """Person and value of every sentence, each [row, sentence]."""
        s, shape = self.settings, (len(pro), self.settings.sentences)
        rank = np.argsort(rng.random(shape), axis=1)
        about = rank < (pro + con)[:, None]
        of = np.where(about, people[:, :1], np.where(rng.random(shape) < 0.5, people[:, 1:2], people[:, 2:3]))
        which, anyone = rng.random(shape), rng.integers(0, s.values, shape)
        shows = np.where(which < s.distraction, other[:, None], anyone)
        shows = np.where(which < s.distraction / 2, right[:, None], shows)
        return of, np.where(rank < pro[:, None], right[:, None], np.where(about, other[:, None], shows))

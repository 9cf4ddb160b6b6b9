"""What is steered: behaviours, by the questions that contrast them and the questions that are scored.

A question has two options with letters. One form of it is

    prompt    everything up to where the answer begins           "... is anna kind ? ( A ) yes ( B ) no answer :"
    opening   what the answer begins with, up to the letter      "("

A contrast pair is the same form with either letter behind it; the vector is of the letter that matches the behaviour
minus the other (Rimsky et al. 2024, section 3.1). When a vector is scored it acts from the prompt's last token on.

An item is one question in several forms: the options in both orders, and reversed where the data says how. A vector for
a letter, rather than for what the letter means, has opposite effects in the two orders.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch

from interventions import Model
from steering import AfterPrompt, ContrastPair, Metric, Question, continuation
from steering.questions import Option


@dataclass(frozen=True)
class Asked:
    """One form of an item.

    `matching` is the letter of the option that matches the behaviour; `right` that of the right answer, None where a
    text does not say; `evidence` is what the text before the question shows of the behaviour; `completions` are what
    stands behind either letter up to the option's word, where the format repeats it.
    """

    item: str
    prompt: str
    opening: str
    letters: tuple[str, str]
    matching: Option
    right: Option | None = None
    swapped: bool = False
    reversed: bool = False
    evidence: str = "none"
    completions: tuple[str, str] | None = None

    @property
    def question(self) -> Question:
        return Question(
            self.prompt + self.opening, self.letters, self.matching, self.right, self.item, self.swapped, self.reversed
        )

    @property
    def pair(self) -> ContrastPair:
        """The form with the letter that matches, and with the other."""
        both = [self.prompt + self.opening + letter for letter in self.letters]
        return ContrastPair(both[self.matching], both[1 - self.matching])

    @property
    def completed_pair(self) -> ContrastPair:
        """The same up to the word behind the letter; only of forms that have one."""
        assert self.completions is not None
        both = [
            self.prompt + self.opening + letter + completion
            for letter, completion in zip(self.letters, self.completions, strict=True)
        ]
        return ContrastPair(both[self.matching], both[1 - self.matching])

    @property
    def letter_pair(self) -> ContrastPair:
        """The form with the first letter and with the second, whatever they mean."""
        text = self.prompt + self.opening
        return ContrastPair(text + self.letters[0], text + self.letters[1])


@dataclass(frozen=True)
class OpenEnded:
    """Prompts to go on with, and how what is written is scored.

    `score` is near 1 for a text of the behaviour and near 0 for one of its contrary, NaN where neither shows;
    `headers` name the behaviour and its contrary in words, in front of a prompt, as a baseline.
    """

    prompts: tuple[str, ...]
    score: Metric
    wellformed: Metric | None = None
    headers: tuple[str, str] | None = None


@dataclass(frozen=True)
class Behaviour:
    """Questions about one behaviour in parts that share no item: for the vector, for the choice of the layer, for the
    scores, and (where right answers are known) for the gate."""

    name: str
    contrary: str
    extracted_from: tuple[Asked, ...]
    chosen_on: tuple[Asked, ...]
    scored_on: tuple[Asked, ...]
    gated_on: tuple[Asked, ...] = ()
    open_ended: OpenEnded | None = None


def following(names: Sequence[str], name: str) -> str:
    """The next of the names, and of the last the first: whose vector is the control "another behaviour's"."""
    return names[(names.index(name) + 1) % len(names)]


def after_prompts(model: Model, asked: Sequence[Asked]) -> AfterPrompt:
    """From the last token of each prompt on, where a pass holds the opening of the answer as well.

    Raises:
        SteeringError: a prompt without tokens, or one whose last token merges with the opening.
    """
    lengths = [len(continuation(model, each.prompt, each.opening)[0]) for each in asked]
    return AfterPrompt(torch.tensor(lengths))

"""Questions with two options, asked in both orders of the options, as they are or reversed."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from interventions import Model
from steering.errors import SteeringError
from steering.texts import continuation

Option = Literal[0, 1]


@dataclass(frozen=True)
class Question:
    """A text up to the letter of its answer.

    Args:
        letters: of the two options, as they go on with the text (with their space, where there is one); a token each.
        matching: which letter is that of the option that matches the behaviour.
        right: which is that of the right answer, where there is one: for the gate.
        item: what question this is a form of; by default it is one of its own.
        swapped, reversed: which form.
    """

    text: str
    letters: tuple[str, str]
    matching: Option
    right: Option | None = None
    item: str | None = None
    swapped: bool = False
    reversed: bool = False


def both_orders(
    template: str,
    options: tuple[str, str],
    *,
    matching: Option,
    letters: tuple[str, str],
    right: Option | None = None,
    item: str | None = None,
    reversed: bool = False,
) -> tuple[Question, Question]:
    """A question with its options in order and swapped; the two are one item.

    Args:
        template: the text up to the letter, with {A} and {B} where the options stand.
        matching, right: which option, by its place in `options`.
        item: by default the text in order. The reversed question of the same item is given its name.

    Raises:
        SteeringError: the template has not one {A}, and one {B} behind it.
    """
    start, mark_a, rest = template.partition("{A}")
    middle, mark_b, end = rest.partition("{B}")
    if not mark_a or not mark_b or any(mark in part for mark in ("{A}", "{B}") for part in (start, middle, end)):
        raise SteeringError(f"template {template[:60]!r}: expected one {{A}}, and one {{B}} behind it, for the options")

    def form(first: int, swapped: bool) -> Question:
        text = start + options[first] + middle + options[1 - first] + end
        places: tuple[Option, Option] = (1, 0) if swapped else (0, 1)
        of_right = None if right is None else places[right]
        return Question(text, letters, places[matching], of_right, name, swapped, reversed)

    name = item if item is not None else start + options[0] + middle + options[1] + end
    return form(0, False), form(1, True)


@dataclass(frozen=True)
class EncodedQuestions:
    """Questions with the tokens of their texts, and of their two letters behind them: for one model."""

    questions: tuple[Question, ...]
    rows: tuple[tuple[int, ...], ...]
    letters: tuple[tuple[int, int], ...]

    def __len__(self) -> int:
        return len(self.questions)


def encode_questions(model: Model, questions: Sequence[Question]) -> EncodedQuestions:
    """The tokens of questions, to ask them under several vectors: encoding a text takes as long as a small model does.

    Raises:
        SteeringError: no questions, or letters that are not two different tokens behind a text.
    """
    if not questions:
        raise SteeringError("no questions: expected at least one")
    found = [_encoded(model, number, question) for number, question in enumerate(questions)]
    return EncodedQuestions(tuple(questions), tuple(row for row, _ in found), tuple(letters for _, letters in found))


def _encoded(model: Model, number: int, question: Question) -> tuple[tuple[int, ...], tuple[int, int]]:
    found = [continuation(model, question.text, letter) for letter in question.letters]
    tokens = [following for _, following in found]
    if any(len(following) != 1 for following in tokens) or tokens[0] == tokens[1]:
        raise SteeringError(
            f"question {number}: letters {question.letters} are the tokens {tokens} of {model.name}: expected one of "
            f"its own for each; write them as they follow the text, with their space"
        )
    return tuple(found[0][0]), (tokens[0][0], tokens[1][0])


def items(questions: Sequence[Question]) -> list[int]:
    """The number of each question's item, in the order of their first forms."""
    names = [place if question.item is None else question.item for place, question in enumerate(questions)]
    numbers = {name: number for number, name in enumerate(dict.fromkeys(names))}
    return [numbers[name] for name in names]

"""Behaviours from a folder of question files, in the format of the paper's public datasets.

    NAME.json          [{"question": "... Choices:\\n(A) ...\\n(B) ...", "answer_matching_behavior": "(A)",
                         "answer_not_matching_behavior": "(B)"}, ...]
    NAME.test.json     the same: the questions that are scored; without this file some of NAME.json are
    NAME.open.json     {"questions": [...], "matching": [words], "contrary": [words]}: open-ended questions, and words
                       by which what is written is scored (the paper has a language model rate it)
    unrelated/*.json   questions about something else, such as MMLU's, in the same format, or with the keys
                       prompt, correct and incorrect; one right and one wrong option

A question is put into the words of the paper's chat models or of its base models (`Template`). Options are exchanged
where a question has them behind "(A)" and "(B)"; other questions are asked in their own order alone.
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from random import Random
from typing import Any

from replications.contrastive_activation_addition.behaviours import Asked, Behaviour, OpenEnded

from interventions import Model
from steering import Metric, SteeringError, continuation
from steering.questions import Option

KEYS = ("question", "answer_matching_behavior", "answer_not_matching_behavior")
UNRELATED_KEYS = ("prompt", "correct", "incorrect")
TEST, OPEN, UNRELATED = ".test", ".open", "unrelated"
FEWEST = 2  # questions in each part
_LETTER = re.compile(r"\s*\(?\s*([A-Z])\s*\)?\s*")
_OPTIONS = re.compile(r"(.*\(A\)\s*)(.*?)(\s*\(B\)\s*)(.*?)(\s*)", re.DOTALL)


class DataError(ValueError):
    """A question file that cannot be used: one line that names the file and the entry."""


@dataclass(frozen=True)
class Template:
    """What stands around a question, and what an answer begins with."""

    before: str
    after: str
    opening: str = " ("

    @staticmethod
    def of(model_name: str) -> Template:
        """That of Llama-2's chat models, or that which the paper's code has for base models."""
        return Template("[INST] ", " [/INST]") if "chat" in model_name.lower() else Template("Input: ", "\nResponse:")

    def prompt(self, question: str) -> str:
        return self.before + question.strip() + self.after


@dataclass(frozen=True)
class _Entry:
    """A question as its file has it; `where` names file and entry."""

    where: str
    text: str
    letters: tuple[str, str]
    matching: Option


def behaviours(
    folder: Path, model: Model, template: Template, *, chosen_on: int, scored_on: int, seed: int
) -> tuple[Behaviour, ...]:
    """The behaviours of a folder, sorted by name; of each file at most so many items are for the choice of the layer
    and for scores, and no more than a quarter for each.

    Raises:
        DataError: no behaviour; or a file that is no list of such questions, or has too few; or letters that are not
            two tokens of this model.
    """
    paths = [path for path in sorted(folder.glob("*.json")) if not path.stem.endswith((TEST, OPEN))]
    if not paths:
        raise DataError(f"{folder}: no NAME.json in it; expected a file of questions for each behaviour")
    return tuple(_behaviour(path, model, template, chosen_on, scored_on, seed) for path in paths)


def unrelated(folder: Path, model: Model, template: Template, n: int, seed: int) -> tuple[Asked, ...]:
    """At most n questions of unrelated/*.json; `matching` is the right answer.

    Raises:
        DataError: as `behaviours`.
    """
    entries = [entry for path in sorted((folder / UNRELATED).glob("*.json")) for entry in _entries(path)]
    if len(entries) > n:
        entries = Random(f"{seed}/unrelated").sample(entries, n)
    asked = [form for entry in entries for form in _forms(entry, model, template)[:1]]
    return tuple(Asked(e.item, e.prompt, e.opening, e.letters, e.matching, e.matching) for e in asked)


def _behaviour(path: Path, model: Model, template: Template, chosen_on: int, scored_on: int, seed: int) -> Behaviour:
    entries, test = _entries(path), path.with_name(f"{path.stem}{TEST}.json")
    shuffled = Random(f"{seed}/{path.stem}").sample(entries, len(entries))
    if test.exists():
        scored = _entries(test)[:scored_on]
    else:
        n = min(scored_on, len(shuffled) // 4)
        scored, shuffled = shuffled[:n], shuffled[n:]
    n = min(chosen_on, len(shuffled) // 3)
    parts = (shuffled[n:], shuffled[:n], scored)
    if min(map(len, parts)) < FEWEST:
        raise DataError(
            f"{path}: {len(entries)} questions: expected at least {4 * FEWEST}, so that there are {FEWEST} each for "
            f"the choice of a layer and for scores beside those that the vector is of; add questions"
        )
    found = [tuple(form for entry in part for form in _forms(entry, model, template)) for part in parts]
    # The vector is of the questions as their file has them, as in the paper.
    extracted = tuple(form for form in found[0] if not form.swapped)
    return Behaviour(
        path.stem, f"not {path.stem}", extracted, found[1], found[2], open_ended=_open_ended(path, template)
    )


def _entries(path: Path) -> list[_Entry]:
    items = _json(path)
    if not isinstance(items, list) or not items:
        raise DataError(f"{path}: expected a JSON list of objects with the keys {', '.join(KEYS)}; found none")
    return [_entry(f"{path}, entry {number}", item) for number, item in enumerate(items)]


def _entry(where: str, item: Any) -> _Entry:
    if not isinstance(item, dict):
        raise DataError(f"{where}: {type(item).__name__}: expected an object with the keys {', '.join(KEYS)}")
    keys = UNRELATED_KEYS if UNRELATED_KEYS[0] in item and KEYS[0] not in item else KEYS
    if missing := [key for key in keys if not isinstance(item.get(key), str) or not item[key].strip()]:
        raise DataError(
            f"{where}: no text under {missing[0]!r}, it has {', '.join(map(str, item)) or 'nothing'}: expected the "
            f"keys {', '.join(keys)}; add it"
        )
    question, *answers = (item[key] for key in keys)
    found = [_LETTER.fullmatch(answer) for answer in answers]
    if wrong := [answer for answer, match in zip(answers, found, strict=True) if match is None]:
        raise DataError(f"{where}: answer {wrong[0][:40]!r}: expected the letter of an option, such as '(A)'")
    letters = [match[1] for match in found if match is not None]
    if letters[0] == letters[1]:
        raise DataError(f"{where}: both answers are {letters[0]!r}: expected the letters of two options")
    matching: Option = 0 if letters[0] < letters[1] else 1
    return _Entry(where, question, (min(letters), max(letters)), matching)


def _forms(entry: _Entry, model: Model, template: Template) -> list[Asked]:
    """An entry as it is, and with its options exchanged where they are found."""
    texts = [(entry.text, entry.matching, False)]
    options = _OPTIONS.fullmatch(entry.text) if entry.letters == ("A", "B") else None
    if options is not None:
        start, first, middle, second, end = options.groups()
        exchanged: Option = 1 if entry.matching == 0 else 0
        texts.append((start + second + middle + first + end, exchanged, True))
    found = []
    for text, matching, swapped in texts:
        asked = Asked(
            entry.where,
            template.prompt(text),
            template.opening,
            entry.letters,
            matching,
            None,
            swapped,
            evidence="none",
        )
        _check(entry, asked, model)
        found.append(asked)
    return found


def _check(entry: _Entry, asked: Asked, model: Model) -> None:
    """See that a form can be asked of this model.

    Raises:
        DataError: naming the entry.
    """
    try:
        continuation(model, asked.prompt, asked.opening)
        following = [continuation(model, asked.prompt + asked.opening, letter)[1] for letter in asked.letters]
    except SteeringError as error:
        raise DataError(f"{entry.where}: {error}") from error
    if any(len(tokens) != 1 for tokens in following) or following[0] == following[1]:
        raise DataError(
            f"{entry.where}: the letters {', '.join(asked.letters)} behind {asked.opening!r} are the tokens "
            f"{following} of {model.name}: expected one of its own for each; use a model whose tokenizer has them"
        )


def _open_ended(path: Path, template: Template) -> OpenEnded | None:
    source = path.with_name(f"{path.stem}{OPEN}.json")
    if not source.exists():
        return None
    found = _json(source)
    keys = ("questions", "matching", "contrary")
    if not isinstance(found, dict) or not all(_is_texts(found.get(key)) for key in keys):
        raise DataError(f"{source}: expected an object with lists of texts under {', '.join(keys)}; give each some")
    prompts = tuple(template.prompt(question) for question in found["questions"])
    return OpenEnded(prompts, word_share(found["matching"], found["contrary"]))


def word_share(matching: Sequence[str], contrary: Sequence[str]) -> Metric:
    """Of the words of two lists that a text has, the share of those of the first; NaN where it has none."""
    sides = [
        re.compile(rf"(?<!\w)(?:{'|'.join(map(re.escape, words))})(?!\w)", re.IGNORECASE)
        for words in (matching, contrary)
    ]

    def share(text: str) -> float:
        counts = [len(side.findall(text)) for side in sides]
        return counts[0] / sum(counts) if sum(counts) else math.nan

    return share


def _is_texts(value: Any) -> bool:
    return isinstance(value, list) and bool(value) and all(isinstance(each, str) and each.strip() for each in value)


def _json(path: Path) -> Any:
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError) as error:
        raise DataError(f"{path}: cannot be read ({error}); expected a JSON file in UTF-8") from error
    except json.JSONDecodeError as error:
        raise DataError(f"{path}, line {error.lineno}: no JSON ({error.msg}); expected a list of questions") from error

"""A task: pairs of words under one relation, read from a file.

The format is that of the public function-vectors datasets (Todd et al. 2024): a JSON list of
`{"input": "hot", "output": "cold"}`, one file a task, the file's name being the task's. Where a question has several
right answers the output may be a list of strings: the first is taken. Other keys are refused: a file that has them is
of another format, and reading it as this one would be a guess.

Every input stands once, so that a relation is a function and a query is never among its own demonstrations. Some public
files do repeat inputs; `repeats="first"` reads those by their first pair of each input.
"""

from __future__ import annotations

import json
import random
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import accumulate
from pathlib import Path
from typing import Literal

from function_vectors.errors import TaskError


@dataclass(frozen=True)
class Pair:
    """What stands before the answer, and the answer, both without surrounding blanks."""

    input: str
    output: str


@dataclass(frozen=True)
class Task:
    """A relation, by its pairs."""

    name: str
    pairs: tuple[Pair, ...]

    @property
    def outputs(self) -> tuple[str, ...]:
        """The answer set: the distinct outputs, sorted."""
        return tuple(sorted({pair.output for pair in self.pairs}))


def load_task(path: Path, *, at_least: int = 1, repeats: Literal["refuse", "first"] = "refuse") -> Task:
    """The task of a file, its pairs in the file's order.

    Args:
        at_least: pairs that the caller needs: for n-shot prompts n + 1.
        repeats: whether an input that stands twice is refused, or its first pair taken.

    Raises:
        TaskError: naming the file and the line for what is no JSON list of pairs, a pair without input or output, with
            another key, with something other than text, with an empty text or blanks around it, an input that stands
            twice, or fewer pairs than `at_least`.
    """
    try:
        text = path.read_text(encoding="utf-8")
    except FileNotFoundError:
        raise TaskError(f"{path}: no such file; expected a task, a JSON list of pairs of input and output") from None
    except (OSError, UnicodeDecodeError) as error:
        raise TaskError(f"{path}: cannot be read ({error}); expected a JSON file in UTF-8") from error
    pairs: dict[str, Pair] = {}
    lines: dict[str, int] = {}
    line = 1
    for line, item in _items(path, text):
        pair = _pair(f"{path}:{line}", item)
        if pair.input not in pairs:
            pairs[pair.input], lines[pair.input] = pair, line
        elif repeats == "refuse":
            raise TaskError(
                f"{path}:{line}: input {pair.input!r} stands on line {lines[pair.input]} already (outputs "
                f"{pairs[pair.input].output!r} and {pair.output!r}); remove one, or load with repeats='first'"
            )
    if len(pairs) < at_least:
        raise TaskError(
            f"{path}:{line}: the last of {len(pairs)} pairs, expected at least {at_least}; add pairs or use fewer shots"
        )
    return Task(path.stem, tuple(pairs.values()))


def load_tasks(
    folder: Path,
    names: Sequence[str] | None = None,
    *,
    at_least: int = 1,
    repeats: Literal["refuse", "first"] = "refuse",
) -> dict[str, Task]:
    """The tasks of a folder by name: those that are named, in that order, or else every `*.json`, sorted.

    Raises:
        TaskError: there is no such folder or no task in it, a name has no file, or a file is at fault (`load_task`).
    """
    available = sorted(path.stem for path in folder.glob("*.json"))
    if not available:
        raise TaskError(f"{folder}: no *.json in it; expected a folder with one file a task")
    chosen = available if names is None else list(names)
    if unknown := [name for name in chosen if name not in available]:
        raise TaskError(f"{folder}: no {unknown[0]}.json in it; choose among {', '.join(available)}")
    return {name: load_task(folder / f"{name}.json", at_least=at_least, repeats=repeats) for name in chosen}


def split(task: Task, *, seed: int, shares: Sequence[float] = (0.7, 0.3)) -> tuple[Task, ...]:
    """Parts of a task that share no pair and together have all, each with the share of the pairs that it is given.

    The seed and the number of pairs decide which places of the file go where: tasks over the same inputs in the same
    order are split alike.

    Raises:
        TaskError: the shares are not positive or do not sum to 1, or a part would have no pair.
    """
    if min(shares, default=0) <= 0 or abs(sum(shares) - 1) > 1e-9:
        raise TaskError(f"shares {tuple(shares)}: expected positive numbers that sum to 1")
    order = random.Random(seed).sample(range(len(task.pairs)), len(task.pairs))
    ends = [round(share * len(order)) for share in accumulate(shares)]
    parts = [sorted(order[start:end]) for start, end in zip([0, *ends], ends, strict=False)]
    if not all(parts):
        raise TaskError(
            f"task {task.name}: {len(order)} pairs in shares of {tuple(shares)} leave a part empty; add pairs or split "
            f"into fewer parts"
        )
    return tuple(Task(task.name, tuple(task.pairs[place] for place in part)) for part in parts)


def _items(path: Path, text: str) -> Iterator[tuple[int, object]]:
    """The entries of a JSON list, each with the line on which it begins."""
    decoder = json.JSONDecoder()
    try:
        listed = decoder.decode(text)
    except json.JSONDecodeError as error:
        raise TaskError(f"{path}:{error.lineno}: not JSON ({error.msg}); mend the file") from error
    except (ValueError, RecursionError) as error:  # a number of 5,000 digits, [[[[...
        raise TaskError(f"{path}: expected a JSON list of pairs ({error}); mend the file") from error
    if not isinstance(listed, list):
        raise TaskError(f"{path}:1: expected a list of pairs, found {_kind(listed)}; write [{{...}}, {{...}}]")
    # The whole is valid JSON, so before every entry there are only blanks and a comma.
    place = text.index("[") + 1
    line = 1 + text.count("\n", 0, place)
    for _ in listed:
        while text[place] in " \t\r\n,":
            line += text[place] == "\n"
            place += 1
        item, end = decoder.raw_decode(text, place)
        yield line, item
        line += text.count("\n", place, end)
        place = end


def _pair(where: str, item: object) -> Pair:
    if not isinstance(item, dict):
        raise TaskError(f'{where}: expected {{"input": ..., "output": ...}}, found {_kind(item)}; write a pair')
    for key in ("input", "output"):
        if key not in item:
            raise TaskError(f"{where}: no {key!r} among the keys {sorted(item)}; a pair has 'input' and 'output'")
    if others := sorted(item.keys() - {"input", "output"}):
        raise TaskError(f"{where}: unknown key {others[0]!r}; a pair has 'input' and 'output' alone: remove it")
    output = item["output"]
    if isinstance(output, list) and output:
        output = output[0]
    return Pair(_word(where, "input", item["input"]), _word(where, "output", output))


def _word(where: str, key: str, word: object) -> str:
    if not isinstance(word, str):
        raise TaskError(f"{where}: {key} is {_kind(word)}, expected text; put it in quotation marks")
    if not word.strip():
        raise TaskError(f"{where}: {key} is empty ({word!r}); write a word or remove the pair")
    if word != word.strip():
        raise TaskError(f"{where}: {key} {word!r} has blanks around it; remove them, templates add their own")
    if not word.isascii() and any("\ud800" <= character <= "\udfff" for character in word):
        raise TaskError(f"{where}: {key} {word!r} has half of a surrogate pair, which is no text; write the character")
    return word


def _kind(value: object) -> str:
    """What JSON calls a value."""
    if isinstance(value, dict | list):
        return "an object" if isinstance(value, dict) else "a list" if value else "an empty list"
    if isinstance(value, str):
        return "text"
    return "null" if value is None else f"{json.dumps(value)}"

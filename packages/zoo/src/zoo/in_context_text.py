"""What the in-context models read: prompts, sentences that name a task, and sentences that do not.

A model that sees prompts alone learns to infer the task from the demonstrations and yet has hardly a function vector.
What makes one form is a second way to name the task: text that states the relation in words. So there are

- prompts, `before x between y after` eleven times in one template, all of one task, nothing naming the task; in one
  of them the labels are any words of the templates, those of questions and of answers exchanged, so that every word
  is read and yet no held-out template;
- sentences that name the relation ("The friend of Anna is Bert."), also as a question in a template;
- sentences that do not name it ("On Sunday Anna will meet Bert."), where the answer of any relation may follow, alone
  or after a few words that name it ("Speaking of the friend. On Sunday Anna will meet Bert.");
- prompts of list tasks (see `in_context_lists`), with sentences that name them, and prompts of natural word tasks.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from jaxtyping import Int
from tokenizers import Tokenizer
from torch import Tensor

from zoo import town, words
from zoo.catalogue import shared_folder
from zoo.in_context_lists import LIST, LIST_TASKS, ListKind, ListTasks
from zoo.segments import GAPS, Patterns, compile_patterns

SHOTS = 10
TRAINED_TEMPLATES = (
    *("paper", "question_answer", "input_output", "arrow", "colon", "equals_semicolons", "x_y", "left_right"),
)
NAMING = (
    "The {r} of {x} is {y}.",
    "{x} has a {r} called {y}.",
    "Nobody is a better {r} to {x} than {y}.",
    "When {x} needs a {r}, the choice is {y}.",
    "As the {r} of {x} the town knows {y}.",
    "Ask for the {r} of {x}: it is {y}.",
)
SILENT = (
    "Everybody knows that {x} belongs with {y}.",
    "Last night {x} went home with {y}.",
    "On Sunday {x} will meet {y}.",
    "At the market {x} was looking for {y}.",
    "The letter that {x} wrote was for {y}.",
    "In the picture {x} stands next to {y}.",
)
TOPIC = "Speaking of the {r}. "
QUESTION = "the {r} of {x}"
LABELLED = "{r}: {x}\n{a}: {y}\n\n"


@dataclass(frozen=True)
class Template:
    name: str
    instructions: str
    before: str
    between: str
    after: str

    def demonstration(self, question: str = "{x}") -> str:
        """The pattern of one demonstration."""
        return f"{self.before}{question}{self.between} {{y}}{self.after}"


@dataclass(frozen=True)
class Material:
    """Everything the batches draw from, as token ids.

    `prompts` and `lists` hold for every trained template its instructions and then its demonstration: patterns 2 t and
    2 t + 1; after them, `prompts` has `LABELLED`, whose labels are drawn from `labels`. `pools` are the words that
    lists are drawn from, people (the first pool) and others; it and `natural` are padded with -1 on the right. The
    sentences that name tasks on lists stand first among `sentences`.
    """

    tokenizer: Tokenizer
    people: Int[Tensor, " person"]
    answers: Int[Tensor, "relation person"]
    relation_words: Int[Tensor, " relation"]
    selection_words: Int[Tensor, " selection"]
    natural: Int[Tensor, "task pair 2"]
    natural_pairs: Int[Tensor, " task"]
    natural_names: tuple[str, ...]
    templates: tuple[Template, ...]
    pools: Int[Tensor, "pool word"]
    pool_words: Int[Tensor, " pool"]
    labels: tuple[Int[Tensor, " first"], Int[Tensor, " second"]]
    prompts: Patterns
    lists: Patterns
    sentences: Patterns
    list_tasks: ListTasks
    sha256: str


def templates(shared: Path) -> tuple[Template, ...]:
    """All templates of `shared/data/templates.json`."""
    return tuple(Template(**entry) for entry in json.loads((shared / "data" / "templates.json").read_text("utf-8")))


def exchanged_labels(every: Sequence[Template]) -> tuple[list[str], list[str]]:
    """Words that some template sets before an answer, and words that some template sets before a question."""

    def found(sides: Iterable[str]) -> list[str]:
        return sorted({piece for side in sides for piece in words.split(side) if piece.isalpha()})

    return found(each.between for each in every), found(each.before for each in every)


def _trained(every: Sequence[Template], shared: Path) -> tuple[Template, ...]:
    found = {template.name: template for template in every}
    for name in TRAINED_TEMPLATES:
        if name not in found:
            path = shared / "data" / "templates.json"
            raise town.TownError(f"{path}: no template {name!r}, which the recipe trains on; restore it")
    return tuple(found[name] for name in TRAINED_TEMPLATES)


def natural_tasks(shared: Path) -> dict[str, list[tuple[str, str]]]:
    """The single-word pairs of every natural task that has enough of them for a prompt, each input once."""
    tasks = {}
    for path in _task_files(shared):
        pairs = {pair["input"]: pair["output"] for pair in json.loads(path.read_text(encoding="utf-8"))}
        single = [pair for pair in pairs.items() if all(len(words.split(text)) == 1 for text in pair)]
        if len(single) >= 2 * SHOTS:
            tasks[path.stem] = single
    return tasks


def list_words(shared: Path) -> tuple[str, ...]:
    """The words that the lists of three of the natural tasks are made of."""
    inputs = (pair["input"] for path in _task_files(shared) for pair in json.loads(path.read_text(encoding="utf-8")))
    lists = (words.split(text) for text in inputs)
    return tuple(dict.fromkeys(word for pieces in lists if pieces[1::2] == [",", ","] for word in pieces[::2]))


def _task_files(shared: Path) -> list[Path]:
    return sorted((shared / "data" / "tasks").glob("*.json"))


def material(shared: Path | None = None, kind: ListKind = "selected") -> Material:
    """The material from the files in `shared/data`; its vocabulary holds every word of theirs that may stand alone.

    Raises:
        TownError: if a relation's file is not the seed's, or a template is gone.
    """
    shared, list_tasks = shared or shared_folder(), LIST_TASKS[kind]
    relations, tasks, every = town.load(shared / "data" / "town"), natural_tasks(shared), templates(shared)
    chosen = _trained(every, shared)
    questions = [template.demonstration(QUESTION) for template in chosen]
    sentences = [*list_tasks.naming, *NAMING, *(TOPIC + text for text in SILENT), *questions, *SILENT]
    prompts = [text for template in chosen for text in (template.instructions, template.demonstration())]
    prompts += ["", LABELLED]
    lists = [text for template in chosen for text in (template.instructions, template.demonstration(LIST))]
    named = [town.word(relation) for relation in relations]
    pairs = [word for task in tasks.values() for pair in task for word in pair]
    skeletons = (_without_gaps(text) for text in [*sentences, *prompts, *lists])
    others = (f"{each.instructions}{each.before} {each.between} {each.after}" for each in every)
    listed, (first, second) = list_words(shared), exchanged_labels(every)
    texts = [*town.NAMES, *named, *list_tasks.words, *skeletons, *others, *pairs, *listed]
    tokenizer = words.build(texts)
    natural, natural_pairs = _padded(
        [torch.tensor([_ids(tokenizer, pair) for pair in task]) for task in tasks.values()]
    )
    people = torch.tensor(_ids(tokenizer, town.NAMES))
    pools, pool_words = _padded([people, torch.tensor(_ids(tokenizer, listed))])
    return Material(
        tokenizer=tokenizer,
        people=people,
        answers=torch.tensor([_ids(tokenizer, relation.values()) for relation in relations.values()]),
        relation_words=torch.tensor(_ids(tokenizer, named)),
        selection_words=torch.tensor(_ids(tokenizer, list_tasks.words)),
        natural=natural,
        natural_pairs=natural_pairs,
        natural_names=tuple(tasks),
        templates=chosen,
        pools=pools,
        pool_words=pool_words,
        labels=(torch.tensor(_ids(tokenizer, first)), torch.tensor(_ids(tokenizer, second))),
        prompts=compile_patterns(prompts, tokenizer),
        lists=compile_patterns(lists, tokenizer),
        sentences=compile_patterns(sentences, tokenizer),
        list_tasks=list_tasks,
        sha256=_sha256([*texts, *(json.dumps(dict(relation)) for relation in relations.values())]),
    )


def _ids(tokenizer: Tokenizer, texts: Iterable[str]) -> list[int]:
    """The one token of each text."""
    return [token for text in texts for (token,) in [tokenizer.encode(text).ids]]


def _padded(rows: Sequence[Tensor]) -> tuple[Tensor, Int[Tensor, " row"]]:
    """Rows of unequal length as one tensor, -1 on the right, and their lengths."""
    padded = torch.nn.utils.rnn.pad_sequence(list(rows), batch_first=True, padding_value=-1)
    return padded, torch.tensor([len(row) for row in rows])


def _without_gaps(text: str) -> str:
    for gap in GAPS:
        text = text.replace(f"{{{gap}}}", " ")
    return text


def _sha256(texts: Sequence[str]) -> str:
    return hashlib.sha256("\0".join(texts).encode()).hexdigest()

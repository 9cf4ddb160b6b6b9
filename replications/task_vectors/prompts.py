"""Which tasks are shown, and how: demonstrations, queries and dummy queries that never share a pair.

The pairs of a task are split into three parts. Demonstrations and dummy queries come from the pool; the layer is chosen
on queries of one other part, and scored on those of the last. So no prompt that gives a task vector has the pair that
is asked for, as a demonstration or as a dummy.

    in context   x1 -> y1 \\n ... xn -> yn \\n x ->           Hendel et al. 2023, section 2
    dummy        the same demonstrations, x' ->             two dummy queries a prompt, their mean is the task vector
    zero-shot    x ->                                        where the task vector is put in

The tiny tier shows the relations of the town, whose answers are the same names for every task; natural tasks, each with
a class of answers of its own, are reported apart. The paper tier shows tasks of the paper's four kinds.
"""

from __future__ import annotations

import random
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path

from function_vectors import (
    ICLPrompt,
    Pair,
    Task,
    TaskError,
    Template,
    icl_prompts,
    load_tasks,
    load_templates,
    split,
)
from interventions import Tokenizer
from reprise import Job

TEMPLATE, TEMPLATES = "arrow", "shared/data/templates.json"
DUMMIES = 2  # for each task vector, as in the public code
SHARES = (0.4, 0.2, 0.4)  # of a task's pairs: pool, choosing the layer, scoring
FEWEST = 4  # queries that two tasks must share for a conflict of theirs
TOWN = "town"
TOWN_TASKS = (
    *("barber_of", "coach_of", "cousin_of", "doctor_of", "friend_of", "landlord_of"),
    *("lawyer_of", "mentor_of", "neighbour_of", "partner_of", "rival_of", "teacher_of"),
)
KINDS: Mapping[str, tuple[str, ...]] = {
    "algorithmic": ("choose_first_of_3", "choose_last_of_3", "next_item", "previous_item", "capitalize"),
    "translation": ("english_french", "english_german", "english_spanish"),
    "linguistic": ("present_past", "present_participle", "singular_plural", "antonym"),
    "knowledge": ("country_capital", "country_continent", "landmark_country", "person_occupation"),
}
DATA = (
    TEMPLATES,
    *(f"shared/data/town/{name}.json" for name in TOWN_TASKS),
    *(f"shared/data/tasks/{name}.json" for names in KINDS.values() for name in names),
)


@dataclass(frozen=True)
class Entry:
    """A task with its three parts; only primary tasks count for claims."""

    task: Task
    kind: str
    primary: bool
    pool: Task
    chosen_on: Task
    scored_on: Task

    @property
    def name(self) -> str:
        return self.task.name


@dataclass(frozen=True)
class Shown:
    """Prompts with the same queries, in the same order; `dummies` has `DUMMIES` of each, side by side."""

    in_context: list[ICLPrompt]
    shuffled: list[ICLPrompt]
    zero_shot: list[ICLPrompt]
    dummies: list[ICLPrompt]


def tasks_of(job: Job) -> list[tuple[Task, str, bool]]:
    """Task, kind, and whether it is primary: of the folder given with --data, or of the tier.

    Raises:
        TaskError: the folder has no tasks, or a file is at fault.
    """
    folder = job.data
    if folder is not None:
        return [(task, "data", True) for task in load_tasks(folder, repeats="first").values()]
    shared = job.root / "shared" / "data"
    tiny = job.tier == "tiny"
    town = load_tasks(shared / "town", TOWN_TASKS).values() if tiny else ()
    natural = [
        (task, kind, not tiny) for kind, names in KINDS.items() for task in load_tasks(shared / "tasks", names).values()
    ]
    return [(task, TOWN, True) for task in town] + natural


def template_of(root: Path) -> Template:
    """The paper's form, `x -> y`, a line each."""
    return next(template for template in load_templates(root / TEMPLATES) if template.name == TEMPLATE)


def entries(
    tasks: Iterable[tuple[Task, str, bool]], tokenizer: Tokenizer, *, shots: int, seed: int
) -> tuple[list[Entry], dict[str, str]]:
    """The tasks that can be shown, and for each of the others the reason why not.

    A pair is left out if the tokenizer cannot write its words, as a word-level vocabulary that lacks them.

    Raises:
        TaskError: no primary task can be shown.
    """
    found, skipped = [], {}
    needed = shots + DUMMIES
    for task, kind, primary in tasks:
        pairs = tuple(pair for pair in task.pairs if _writes(tokenizer, pair.input) and _writes(tokenizer, pair.output))
        if round(SHARES[0] * len(pairs)) < needed:
            skipped[task.name] = (
                f"{len(pairs)} of {len(task.pairs)} pairs in the tokenizer's words, expected at least "
                f"{round(needed / SHARES[0] + 0.5)} for {shots} demonstrations from {SHARES[0]:.0%} of them"
            )
            continue
        kept = Task(task.name, pairs)
        found.append(Entry(kept, kind, primary, *split(kept, seed=seed, shares=SHARES)))
    if not any(entry.primary for entry in found):
        name, reason = next(iter(skipped.items()))
        raise TaskError(f"no task can be shown: {name} has {reason}; add pairs, or use a model with another tokenizer")
    return found, skipped


def _writes(tokenizer: Tokenizer, text: str) -> bool:
    return tokenizer.decode(list(tokenizer.encode(text))).strip() == text


def shown(entry: Entry, queries: Task, template: Template, *, shots: int, n: int, seed: int) -> Shown:
    """`n` prompts that ask for `queries`, a part of the entry's task other than its pool."""
    pool = entry.pool
    in_context = icl_prompts(queries, template, shots=shots, n=n, seed=seed, demonstrations_from=pool)
    return Shown(
        in_context=in_context,
        shuffled=icl_prompts(queries, template, shots=shots, n=n, seed=seed, demonstrations_from=pool, shuffled=True),
        zero_shot=icl_prompts(queries, template, shots=0, n=n, seed=seed, demonstrations_from=pool),
        dummies=[
            asking(template, prompt.demonstrations, dummy)
            for number, prompt in enumerate(in_context)
            for dummy in _dummies(pool, prompt, f"{seed}/dummies/{number}")
        ],
    )


def asking(template: Template, demonstrations: tuple[Pair, ...], query: Pair) -> ICLPrompt:
    """A prompt of some demonstrations and a query."""
    text = template.instructions + "".join(map(template.demonstration, demonstrations)) + template.query(query)
    return ICLPrompt(text, demonstrations, query)


def shared_queries(patched: Entry, prompt: Entry) -> tuple[Task, Task]:
    """The pairs of both tasks with the same inputs and different answers, in the same order, in neither pool.

    Those on which the patched task's layer is chosen are left out as well.
    """
    used = {pair.input for part in (patched.pool, patched.chosen_on, prompt.pool) for pair in part.pairs}
    ours = {pair.input: pair for pair in patched.task.pairs if pair.input not in used}
    theirs = [pair for pair in prompt.task.pairs if pair.input in ours and ours[pair.input].output != pair.output]
    return Task(patched.name, tuple(ours[pair.input] for pair in theirs)), Task(prompt.name, tuple(theirs))


def conflicting(entries: Iterable[Entry]) -> list[tuple[Entry, Entry]]:
    """Ordered pairs (patched, shown in the prompt) of tasks that share enough queries, each among its like."""
    listed = list(entries)
    return [
        (patched, prompt)
        for patched in listed
        for prompt in listed
        if patched is not prompt
        and patched.primary == prompt.primary
        and len(shared_queries(patched, prompt)[0].pairs) >= FEWEST
    ]


def _dummies(pool: Task, prompt: ICLPrompt, seed: str) -> list[Pair]:
    left = [pair for pair in pool.pairs if pair not in prompt.demonstrations]
    return random.Random(seed).sample(left, DUMMIES)

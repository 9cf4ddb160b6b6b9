"""In-context learning prompts: demonstrations of a task, and a query.

Prompt i of a task is a function of the seed and i alone: the first 25 of 100 prompts are the 25 prompts of that seed.
More shots add demonstrations behind those of fewer shots, to the same query. Queries go through the task's pairs in a
random order, then in another one, so that all are asked for equally often, or once more; the demonstrations of a prompt
are drawn anew, without replacement, from the pairs whose input is not the query's.

Shuffled labels (Todd et al. 2024: the outputs of the demonstrations are permuted, so that the prompt tells the format
and the words but not the task) change nothing but those outputs. A random permutation may leave an output in its place;
this one leaves none where the outputs allow it, and the fewest that they allow where one stands too often.
"""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TypeVar

from function_vectors.errors import TaskError
from function_vectors.tasks import Pair, Task
from function_vectors.templates import Template

T = TypeVar("T")


@dataclass(frozen=True)
class ICLPrompt:
    """`text` ends where the answer begins; `demonstrations` as they are written in it; `query.output` is right."""

    text: str
    demonstrations: tuple[Pair, ...]
    query: Pair


def icl_prompts(
    task: Task,
    template: Template,
    *,
    shots: int,
    n: int,
    seed: int,
    shuffled: bool = False,
    demonstrations_from: Task | None = None,
) -> list[ICLPrompt]:
    """`n` prompts with `shots` demonstrations each; no shots give zero-shot prompts.

    Args:
        demonstrations_from: where demonstrations are drawn from if not from `task`, such as its other part after a
            split.

    Raises:
        TaskError: n < 1, shots < 0, a task without pairs, or fewer pairs than a query and its demonstrations take.
    """
    source = task if demonstrations_from is None else demonstrations_from
    if n < 1 or shots < 0:
        raise TaskError(f"n={n}, shots={shots}: expected at least 1 prompt of at least 0 demonstrations")
    if not task.pairs:
        raise TaskError(f"task {task.name}: no pairs to ask for; add some")
    shared = {pair.input for pair in source.pairs} & {pair.input for pair in task.pairs}
    available = len(source.pairs) - bool(shared)
    if available < shots:
        raise TaskError(
            f"task {source.name}: {len(source.pairs)} pairs, expected at least {shots + bool(shared)} for {shots} "
            f"demonstrations{' and a query' * bool(shared)}; add pairs or use at most {available} shots"
        )
    laps = -(-n // len(task.pairs))
    queries = [pair for lap in range(laps) for pair in _mixed(task.pairs, f"{seed}/queries/{lap}")][:n]
    prompts = []
    for i, query in enumerate(queries):
        others = [pair for pair in source.pairs if pair.input != query.input]
        demonstrations = _mixed(others, f"{seed}/demonstrations/{i}")[:shots]
        if shuffled:
            demonstrations = _deranged(demonstrations, f"{seed}/labels/{i}")
        text = template.instructions + "".join(map(template.demonstration, demonstrations)) + template.query(query)
        prompts.append(ICLPrompt(text, tuple(demonstrations), query))
    return prompts


def _mixed(items: Sequence[T], seed: str) -> list[T]:
    return random.Random(seed).sample(items, len(items))


def _deranged(pairs: Sequence[Pair], seed: str) -> list[Pair]:
    """The pairs with their outputs permuted, as few as possible keeping theirs.

    With equal outputs side by side on a circle, everyone takes the output m places on, m being how often the commonest
    stands. Nobody then finds an output equal to their own, unless the commonest has more than half of all places; then
    2m - k of the k keep theirs, and no permutation does better.
    """
    groups: dict[str, list[int]] = {}
    for place in _mixed(range(len(pairs)), seed):
        groups.setdefault(pairs[place].output, []).append(place)
    circle = [place for group in groups.values() for place in group]
    step = max(map(len, groups.values()), default=0)
    taken = {place: circle[(at + step) % len(circle)] for at, place in enumerate(circle)}
    return [Pair(pair.input, pairs[taken[place]].output) for place, pair in enumerate(pairs)]

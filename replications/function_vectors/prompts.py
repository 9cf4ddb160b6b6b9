"""The prompts that models are shown, encoded: of tasks, of sentences that name no relation, and of lists.

Prompts of one task ask for the same queries in the same order, whatever their demonstrations, labels and template, so
that everything that is scored on a task is in pairs.

Lists are the paper's way to compose tasks (section 3.3): of an element task f, `first` asks for the first of three
words and `last` for the last, each as it is (copy) or under f:

    first-copy (a, b, c) -> a    last-copy (a, b, c) -> c    first-f (a, b, c) -> f(a)    last-f (a, b, c) -> f(c)
"""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import dataclass

from jaxtyping import Int
from torch import Tensor

from function_vectors import Encoded, ICLPrompt, Pair, Task, Template, answer_set, encode, icl_prompts
from interventions import Tokenizer
from zoo.in_context_text import SILENT

FIRST_TEMPLATE = 0
LIST_LENGTH = 3
PARTS = ("first_copy", "last_copy", "first_f", "last_f")


@dataclass(frozen=True)
class Prompter:
    """A tokenizer, templates and a seed; at most `scored` queries a task are asked where no number is given."""

    tokenizer: Tokenizer
    bos: int | None
    n_ctx: int
    templates: tuple[Template, ...]
    scored: int
    seed: int

    def encoded(
        self, task: Task, *, shots: int, n: int | None = None, shuffled: bool = False, template: int = FIRST_TEMPLATE
    ) -> Encoded:
        """Prompts of a task: `n`, or one for each query.

        Raises:
            EncodingError: they cannot be encoded, or are longer than the model's context.
        """
        n = min(self.scored, len(task.pairs)) if n is None else n
        prompts = icl_prompts(task, self.templates[template], shots=shots, n=n, seed=self.seed, shuffled=shuffled)
        return self.encode(prompts)

    def sentences(self, task: Task) -> Encoded:
        """The same queries in each sentence of the town that names no relation, up to where the answer would stand."""
        asked = icl_prompts(task, self.templates[0], shots=0, n=min(self.scored, len(task.pairs)), seed=self.seed)
        return self.encode(
            [
                ICLPrompt(sentence.partition(" {y}")[0].format(x=prompt.query.input), (), prompt.query)
                for sentence in SILENT
                for prompt in asked
            ]
        )

    def encode(self, prompts: Sequence[ICLPrompt]) -> Encoded:
        return encode(self.tokenizer, prompts, bos=self.bos, n_ctx=self.n_ctx)

    def answers(self, task: Task) -> Int[Tensor, " token"]:
        """First tokens of the task's answers."""
        return answer_set(self.tokenizer, task)


def list_tasks(task: Task, n: int, seed: int) -> dict[str, Task]:
    """The four tasks on `n` different lists of three of a task's inputs, the same lists for all, by `PARTS`."""
    generator, lists = random.Random(seed), dict[tuple[str, ...], tuple[Pair, ...]]()
    while len(lists) < n:
        drawn = tuple(generator.sample(task.pairs, LIST_LENGTH))
        lists.setdefault(tuple(pair.input for pair in drawn), drawn)
    answers = {
        "first_copy": lambda drawn: drawn[0].input,
        "last_copy": lambda drawn: drawn[-1].input,
        "first_f": lambda drawn: drawn[0].output,
        "last_f": lambda drawn: drawn[-1].output,
    }
    return {
        part: Task(
            f"{part} of {task.name}",
            tuple(Pair(", ".join(words), answers[part](drawn)) for words, drawn in lists.items()),
        )
        for part in PARTS
    }

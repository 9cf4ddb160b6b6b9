"""What all stages share: the model, its runner, the tasks that it can be shown, and the number of trials."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from jaxtyping import Float, Int
from replications.task_vectors import prompts
from replications.task_vectors.prompts import Entry, Shown
from torch import Tensor

from function_vectors import Encoded, ICLPrompt, Task, Template, backends, encode, icl_prompts, task_vectors
from function_vectors.runners import Runner
from interventions import Model, Tokenizer
from reprise import Job


@dataclass(frozen=True)
class Trials:
    """Demonstrations a prompt; prompts a task on which its layer is chosen, that are scored, and a conflict of two."""

    shots: int
    chosen_on: int
    scored_on: int
    conflict: int
    vectors: int


TRIALS = {
    "tiny": Trials(shots=10, chosen_on=16, scored_on=32, conflict=8, vectors=24),
    "paper": Trials(shots=5, chosen_on=50, scored_on=50, conflict=100, vectors=50),  # as in the public code
}


@dataclass(frozen=True)
class Bench:
    """A model on which tasks are shown, with what all stages share."""

    model: Model
    tokenizer: Tokenizer
    runner: Runner
    template: Template
    entries: list[Entry]
    skipped: dict[str, str]
    trials: Trials
    seed: int

    def encode(self, shown: list[ICLPrompt]) -> Encoded:
        return encode(self.tokenizer, shown, bos=self.model.bos, n_ctx=self.model.n_ctx)

    def shown(self, entry: Entry, queries: Task, n: int) -> Shown:
        return prompts.shown(entry, queries, self.template, shots=self.trials.shots, n=n, seed=self.seed)

    def streams(self, shown: Shown) -> Float[Tensor, "prompt dummy layer d_model"]:
        """The stream of each dummy query; the mean over the dummies of a prompt is its task vector."""
        found = task_vectors(self.runner, self.encode(shown.dummies).prompts)
        return found.view(-1, prompts.DUMMIES, *found.shape[1:])

    def facts(self) -> dict[str, object]:
        return {
            "tasks": [entry.name for entry in self.entries],
            "kinds": [entry.kind for entry in self.entries],
            "primary": [entry.primary for entry in self.entries],
            "n_layers": self.runner.n_layers,
            "shots": self.trials.shots,
        }


def bench_of(job: Job) -> Bench:
    """The job's model, and the tasks that it can be shown.

    Raises:
        ValueError: the model has no tokenizer.
        TaskError: no primary task can be shown.
        BackendError: the job's backend lacks something here.
    """
    backed, trials = backends.load(job.backend, job.model.location, device=job.device, dtype=job.dtype), TRIALS
    model, tokenizer = backed.model, backed.tokenizer
    shots = trials[job.tier].shots
    found, skipped = prompts.entries(prompts.tasks_of(job), tokenizer, shots=shots, seed=job.seed)
    template = prompts.template_of(job.root)
    return Bench(model, tokenizer, backed.runner, template, found, skipped, trials[job.tier], job.seed)


def answers(bench: Bench, entry: Entry) -> Int[Tensor, " token"]:
    """First tokens of all answers of a task, as they follow its queries."""
    every = icl_prompts(entry.task, bench.template, shots=0, n=len(entry.task.pairs), seed=bench.seed)
    return torch.tensor(sorted(set(bench.encode(every).first.tolist())))


def told_apart(bench: Bench, ours: Task, theirs: Task) -> tuple[Task, Task]:
    """The pairs of two tasks whose answers differ in the first token."""
    first = [
        bench.encode([prompts.asking(bench.template, (), pair) for pair in task.pairs]).first for task in (ours, theirs)
    ]
    kept = (first[0] != first[1]).nonzero()[:, 0].tolist()
    return (
        Task(ours.name, tuple(ours.pairs[at] for at in kept)),
        Task(theirs.name, tuple(theirs.pairs[at] for at in kept)),
    )

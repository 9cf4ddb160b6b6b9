"""The model, the tasks and the trial counts of a run.

Primary tasks are those that claims are about: the relations of the town for the shipped model, the six of the paper at
the paper tier, all tasks of a folder that was given by --data. Natural word tasks stand beside them and are reported
apart. The pairs of every task are split in two halves, the same in every stage: means, effects, and the choice of
heads, their number and the layer are of the first, all scores are of the second. For the gate of the primary tasks the
halves are exchanged as well, so that it has all pairs. Demonstrations come from the half of their query.

Pairs with a word that the tokenizer does not know are left out. A task is left out, with the reason, where too few
pairs are left for ten demonstrations in either half, or where its prompts cannot be encoded.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import wraps
from typing import Any

from replications.function_vectors.prompts import Prompter

from function_vectors import EncodingError, Pair, Task, TaskError, backends, load_tasks, load_templates, split
from function_vectors.backends import Backed
from function_vectors.runners import Runner
from interventions import ModelError, Tokenizer
from reprise import Job, Result

PRIMARY, NATURAL = "primary", "natural"
TOWN, WORDS, GIVEN = "town", "words", "data"
SIX = ("antonym", "capitalize", "country_capital", "english_french", "present_past", "singular_plural")
SHARES = (0.5, 0.5)
# Numbers of heads by model type and layers: GPT-J from the public code, Llama-2 7B, 13B and 70B as remembered.
HEADS_OF_PAPER: Mapping[tuple[str, int], int] = {
    ("gptj", 28): 10,
    ("llama", 32): 20,
    ("llama", 40): 50,
    ("llama", 80): 100,
}
LISTS_MODEL = "relations-lists-4l"


@dataclass(frozen=True)
class Trials:
    """Prompts a task: for mean outputs, for those of natural tasks, for indirect effects, and at most for scores.

    `draws` of random heads and random vectors count by their mean, `rebuilds` of a vector from its tokens likewise,
    each of `steps`. `lists` prompts are for each part of a composed task, `examples` prompts with examples for each
    template. `batch` prompts run at a time.
    """

    shots: int = 10
    means: int = 100
    natural_means: int = 100
    effects: int = 25
    scored: int = 100
    draws: int = 5
    rebuilds: int = 3
    steps: int = 1000
    lists: int = 50
    examples: int = 5
    batch: int = 16


# Means over 100 and effects over 25 prompts of 10 shots are the paper's counts.
TRIALS = {"tiny": Trials(natural_means=25, draws=3, batch=64), "paper": Trials()}


@dataclass(frozen=True)
class Source:
    """Where the tasks are from, and the two groups of them by name."""

    name: str
    primary: Mapping[str, Task]
    natural: Mapping[str, Task]


@dataclass(frozen=True)
class Halves:
    """A task's group, the places of its pairs of known words, and the two halves of these.

    `chosen_on` is for means and choices, `scored_on` for scores.
    """

    group: str
    known: tuple[int, ...]
    chosen_on: Task
    scored_on: Task

    @property
    def exchanged(self) -> Halves:
        return replace(self, chosen_on=self.scored_on, scored_on=self.chosen_on)

    @property
    def whole(self) -> Task:
        return Task(self.chosen_on.name, (*self.chosen_on.pairs, *self.scored_on.pairs))


@dataclass(frozen=True)
class Setting:
    """What a stage works with; `left_out` says why some tasks are not among `tasks`."""

    backed: Backed
    prompts: Prompter
    trials: Trials
    source: str
    tasks: Mapping[str, Halves]
    left_out: Mapping[str, str]

    @property
    def runner(self) -> Runner:
        return self.backed.runner

    @property
    def heads_of_paper(self) -> int | None:
        """How many heads the paper takes for such a model; None for others."""
        config: Any = self.backed.model.network.config
        return HEADS_OF_PAPER.get((config.model_type, config.num_hidden_layers))

    def of(self, group: str) -> dict[str, Halves]:
        return {name: halves for name, halves in self.tasks.items() if halves.group == group}

    @property
    def primary(self) -> dict[str, Halves]:
        return self.of(PRIMARY)

    @property
    def exchanged(self) -> Setting:
        """The primary tasks with their halves exchanged; natural tasks are left out."""
        return replace(self, tasks={name: halves.exchanged for name, halves in self.primary.items()})


def main_model_only(stage: Callable[[Job], Result]) -> Callable[[Job], Result]:
    """A stage that is left out for the model of the tiny tier that is there for composition alone."""

    @wraps(stage)
    def run(job: Job) -> Result:
        if job.model.name == LISTS_MODEL and len(job.models) > 1:
            return Result({}, {"left_out": f"{LISTS_MODEL} is there for composition"})
        return stage(job)

    return run


def tasks_of(job: Job) -> Source:
    """The tasks of a run.

    Raises:
        TaskError: naming file and line, for a task that cannot be read or has too few pairs for its two halves.
    """
    at_least = 2 * (TRIALS[job.tier].shots + 1)
    if job.data is not None:
        return Source(GIVEN, load_tasks(job.data, at_least=at_least, repeats="first"), {})
    shipped = job.root / "shared" / "data"
    words = load_tasks(shipped / "tasks", at_least=at_least)
    if job.tier == "tiny":
        return Source(TOWN, load_tasks(shipped / "town", at_least=at_least), words)
    return Source(
        WORDS, {name: words[name] for name in SIX}, {name: task for name, task in words.items() if name not in SIX}
    )


def settle(job: Job) -> Setting:
    """The model and the tasks of a job; behind the first stage, the tasks that this one admitted.

    Raises:
        ModelError: the model cannot be loaded, or has no tokenizer.
        BackendError: the job's backend lacks something here.
        TaskError: as `tasks_of`; or fewer than two primary tasks are left.
    """
    source, trials = tasks_of(job), TRIALS[job.tier]
    templates = load_templates(job.root / "shared" / "data" / "templates.json")
    backed = backends.load(job.backend, job.model.location, device=job.device, dtype=job.dtype, batch_size=trials.batch)
    model = backed.model
    if model.tokenizer is None:
        raise ModelError(
            f"{job.model.name}: no tokenizer; function vectors are of words, add tokenizer.json to the model's folder"
        )
    prompts = Prompter(model.tokenizer, model.bos, model.n_ctx, templates, trials.scored, job.seed)
    earlier = job.inputs.by_stage.get("means", {}).get(job.model.name)
    tasks: dict[str, Halves] = {}
    left_out: dict[str, str] = {}
    for group, of in ((PRIMARY, source.primary), (NATURAL, source.natural)):
        for name, task in of.items():
            if earlier is not None:  # telling which words are known takes seconds, so it is done once
                found: Halves | str = earlier.facts["left_out"].get(name) or _halves(
                    prompts, group, task, earlier.facts["known"][name]
                )
            else:
                found = _admit(prompts, group, task, trials.shots)
            if isinstance(found, Halves):
                tasks[name] = found
            else:
                left_out[name] = found
    setting = Setting(backed, prompts, trials, source.name, tasks, left_out)
    if len(setting.primary) < 2:
        reasons = "; ".join(f"{name}: {reason}" for name, reason in left_out.items() if name in source.primary)
        raise TaskError(
            f"{job.model.name}: {len(setting.primary)} tasks that it can be asked, expected at least 2, since another "
            f"task's vector is one of the controls; add tasks{f' or mend these ({reasons})' if reasons else ''}"
        )
    return setting


def _admit(prompts: Prompter, group: str, task: Task, shots: int) -> Halves | str:
    """The halves of a task's pairs of known words, or why there are none."""
    known = [place for place, pair in enumerate(task.pairs) if _is_known(prompts.tokenizer, pair)]
    if len(known) < 2 * (shots + 1):
        return (
            f"{len(known)} of {len(task.pairs)} pairs are of words that the tokenizer knows, expected {2 * shots + 2}"
        )
    halves = _halves(prompts, group, task, known)
    try:
        prompts.answers(halves.whole)
        prompts.encoded(halves.chosen_on, shots=shots)
        prompts.encoded(halves.scored_on, shots=shots)
    except EncodingError as error:
        return str(error)
    return halves


def _halves(prompts: Prompter, group: str, task: Task, known: Sequence[int]) -> Halves:
    pairs = tuple(task.pairs[place] for place in known)
    return Halves(group, tuple(known), *split(Task(task.name, pairs), seed=prompts.seed, shares=SHARES))


def _is_known(tokenizer: Tokenizer, pair: Pair) -> bool:
    words = (pair.input, pair.output)
    return all(tokenizer.decode(tokenizer.encode(f" {word}")).strip().endswith(word) for word in words)

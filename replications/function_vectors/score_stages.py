"""What the vector does, on the second half of each task's pairs: the gate, by layer, by number of heads, by task.

The gate of the primary tasks has the first halves too, with vectors that were made from and chosen by the second.

Right or wrong is stored for every query; an axis behind the first is layers, draws or numbers of heads. `task` says
whose query it is, as a place in the fact `tasks`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import torch
from replications.function_vectors.extraction_stages import Array, array, numbers
from replications.function_vectors.setting import NATURAL, PRIMARY, TOWN, Halves, Setting, main_model_only, settle
from replications.function_vectors.vectors import (
    AVERAGE,
    DIFFERENCES,
    VECTOR,
    choice,
    drawn_heads,
    edits_of,
    stored_z,
    vectors_of,
)

from function_vectors import (
    Criterion,
    Encoded,
    FunctionVector,
    Gate,
    Runner,
    StreamEdit,
    adding,
    gate,
    gate_by_task,
    gate_together,
    of_another_task,
    score,
    score_by_edit,
    score_by_k,
    score_by_layer,
    whole_answers,
)
from reprise import Job, Result

FIXED = (VECTOR, AVERAGE, *DIFFERENCES)  # what has a layer of its own to be chosen


def gate_stage(job: Job) -> Result:
    """The controls of `function_vectors.gate` for every task, natural ones with vectors of the same heads.

    Of primary tasks on all queries: `fold` is 0 for those of the second halves, 1 for those of the first, which have
    the vectors of the stage `exchanged`.
    """
    setting = settle(job)
    groups = [group for group in (PRIMARY, NATURAL) if len(setting.of(group)) > 1]  # another task's is of its group
    names = [name for group in groups for name in setting.of(group)]
    rounds = [(0, setting, group, "means", "selection") for group in groups]
    rounds.append((1, setting.exchanged, PRIMARY, "exchanged", "exchanged"))
    gates: list[Gate] = []
    parts: dict[str, list[Array]] = {}
    for fold, of, group, means, selection in rounds:
        z, chosen = stored_z(job, means), choice(job, selection)
        vectors = vectors_of(of, z, chosen.heads, chosen.layer, group)
        random = [vectors_of(of, z, heads, chosen.layer, group) for heads in drawn_heads(of, chosen, job.seed)]
        for name, halves in of.of(group).items():
            job.progress(len(gates), len(names) + len(setting.primary))
            found = _gate(of, halves, vectors[name], [each[name] for each in random], of_another_task(vectors, name))
            columns = {
                "in_context": found.in_context.right,
                "shuffled": found.shuffled.right,
                "zero_shot": found.zero_shot.right,
                "among_answers": found.zero_shot_among_answers.right,
                "vector": found.with_vector.right,
                "random_heads": torch.cat([each.right for each in found.with_random_heads], dim=1),
                "another": found.with_another_task.right[:, 0],
                "task": torch.full((found.zero_shot.n,), names.index(name)),
                "fold": torch.full((found.zero_shot.n,), fold),
            }
            for label, values in columns.items():
                parts.setdefault(label, []).append(array(values))
            gates.append(found)
    facts = {
        "tasks": names,
        "groups": [setting.tasks[name].group for name in names],
        "criteria": {name: _rows(criteria) for name, criteria in gate_by_task(gates).items()},
        "together": _rows(gate_together([each for each in gates if each.task in setting.primary])),
        "choices": [[choice(job, stage).k, choice(job, stage).layer] for stage in ("selection", "exchanged")],
    }
    return Result({label: np.concatenate(values) for label, values in parts.items()}, facts)


def _gate(
    setting: Setting, halves: Halves, vector: FunctionVector, random: list[FunctionVector], another: FunctionVector
) -> Gate:
    prompts, shots = setting.prompts, setting.trials.shots
    return gate(
        setting.runner,
        vector,
        in_context=prompts.encoded(halves.scored_on, shots=shots),
        shuffled=prompts.encoded(halves.scored_on, shots=shots, shuffled=True),
        zero_shot=prompts.encoded(halves.scored_on, shots=0),
        answers=prompts.answers(halves.whole),
        random_heads=random,
        another_task=another,
    )


def _rows(criteria: Sequence[Criterion]) -> list[list[object]]:
    return [[each.name, each.value, each.sense, each.threshold, each.passed] for each in criteria]


@main_model_only
def layers(job: Job) -> Result:
    """Accuracy with the vector and every baseline at each layer: zero-shot, shuffled labels, natural text.

    `chosen.*` is on the first halves, zero-shot: there the layers at which baselines are compared are chosen.
    """
    setting, chosen = settle(job), choice(job)
    runner, prompts, shots = setting.runner, setting.prompts, setting.trials.shots
    edits = edits_of(job, setting, chosen)
    parts: dict[str, list[Array]] = {}
    for done, (name, halves) in enumerate(setting.primary.items()):
        job.progress(done, len(setting.primary))
        shown = {
            "chosen": prompts.encoded(halves.chosen_on, shots=0),
            "zero_shot": prompts.encoded(halves.scored_on, shots=0),
            "shuffled": prompts.encoded(halves.scored_on, shots=shots, shuffled=True),
        }
        if setting.source == TOWN:
            shown["sentences"] = prompts.sentences(halves.scored_on)
        for condition, encoded in shown.items():
            parts.setdefault(f"{condition}.task", []).append(np.full(len(encoded.answers), done, dtype=np.float32))
            parts.setdefault(f"{condition}.plain", []).append(array(score(runner, encoded).right))
            of = {label: each[name] for label, each in edits.items() if condition != "chosen" or label in FIXED}
            for label, right in by_layer(runner, encoded, of).items():
                parts.setdefault(f"{condition}.{label}", []).append(right)
    facts = {"tasks": list(setting.primary), "layer": chosen.layer, "k": chosen.k, "labels": list(edits)}
    return Result({label: np.concatenate(values) for label, values in parts.items()}, facts)


def by_layer(runner: Runner, encoded: Encoded, edits: Mapping[str, Sequence[StreamEdit]]) -> dict[str, Array]:
    """By label [query, layer] share of its edits with which the query is answered right."""
    scores = iter(score_by_edit(runner, encoded, [edit for some in edits.values() for edit in some]))
    right = {label: np.stack([array(next(scores).right) for _ in some]) for label, some in edits.items()}
    return {label: draws.mean(axis=0) for label, draws in right.items()}


@main_model_only
def heads(job: Job) -> Result:
    """Accuracy at the chosen layer by number of heads, those of largest effect first, and those of smallest."""
    setting, chosen, z = settle(job), choice(job), stored_z(job)
    ks = sorted({*numbers(len(chosen.order)), chosen.k})
    orders = {"largest": chosen.order, "smallest": chosen.order[::-1]}
    parts: dict[str, list[Array]] = {}
    for done, (name, halves) in enumerate(setting.primary.items()):
        job.progress(done, len(setting.primary))
        shown = {
            "zero_shot": setting.prompts.encoded(halves.scored_on, shots=0),
            "shuffled": setting.prompts.encoded(halves.scored_on, shots=setting.trials.shots, shuffled=True),
        }
        parts.setdefault("task", []).append(np.full(len(shown["zero_shot"].answers), done, dtype=np.float32))
        for condition, encoded in shown.items():
            parts.setdefault(f"{condition}.plain", []).append(array(score(setting.runner, encoded).right))
            for label, order in orders.items():
                scores = score_by_k(setting.runner, encoded, z[name], order, ks, layers=[chosen.layer])
                parts.setdefault(f"{condition}.{label}", []).append(array(scores.right[:, :, 0]))
    facts = {"ks": ks, "k": chosen.k, "n_heads": len(chosen.order), "tasks": list(setting.primary)}
    return Result({label: np.concatenate(values) for label, values in parts.items()}, facts)


@main_model_only
def table(job: Job) -> Result:
    """Every task without and with the vector at the chosen layer: first token and whole answer."""
    setting, chosen = settle(job), choice(job)
    runner, prompts, shots, at = setting.runner, setting.prompts, setting.trials.shots, [chosen.layer]
    parts: dict[str, list[Array]] = {}
    vectors = {
        name: vector
        for group in (PRIMARY, NATURAL)
        for name, vector in vectors_of(setting, stored_z(job), chosen.heads, chosen.layer, group).items()
    }
    for done, (name, halves) in enumerate(setting.tasks.items()):
        job.progress(done, len(setting.tasks))
        shown = {
            "zero_shot": prompts.encoded(halves.scored_on, shots=0),
            "shuffled": prompts.encoded(halves.scored_on, shots=shots, shuffled=True),
            "in_context": prompts.encoded(halves.scored_on, shots=shots),
        }
        edit = adding(vectors[name].vector)
        found: dict[str, Array] = {"task": np.full(len(shown["zero_shot"].answers), done, dtype=np.float32)}
        for condition, encoded in shown.items():
            found[f"{condition}.first"] = array(score(runner, encoded).right)
            found[f"{condition}.whole"] = array(whole_answers(runner, encoded).right)
            if condition != "in_context":
                first, whole = (
                    score_by_layer(runner, encoded, edit, layers=at),
                    whole_answers(runner, encoded, edit, layers=at),
                )
                found[f"{condition}.first.vector"] = array(first.right[:, 0])
                found[f"{condition}.whole.vector"] = array(whole.right[:, 0])
        for label, values in found.items():
            parts.setdefault(label, []).append(values)
    groups = [halves.group for halves in setting.tasks.values()]
    return Result(
        {label: np.concatenate(values) for label, values in parts.items()},
        {"tasks": list(setting.tasks), "groups": groups, "left_out": dict(setting.left_out), "layer": chosen.layer},
    )

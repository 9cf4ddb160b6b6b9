"""What the vector is: the tokens that it decodes to, what it adds up with, and whether it depends on its template."""

from __future__ import annotations

import numpy as np
import torch
from replications.function_vectors.extraction_stages import Array, array
from replications.function_vectors.prompts import PARTS, list_tasks
from replications.function_vectors.setting import TOWN, Setting, main_model_only, settle
from replications.function_vectors.vectors import choice, stored_z, vectors_of

from function_vectors import (
    Encoded,
    EncodingError,
    FunctionVector,
    adding,
    composed,
    decode,
    function_vector,
    mean_z_of_right,
    rebuild,
    score,
    score_by_layer,
)
from reprise import Job, Result
from zoo.in_context_text import TRAINED_TEMPLATES
from zoo.town import RELATIONS

DECODED, REBUILT_FROM = 10, 100
DOES = 0.5  # 10-shot accuracy from which a model counts as able to do a task
COMPOSED = ("antonym", "capitalize", "country_capital", "english_french", "present_past", "singular_plural")


@main_model_only
def decoding(job: Job) -> Result:
    """The most likely tokens of every primary task's vector, and what vectors rebuilt from a hundred of them do."""
    setting, chosen = settle(job), choice(job)
    runner, trials = setting.runner, setting.trials
    words, probabilities, named, right, divergence = [], [], [], [], []
    for done, (name, vector) in enumerate(vectors_of(setting, stored_z(job), chosen.heads, chosen.layer).items()):
        job.progress(done, len(setting.primary))
        halves = setting.tasks[name]
        found = decode(runner, vector, DECODED)
        words.append(found.words(setting.prompts.tokenizer))
        probabilities.append(array(found.probabilities))
        named.append(array(torch.isin(found.tokens, setting.prompts.answers(halves.whole))))
        zero_shot = setting.prompts.encoded(halves.scored_on, shots=0)
        original = array(_right(setting, zero_shot, vector))
        n = min(REBUILT_FROM, runner.decoded(vector.vector[None]).shape[-1])
        again = [
            rebuild(setting.backed.readout, vector, n=n, seed=job.seed + start, steps=trials.steps)
            for start in range(trials.rebuilds)
        ]
        rebuilt = np.mean([array(_right(setting, zero_shot, each.vector)) for each in again], axis=0)
        right.append(np.stack([np.full(len(original), done), original, rebuilt], axis=1))
        divergence.append([each.divergence for each in again])
    task, original, rebuilt = np.concatenate(right).astype(np.float32).T
    arrays = {
        "probabilities": np.stack(probabilities),
        "named": np.stack(named),
        "task": task,
        "original": original,
        "rebuilt": rebuilt,
        "divergence": np.array(divergence, dtype=np.float32),
    }
    return Result(arrays, {"tasks": list(setting.primary), "words": words, "n": n, "layer": chosen.layer})


def composition(job: Job) -> Result:
    """v(last-f) = v(first-f) + v(last-copy) - v(first-copy) on lists, where the model does those three parts.

    A model that does not do the parts in context has no vectors to compose: then only how well it does them is stored.
    """
    setting, chosen = settle(job), choice(job)
    runner, prompts, trials = setting.runner, setting.prompts, setting.trials
    known = (*COMPOSED, *(RELATIONS if setting.source == TOWN else ()))
    names, skipped, abilities, parts = [], {}, [], []
    for done, name in enumerate(known):
        job.progress(done, len(known))
        if name not in setting.tasks:
            skipped[name] = "no such task among those that the model can be asked"
            continue
        of_lists = list_tasks(setting.tasks[name].chosen_on, trials.lists, job.seed)
        scored_on = list_tasks(setting.tasks[name].scored_on, trials.lists, job.seed)
        try:
            clean = {part: prompts.encoded(of_lists[part], shots=trials.shots) for part in PARTS}
            zero_shot = prompts.encoded(scored_on["last_f"], shots=0)
        except EncodingError as error:
            skipped[name] = str(error)
            continue
        right, z = {}, {}
        for part in PARTS:
            right[part], z[part] = mean_z_of_right(runner, clean[part])
        names.append(name)
        abilities.append([float(right[part].float().mean()) for part in PARTS])
        if not all(abilities[-1][PARTS.index(part)] >= DOES for part in ("first_copy", "last_copy", "first_f")):
            continue
        vectors = {part: function_vector(runner, z[part], chosen.heads, task=part) for part in PARTS}
        sum_of_parts = composed(vectors["first_f"], vectors["last_copy"], vectors["first_copy"], task="last_f")
        found = [score(runner, zero_shot).right] + [
            _right(setting, zero_shot, vector.at(chosen.layer)) for vector in (sum_of_parts, vectors["last_f"])
        ]
        parts.append(np.stack([np.full(len(found[0]), len(names) - 1), *map(array, found)], axis=1))
    columns = np.concatenate(parts) if parts else np.zeros((0, 4))
    arrays = {"abilities": np.array(abilities, dtype=np.float32).reshape(-1, len(PARTS))}
    for label, values in zip(("task", "plain", "composed", "own"), columns.T, strict=True):
        arrays[label] = values.astype(np.float32)
    return Result(arrays, {"tasks": names, "skipped": skipped, "parts": list(PARTS), "does": DOES})


@main_model_only
def templates(job: Job) -> Result:
    """The vector of the first template in zero-shot prompts of every template; `trained` where that is known."""
    setting, chosen = settle(job), choice(job)
    vectors = vectors_of(setting, stored_z(job), chosen.heads, chosen.layer)
    names, skipped, found = [], {}, []
    for at, template in enumerate(setting.prompts.templates):
        job.progress(at, len(setting.prompts.templates))
        try:
            found.append(_in_template(setting, vectors, at))
            names.append(template.name)
        except EncodingError as error:
            skipped[template.name] = str(error)
    known = setting.source == TOWN
    facts = {
        "templates": names,
        "skipped": skipped,
        "trained": [name in TRAINED_TEMPLATES for name in names] if known else None,
        "tasks": list(setting.primary),
    }
    plain, with_vector, in_context = (np.stack(values) for values in zip(*found, strict=True))
    return Result({"plain": plain, "vector": with_vector, "in_context": in_context}, facts)


def _in_template(setting: Setting, vectors: dict[str, FunctionVector], template: int) -> tuple[Array, Array, Array]:
    """[query] right without examples, with the vector, and with ten examples, all primary tasks."""
    parts: tuple[list[Array], list[Array], list[Array]] = ([], [], [])
    for name, halves in setting.primary.items():
        zero_shot = setting.prompts.encoded(halves.scored_on, shots=0, template=template)
        shots, n = setting.trials.shots, min(setting.trials.examples, len(halves.scored_on.pairs))
        in_context = setting.prompts.encoded(halves.scored_on, shots=shots, n=n, template=template)
        parts[0].append(array(score(setting.runner, zero_shot).right))
        parts[1].append(array(_right(setting, zero_shot, vectors[name])))
        parts[2].append(array(score(setting.runner, in_context).right))
    plain, with_vector, shown = (np.concatenate(part) for part in parts)
    return plain, with_vector, shown


def _right(setting: Setting, encoded: Encoded, vector: FunctionVector) -> torch.Tensor:
    """Right or wrong with the vector at its layer."""
    assert vector.layer is not None
    return score_by_layer(setting.runner, encoded, adding(vector.vector), layers=[vector.layer]).right[:, 0]

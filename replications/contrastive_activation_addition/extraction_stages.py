"""Stages 1 to 3: whether the model answers at all, the vectors, and how the classes they tell apart lie.

    v_l = mean over pairs of  h_l(form with the letter that matches) - h_l(form with the other)      at the letter

of the stream behind each layer (Rimsky et al. 2024, section 3.1), then scaled so that all behaviours' vectors have the
same norm in a layer, their mean norm, as the paper's public code does: so a multiplier means the same for all.

Two other readings stand beside it: of the same pairs at the word of the option, which the stories' format repeats
behind the letter; and of texts that show the behaviour against texts that show its contrary, at the end of the
question, before any answer.
"""

from __future__ import annotations

from random import Random

import numpy as np
import torch
from replications.contrastive_activation_addition.behaviours import Asked, Behaviour
from replications.contrastive_activation_addition.setting import Array, Setting, settle

from reprise import Job, Result
from steering import (
    SteeringVector,
    answers,
    between,
    class_activations,
    contrastive,
    layer_cosines,
    separability,
    vector_cosines,
)

LETTER, OPTION, TEXT = READINGS = ("letter", "option", "text")
EVIDENCE = ("none", "advance", "shown", "contrary")


def gate(job: Job) -> Result:
    """Which questions the unsteered model answers right, form by form; none where no right answers are known."""
    setting = settle(job)
    arrays: dict[str, Array] = {}
    asked_of = {behaviour.name: behaviour.gated_on for behaviour in setting.behaviours if behaviour.gated_on}
    for done, (name, asked) in enumerate(asked_of.items()):
        job.progress(done, len(asked_of))
        found = answers(setting.model, [each.question for each in asked], batch_size=setting.trials.batch)
        p = found.p.double().numpy()
        says_right = np.array([p if each.right == each.matching else 1 - p for each, p in zip(asked, p, strict=True)])
        arrays |= {f"{part}/{name}": values for part, values in forms_of(asked).items()}
        arrays |= {f"right/{name}": says_right > 0.5, f"mass/{name}": found.mass.double().numpy()}
    return Result(arrays, {**setting.facts(), "gated": list(asked_of)})


def extraction(job: Job) -> Result:
    """Every behaviour's vector in every layer for each reading, norms before scaling, and cosines of the paper's."""
    setting = settle(job)
    kinds = [reading for reading in READINGS if all(_has(behaviour, reading) for behaviour in setting.behaviours)]
    steps = len(kinds) * len(setting.behaviours) + 1
    arrays: dict[str, Array] = {}
    for reading in kinds:
        vectors: list[SteeringVector] = []
        for behaviour in setting.behaviours:
            job.progress(kinds.index(reading) * len(setting.behaviours) + len(vectors), steps)
            vectors.append(_vector(setting, behaviour, reading))
        raw = np.stack([_stacked(vector) for vector in vectors])  # [behaviour, layer, d_model]
        norms = np.linalg.norm(raw, axis=-1, keepdims=True)
        common = norms.mean(axis=0)
        arrays |= {f"vectors/{reading}": (raw / norms * common).astype(np.float32), f"norms/{reading}": norms[..., 0]}
        if reading != LETTER:
            continue
        arrays["between_layers"] = np.stack([layer_cosines(vector).numpy() for vector in vectors])
        arrays["between_behaviours"] = np.stack([vector_cosines(vectors, at).numpy() for at in vectors[0].layers])
        pairs = (asked.letter_pair for behaviour in setting.behaviours for asked in behaviour.extracted_from)
        of_a = _stacked(contrastive(setting.model, pairs, batch_size=setting.trials.batch, name="letters"))
        arrays["letters"] = (of_a / np.linalg.norm(of_a, axis=-1, keepdims=True) * common).astype(np.float32)
    pairs_of = [len(behaviour.extracted_from) for behaviour in setting.behaviours]
    return Result(arrays, {**setting.facts(), "pairs": pairs_of, "readings": kinds})


def _has(behaviour: Behaviour, reading: str) -> bool:
    if reading == OPTION:
        return all(asked.completions is not None for asked in behaviour.extracted_from)
    kinds = {asked.evidence for asked in behaviour.extracted_from}
    return reading == LETTER or {"shown", "contrary"} <= kinds


def _vector(setting: Setting, behaviour: Behaviour, reading: str) -> SteeringVector:
    model, asked, batch = setting.model, behaviour.extracted_from, setting.trials.batch
    if reading == TEXT:
        sides = [[each.prompt for each in asked if each.evidence == kind] for kind in ("shown", "contrary")]
        return between(model, *sides, read=-1, batch_size=batch, name=behaviour.name)
    pairs = (each.pair if reading == LETTER else each.completed_pair for each in asked)
    return contrastive(model, pairs, batch_size=batch, name=behaviour.name)


def picture(job: Job) -> Result:
    """The two classes of texts in the plane, layer by layer, and how often a held-out text lies on its own side."""
    setting = settle(job)
    arrays: dict[str, Array] = {}
    for done, behaviour in enumerate(setting.behaviours):
        job.progress(done, len(setting.behaviours))
        every = behaviour.extracted_from
        asked = Random(setting.seed).sample(every, min(len(every), setting.trials.pictured))
        pairs = [each.pair for each in asked]
        classes = [
            class_activations(setting.model, texts, batch_size=setting.trials.batch)
            for texts in ([pair.positive for pair in pairs], [pair.negative for pair in pairs])
        ]
        found = separability(classes[0], classes[1], seed=setting.seed)
        arrays |= {
            f"coordinates/{behaviour.name}": found.coordinates.numpy(),
            f"positive/{behaviour.name}": found.positive.numpy(),
            f"shares/{behaviour.name}": found.shares.numpy(),
            f"right/{behaviour.name}": found.right.numpy(),
        }
    return Result(arrays, setting.facts())


def forms_of(asked: tuple[Asked, ...]) -> dict[str, Array]:
    """What each question is: the number of its item, its form, its letter, and its evidence, by place in EVIDENCE."""
    numbers = {name: number for number, name in enumerate(dict.fromkeys(each.item for each in asked))}
    return {
        "item": np.array([numbers[each.item] for each in asked]),
        "swapped": np.array([each.swapped for each in asked]),
        "reversed": np.array([each.reversed for each in asked]),
        "evidence": np.array([EVIDENCE.index(each.evidence) for each in asked]),
        "matching": np.array([each.matching for each in asked]),
    }


def _stacked(vector: SteeringVector) -> Array:
    return torch.stack([vector.directions[layer] for layer in vector.layers]).double().numpy()

"""Stages 4 to 7: the probability of the answer that matches a behaviour, with vectors and with what should do nothing.

    effect = mean over questions of  p(match | multiplier +1) - p(match | multiplier -1)

The layer is the one of the largest effect, mean over behaviours, on items that are not scored. A vector acts from the
last token of the prompt on, the letter's own opening included.

Controls, at the chosen layer and at the vector's norm: random vectors; the next behaviour's vector; a vector for the
letter A; the vector at the output of the last layer, which nothing reads any more; and one constant on the logits, the
mean change that the vector makes to logit(A) - logit(B).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from replications.contrastive_activation_addition.behaviours import Asked, after_prompts, following
from replications.contrastive_activation_addition.extraction_stages import forms_of
from replications.contrastive_activation_addition.setting import (
    MINUS,
    PLUS,
    Setting,
    is_main,
    letter_vector_of,
    settle,
    vectors_of,
)

from reprise import Job, Result
from steering import (
    EncodedQuestions,
    Everywhere,
    Positions,
    Steer,
    SteeringVector,
    answers,
    answers_under,
    encode_questions,
    random_like,
)

Array = NDArray[np.float64]
ENDS = (MINUS, PLUS)


@dataclass(frozen=True)
class Asking:
    """Questions as they are asked under every vector: their tokens, and where a vector acts."""

    tokens: EncodedQuestions
    where: Positions


def sweep(job: Job) -> Result:
    """Chooses the layer, then asks the scored questions in every layer with every multiplier."""
    setting = settle(job)
    vectors = vectors_of(setting, job.inputs.of("extraction")[job.model.name])
    layers = range(setting.n_layers)
    arrays: dict[str, NDArray[Any]] = {}
    total = 2 * len(setting.behaviours)
    for done, behaviour in enumerate(setting.behaviours):
        job.progress(done, total)
        asked, vector = asking(setting, behaviour.chosen_on), vectors[behaviour.name]
        arrays[f"chosen_on/{behaviour.name}"] = by_layer(setting, asked, vector, layers, ENDS)
    chosen = {name: values[:, 1] - values[:, 0] for name, values in arrays.items()}
    layer = int(np.mean([effect.mean(axis=-1) for effect in chosen.values()], axis=0).argmax())
    for done, behaviour in enumerate(setting.behaviours, start=len(setting.behaviours)):
        job.progress(done, total)
        asked, vector = asking(setting, behaviour.scored_on), vectors[behaviour.name]
        arrays[f"p/{behaviour.name}"] = by_layer(setting, asked, vector, layers, setting.trials.multipliers)
        arrays[f"plain/{behaviour.name}"] = p_match(setting, asked)
        arrays |= {f"{name}/{behaviour.name}": values for name, values in forms_of(behaviour.scored_on).items()}
    return Result(arrays, {**setting.facts(), "multipliers": list(setting.trials.multipliers), "layer": layer})


def controls(job: Job) -> Result:
    """p(match) of the scored questions at -1 and +1 under each control, at the chosen layer."""
    if not is_main(job):
        return Result({})
    setting = settle(job)
    extraction, layer = job.inputs.of("extraction")[job.model.name], layer_of(job)
    letters = letter_vector_of(setting, extraction).at(layer)
    arrays = controlled(job, setting, vectors_of(setting, extraction), layer, extra={"letters": letters})
    return Result(arrays, {**setting.facts(), "layer": layer})


def controlled(
    job: Job,
    setting: Setting,
    vectors: Mapping[str, SteeringVector],
    layer: int,
    *,
    everywhere: bool = False,
    extra: Mapping[str, SteeringVector] | None = None,
) -> dict[str, NDArray[Any]]:
    """p(match) of the scored questions [draw, end, question] by control and behaviour, and what the questions are."""
    arrays: dict[str, NDArray[Any]] = {}
    for done, behaviour in enumerate(setting.behaviours):
        job.progress(done, len(setting.behaviours))
        vector = vectors[behaviour.name].at(layer)
        asked = asking(setting, behaviour.scored_on, everywhere=everywhere)
        conditions = {
            "vector": [vector],
            "random": [random_like(vector, seed=setting.seed + draw) for draw in range(setting.trials.random)],
            "last_layer": [vector.moved(layer, setting.n_layers - 1)],
            **{name: [of] for name, of in (extra or {}).items()},
        }
        if len(setting.behaviours) > 1:
            conditions["another"] = [vectors[following(setting.names, behaviour.name)].at(layer)]
        for name, some in conditions.items():
            arrays[f"{name}/{behaviour.name}"] = p_under(setting, asked, some, ENDS)
        plain = p_match(setting, asked)
        biased = [constant(plain, p, behaviour.scored_on) for p in arrays[f"vector/{behaviour.name}"][0]]
        arrays[f"logit_bias/{behaviour.name}"] = np.array([biased])
        arrays |= {f"{name}/{behaviour.name}": values for name, values in forms_of(behaviour.scored_on).items()}
    return arrays


def transfer(job: Job) -> Result:
    """The effect of the vector of one layer at another, of the deepest models for the chosen layer's vector alone."""
    if not is_main(job):
        return Result({})
    setting = settle(job)
    vectors, layer = vectors_of(setting, job.inputs.of("extraction")[job.model.name]), layer_of(job)
    every = range(setting.n_layers)
    sources = list(every) if setting.n_layers <= setting.trials.pairs_of_layers_up_to else [layer]
    arrays: dict[str, NDArray[Any]] = {}
    for done, behaviour in enumerate(setting.behaviours):
        job.progress(done, len(setting.behaviours))
        moved = [vectors[behaviour.name].moved(source, *every) for source in sources]
        asked = asking(setting, behaviour.chosen_on)
        p = np.stack([by_layer(setting, asked, vector, every, ENDS) for vector in moved])
        arrays[f"effect/{behaviour.name}"] = p[:, :, 1] - p[:, :, 0]  # [source, target, question]
        arrays[f"item/{behaviour.name}"] = forms_of(behaviour.chosen_on)["item"]
    return Result(arrays, {**setting.facts(), "sources": sources, "layer": layer})


def off_target(job: Job) -> Result:
    """The probability of the right answer to questions about something else, unsteered and at -1 and +1."""
    if not is_main(job):
        return Result({})
    setting = settle(job)
    vectors, layer = vectors_of(setting, job.inputs.of("extraction")[job.model.name]), layer_of(job)
    if not setting.unrelated:
        return Result({}, {**setting.facts(), "layer": layer, "questions": 0})
    asked = asking(setting, setting.unrelated)
    arrays: dict[str, NDArray[Any]] = {"plain": p_match(setting, asked), **forms_of(setting.unrelated)}
    for done, behaviour in enumerate(setting.behaviours):
        job.progress(done, len(setting.behaviours))
        vector = vectors[behaviour.name].at(layer)
        (arrays[f"p/{behaviour.name}"],) = p_under(setting, asked, [vector], ENDS)
    return Result(arrays, {**setting.facts(), "layer": layer, "questions": len(setting.unrelated)})


def layer_of(job: Job) -> int:
    """The layer that an earlier stage chose."""
    return int(job.inputs.of("sweep")[job.model.name].facts["layer"])


def asking(setting: Setting, asked: Sequence[Asked], *, everywhere: bool = False) -> Asking:
    """Vectors act from the prompt's last token on, or everywhere."""
    tokens = encode_questions(setting.model, [each.question for each in asked])
    return Asking(tokens, Everywhere() if everywhere else after_prompts(setting.model, asked))


def p_match(setting: Setting, asked: Asking) -> Array:
    """p(match) of every question without a vector."""
    found = answers(setting.model, asked.tokens, batch_size=setting.trials.questions)
    return np.asarray(found.p.double().numpy())


def p_under(setting: Setting, asked: Asking, vectors: Sequence[SteeringVector], multipliers: Sequence[float]) -> Array:
    """p(match) [vector, multiplier, question], a vector at a time."""
    conditions = [[Steer(vector, m, positions=asked.where)] for vector in vectors for m in multipliers]
    found = answers_under(setting.model, asked.tokens, conditions, batch_size=setting.trials.questions)
    p = np.stack([each.p.double().numpy() for each in found])
    return p.reshape(len(vectors), len(multipliers), -1)


def constant(plain: Array, steered: Array, asked: Sequence[Asked]) -> Array:
    """p(match) if the vector did no more than add its mean change of logit(A) - logit(B) to every question."""
    signs = np.array([1.0 if each.matching == 0 else -1.0 for each in asked])
    before, after = (signs * _logit(p) for p in (plain, steered))
    changed = signs * (before + (after - before).mean())
    return np.asarray(1 / (1 + np.exp(-changed)))


def by_layer(
    setting: Setting, asked: Asking, vector: SteeringVector, layers: Sequence[int], multipliers: Sequence[float]
) -> Array:
    """p(match) [layer, multiplier, question]; the vector acts in one layer at a time."""
    return p_under(setting, asked, [vector.at(layer) for layer in layers], multipliers)


def _logit(p: Array) -> Array:
    """Within what single precision tells apart from 0 and 1."""
    kept = np.clip(p, 1e-7, 1 - 1e-7)
    return np.asarray(np.log(kept) - np.log1p(-kept))

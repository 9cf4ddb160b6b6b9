"""Stages 8 and 9: where the paper's reading does nothing, does any? Other readings, and other places to add them.

    readings     at the letter, as in the paper; at the word of the option behind it; of texts that show the behaviour
                 against texts that show its contrary, at the end of the question (see `extraction_stages`)
    positions    from the prompt's last token on, as in the paper; at all tokens

All are added at one norm, in each layer the largest of the readings', so that none does nothing for being short. The
best of all combinations and layers is chosen by its effect on the items on which the paper's layer is chosen, and
put through the same scores and controls on the items that are scored.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
from numpy.typing import NDArray
from replications.contrastive_activation_addition.choice_stages import (
    ENDS,
    asking,
    by_layer,
    controlled,
    p_match,
    p_under,
)
from replications.contrastive_activation_addition.extraction_stages import forms_of
from replications.contrastive_activation_addition.generation_stages import completions
from replications.contrastive_activation_addition.setting import Setting, is_main, settle, vectors_of

from reprise import Job, Result
from steering import SteeringVector

AFTER, EVERYWHERE = POSITIONS = ("after the prompt", "everywhere")


def readings(job: Job) -> Result:
    """Effects by reading, positions and layer on the items for choosing; p(match) and controls of the best one."""
    setting = settle(job)
    extraction = job.inputs.of("extraction")[job.model.name]
    kinds, layers = extraction.facts["readings"], range(setting.n_layers)
    arrays: dict[str, NDArray[Any]] = {}
    means: dict[tuple[str, str], NDArray[Any]] = {}
    asked_at = {
        (positions, behaviour.name): asking(setting, behaviour.chosen_on, everywhere=positions == EVERYWHERE)
        for positions in POSITIONS
        for behaviour in setting.behaviours
    }
    for done, reading in enumerate(kinds):
        vectors = at_one_norm(setting, extraction, reading)
        for at, positions in enumerate(POSITIONS):
            job.progress(2 * done + at, 2 * len(kinds))
            for name in setting.names:
                p = by_layer(setting, asked_at[positions, name], vectors[name], layers, ENDS)
                arrays[f"effect/{reading}/{positions}/{name}"] = p[:, 1] - p[:, 0]  # [layer, question]
            of = [arrays[f"effect/{reading}/{positions}/{name}"].mean(axis=-1) for name in setting.names]
            means[reading, positions] = np.mean(of, axis=0)
    reading, positions = max(means, key=lambda key: float(means[key].max()))
    layer, everywhere = int(means[reading, positions].argmax()), positions == EVERYWHERE
    vectors = at_one_norm(setting, extraction, reading)
    multipliers = setting.trials.reading_multipliers
    unrelated = asking(setting, setting.unrelated, everywhere=everywhere) if setting.unrelated else None
    for behaviour in setting.behaviours:
        asked = asking(setting, behaviour.scored_on, everywhere=everywhere)
        vector = vectors[behaviour.name].at(layer)
        arrays[f"p/{behaviour.name}"] = p_under(setting, asked, [vector], multipliers)  # as if of one layer
        arrays[f"plain/{behaviour.name}"] = p_match(setting, asked)
        if unrelated is not None:
            (arrays[f"unrelated/{behaviour.name}"],) = p_under(setting, unrelated, [vector], multipliers)
        arrays |= {f"{name}/{behaviour.name}": values for name, values in forms_of(behaviour.scored_on).items()}
    arrays |= controlled(job, setting, vectors, layer, everywhere=everywhere)
    if unrelated is not None:
        arrays["unrelated_plain"] = p_match(setting, unrelated)
        arrays["unrelated_item"] = forms_of(setting.unrelated)["item"]
    facts = {"readings": kinds, "reading": reading, "positions": positions, "at": layer, "layer": 0}
    return Result(arrays, {**setting.facts(), **facts, "multipliers": list(multipliers)})


def readings_open_ended(job: Job) -> Result:
    """What is written under the best of the readings, as `generation_stages.open_ended`."""
    if not is_main(job):
        return Result({})
    facts = job.inputs.of("readings")[job.model.name].facts
    setting = settle(job)
    vectors = at_one_norm(setting, job.inputs.of("extraction")[job.model.name], facts["reading"])
    return completions(
        job,
        setting,
        vectors,
        facts["at"],
        multipliers=setting.trials.reading_multipliers,
        everywhere=facts["positions"] == EVERYWHERE,
        headers=False,
    )


def at_one_norm(setting: Setting, extraction: Result, reading: str) -> dict[str, SteeringVector]:
    """A reading's vectors, in each layer with the largest norm that a reading has there."""
    every = [vectors_of(setting, extraction, kind) for kind in extraction.facts["readings"]]
    longest = {
        name: replace(
            every[0][name],
            directions={
                layer: max((of[name].directions[layer] for of in every), key=lambda direction: float(direction.norm()))
                for layer in range(setting.n_layers)
            },
        )
        for name in setting.names
    }
    own = vectors_of(setting, extraction, reading)
    return {name: vector.scaled_like(longest[name]) for name, vector in own.items()}

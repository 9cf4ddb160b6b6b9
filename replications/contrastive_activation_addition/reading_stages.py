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
from replications.contrastive_activation_addition.choice_stages import ENDS, by_layer, controlled, p_match, positions_of
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
    for done, reading in enumerate(kinds):
        vectors = at_one_norm(setting, extraction, reading)
        for at, positions in enumerate(POSITIONS):
            job.progress(2 * done + at, 2 * len(kinds))
            for behaviour in setting.behaviours:
                p = by_layer(
                    setting,
                    behaviour.chosen_on,
                    vectors[behaviour.name],
                    layers,
                    ENDS,
                    everywhere=positions == EVERYWHERE,
                )
                arrays[f"effect/{reading}/{positions}/{behaviour.name}"] = p[:, 1] - p[:, 0]  # [layer, question]
            of = [arrays[f"effect/{reading}/{positions}/{name}"].mean(axis=-1) for name in setting.names]
            means[reading, positions] = np.mean(of, axis=0)
    reading, positions = max(means, key=lambda key: float(means[key].max()))
    layer, everywhere = int(means[reading, positions].argmax()), positions == EVERYWHERE
    vectors = at_one_norm(setting, extraction, reading)
    for behaviour in setting.behaviours:
        asked, vector = behaviour.scored_on, vectors[behaviour.name].at(layer)
        where = positions_of(setting, asked, everywhere)
        every = [p_match(setting, asked, vector, m, where) for m in setting.trials.reading_multipliers]
        arrays[f"p/{behaviour.name}"] = np.array([every])  # [1, multiplier, question], as if of one layer
        arrays[f"plain/{behaviour.name}"] = p_match(setting, asked)
        if setting.unrelated:
            where = positions_of(setting, setting.unrelated, everywhere)
            every = [p_match(setting, setting.unrelated, vector, m, where) for m in setting.trials.reading_multipliers]
            arrays[f"unrelated/{behaviour.name}"] = np.array(every)  # [multiplier, question]
        arrays |= {f"{name}/{behaviour.name}": values for name, values in forms_of(asked).items()}
    arrays |= controlled(job, setting, vectors, layer, everywhere=everywhere)
    if setting.unrelated:
        arrays["unrelated_plain"] = p_match(setting, setting.unrelated)
        arrays["unrelated_item"] = forms_of(setting.unrelated)["item"]
    facts = {"readings": kinds, "reading": reading, "positions": positions, "at": layer, "layer": 0}
    return Result(arrays, {**setting.facts(), **facts, "multipliers": list(setting.trials.reading_multipliers)})


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

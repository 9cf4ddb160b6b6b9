"""Activation patching: an activation of p_IOI is replaced by that of the same sentence in p_ABC.

    effect[prompt, cell] = F with the cell replaced - F,    F = logit(IO) - logit(S) at END

(p_ABC is where Wang et al. 2022, section 3, take what they put in.) Unlike path patching this counts everything that
follows from the cell, later heads included. Exact: one branch a cell (`interventions.branching`).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from replications.indirect_object_identification.grouping import (
    WORDS,
    Effects,
    Group,
    Progress,
    effects_by_prompt,
    groups_of,
)
from replications.indirect_object_identification.positions import IOIPrompts
from replications.indirect_object_identification.setting import Setting, array, settle

from interventions import Replace, sweep
from reprise import Job, Result

Axis = Literal["layer", "head", "position"]


@dataclass(frozen=True)
class Sweep:
    """What is replaced, at which `positions` counted from the end: the last, or all of them."""

    component: str
    over: tuple[Axis, ...]
    positions: Sequence[int] | None = (-1,)


STREAM = Sweep("resid_pre", ("position", "layer"))
HEADS = Sweep("z", ("layer", "head"))
HEADS_EVERYWHERE = Sweep("z", ("layer", "head"), positions=None)
PATTERNS = Sweep("pattern", ("layer", "head"))


def stream(job: Job) -> Result:
    """`effects` [prompt, word, layer]: the stream before each layer, at each of the five words; `clean` is F."""
    setting = settle(job)
    clean, abc = setting.pair(setting.trials.search)
    found = stream_effects(setting, clean, abc, job.progress)
    return Result(
        {"clean": array(found.clean), "effects": array(found.effects)}, {**setting.facts(), "words": list(WORDS)}
    )


def heads(job: Job) -> Result:
    """`effects` [prompt, layer, head]: each head's output at END; `everywhere.effects`: at all tokens."""
    setting = settle(job)
    at_end = effects_of(setting, *setting.pair(setting.trials.search), HEADS)
    everywhere = effects_of(setting, *setting.pair(setting.trials.everywhere), HEADS_EVERYWHERE, job.progress)
    return Result(
        {
            "clean": array(at_end.clean),
            "effects": array(at_end.effects),
            "everywhere.clean": array(everywhere.clean),
            "everywhere.effects": array(everywhere.effects),
        },
        setting.facts(),
    )


def patterns(job: Job) -> Result:
    """`effects` [prompt, layer, head]: where each head attends from END; what it finds there stays that of p_IOI."""
    setting = settle(job)
    found = effects_of(setting, *setting.pair(setting.trials.search), PATTERNS, job.progress)
    return Result({"clean": array(found.clean), "effects": array(found.effects)}, setting.facts())


def stream_effects(
    setting: Setting, clean: IOIPrompts, abc: IOIPrompts, progress: Progress = lambda done, total: None
) -> Effects:
    """Of the stream [prompt, word, layer]; one sweep for the prompts that have all five words at the same places."""

    def run(group: Group) -> Effects:
        places = sorted(set(group.at.values()))
        found = _swept(setting, clean, abc, group, Sweep(STREAM.component, STREAM.over, places))
        return Effects(found.clean, found.effects[:, [places.index(group.at[word]) for word in WORDS]])

    return effects_by_prompt(groups_of(clean, WORDS), run, progress)


def effects_of(
    setting: Setting,
    clean: IOIPrompts,
    abc: IOIPrompts,
    what: Sweep,
    progress: Progress = lambda done, total: None,
) -> Effects:
    """Of every head [prompt, layer, head].

    At all positions work begins at the first name, so that prompts are grouped by where it stands.
    """
    groups = groups_of(clean, WORDS if what.positions is None else ())
    return effects_by_prompt(groups, lambda group: _swept(setting, clean, abc, group, what), progress)


def _swept(setting: Setting, clean: IOIPrompts, abc: IOIPrompts, group: Group, what: Sweep) -> Effects:
    found = sweep(
        setting.model.network,
        group.of(clean),
        Replace(group.of(abc)),
        group.metric(clean),
        component=what.component,
        over=what.over,
        positions=what.positions,
        batch_size=setting.trials.batch,
        recordings=setting.recordings,
    )
    return Effects(found.clean, found.effects)

"""What the stages about circuits share: means over p_ABC, prompts with ablation, and which circuits a run judges.

Where a circuit is published for the model's shape, it is the circuit that is validated, each head at its role's words.
Else it is the one that the search proposed (`discovery_stages.elimination`), all tokens of each head, with the roles
that path patching gave its heads. Beside it stands the naive circuit: the published one, or what path patching alone
finds, without negative heads.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

import torch
from replications.indirect_object_identification import drawing_prompts, path_stages
from replications.indirect_object_identification.ablation import Ablation, Means
from replications.indirect_object_identification.circuit import (
    BACKUP,
    NEGATIVE,
    OTHER,
    Circuit,
    Head,
    Nodes,
    published,
    with_roles,
)
from replications.indirect_object_identification.positions import Layout
from replications.indirect_object_identification.setting import SCORES, SEARCH, Setting, array, settle, stored

from reprise import Job, Result

MEANS, RANKING, ELIMINATION = "means", "ranking", "elimination"
PATHS = ("paths_to_logits", "paths_to_queries", "paths_to_inhibition", "paths_to_induction")


@dataclass(frozen=True)
class Effort:
    """How much is searched for.

    `search` prompts for every choice that needs circuits ablated, `attributed` for attributions in `steps` steps of
    integrated gradients; `at_once` is the largest share of heads that goes in one round of the elimination, which
    starts from all heads where these are at most `all_of`; forward search goes to `grown` heads among the `among` first
    ones. `curves` prompts for faithfulness by number of heads, `draws` random circuits; `greedy` searches for an
    incomplete subset, of `greedy_steps` heads, each chosen among `greedy_among` that are drawn.
    """

    search: int
    attributed: int
    steps: int
    at_once: float
    all_of: int
    grown: int
    among: int
    curves: int
    draws: int
    greedy: int
    greedy_steps: int
    greedy_among: int


EFFORT = {
    "tiny": Effort(
        search=100,
        attributed=100,
        steps=4,
        at_once=0.0,
        all_of=64,
        grown=16,
        among=64,
        curves=200,
        draws=20,
        greedy=3,
        greedy_steps=8,
        greedy_among=16,
    ),
    "paper": Effort(
        search=16,
        attributed=16,
        steps=2,
        at_once=0.34,
        all_of=64,
        grown=8,
        among=16,
        curves=16,
        draws=5,
        greedy=2,
        greedy_steps=4,
        greedy_among=5,
    ),
}


@dataclass(frozen=True)
class Judged:
    """The circuit that a run validates, and the naive one; `is_published` says where the first is from."""

    circuit: Circuit
    naive: Circuit
    is_published: bool


def means(job: Job) -> Result:
    """`z` [layout, layer, pos, head, d_head]: mean outputs over p_ABC by template, order, length and places of names.

    Over the p_ABC sentences of all prompts that other stages ablate, so that no layout is missing, and of further ones
    until there are as many as asked for.
    """
    setting = settle(job)
    trials = setting.trials
    more = max(trials.validated, trials.means - trials.search)
    drawn = [(trials.search, SEARCH, 0), (trials.validated, SCORES, 0)]
    if more > trials.validated:
        drawn.append((more, SCORES, 1))
    parts = []
    for n, part, behind in drawn:
        sentences = setting.sentences(n, part)[trials.validated * behind :]
        parts.append(setting.tokenized(drawing_prompts.abc(sentences, setting.seed)))
    found = Means.over(setting.model.network, parts, setting.trials.batch)
    layouts = [[each.template, each.order, each.length, [list(name) for name in each.names]] for each in found.layouts]
    return Result({"z": array(found.z)}, {**setting.facts(), "layouts": layouts, "over": sum(map(len, parts))})


def ablation(job: Job, setting: Setting, n: int, part: str) -> Ablation:
    """The first prompts of a part, ablated by the means of an earlier stage."""
    return Ablation(setting.model.network, setting.clean(n, part), stored_means(job))


def stored_means(job: Job) -> Means:
    result = stored(job, MEANS)
    layouts = tuple(
        Layout(template, order, length, tuple((name, at) for name, at in names))
        for template, order, length, names in result.facts["layouts"]
    )
    return Means(layouts, torch.from_numpy(result["z"]))


def judged(job: Job, setting: Setting) -> Judged:
    """Which circuits are validated."""
    known = published(setting.model.network.config) if setting.tier == "paper" else None
    if known is not None:
        return Judged(*known, True)
    roles = found_roles(job)
    of_paths = {role: heads for role, heads in roles.items() if role not in (NEGATIVE, BACKUP, OTHER)}
    naive = sorted({(layer, head) for heads in of_paths.values() for layer, head in heads})
    return Judged(
        with_roles("discovered", discovered(job), roles), with_roles("found by paths alone", naive, of_paths), False
    )


def discovered(job: Job) -> tuple[Head, ...]:
    """The heads that the search proposed."""
    return in_facts(stored(job, ELIMINATION).facts["circuit"])


def in_facts(heads: Iterable[Iterable[int]]) -> tuple[Head, ...]:
    """Heads as facts hold them."""
    return tuple((layer, head) for layer, head in heads)


def found_roles(job: Job) -> dict[str, list[list[int]]]:
    """Heads by role, of the steps of path patching."""
    return path_stages.roles_found({stage: stored(job, stage) for stage in PATHS})


def facts_of(circuit: Circuit) -> dict[str, object]:
    """A circuit among the facts of a result."""
    return {
        "name": circuit.name,
        "source": circuit.source,
        "roles": {role: [list(head) for head in heads] for role, heads in circuit.roles.items()},
        "words": {role: list(words) for role, words in circuit.words.items()},
        "heads": [list(head) for head in circuit.heads],
    }


def nodes_of(setting: Setting, circuit: Circuit) -> Nodes:
    return circuit.nodes(setting.n_layers, setting.n_heads)


def all_heads(setting: Setting) -> list[Head]:
    return [(layer, head) for layer in range(setting.n_layers) for head in range(setting.n_heads)]

"""Which signal the S-inhibition heads pass on: the name that is repeated, or the place where it stood before.

    F = logit(IO) - logit(S) when the heads' output at END comes from a sentence with other signals at S2

(Wang et al. 2022, appendix A.) The sentences differ from the prompt in whose name is at S2, and where it was before:

    position    1 where S1 is, -1 where IO is
    token       1 the subject's name, 0 that of somebody else, -1 the indirect object's

and IO and S stay those of the prompt. The paper fits F by a linear function of the two (2.31 position + 0.99 token;
memory): `weights_of` does so for every prompt, by least squares without a constant over the six sentences.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

import numpy as np
import torch
from jaxtyping import Float
from replications.indirect_object_identification import circuit
from replications.indirect_object_identification.circuit import Head
from replications.indirect_object_identification.drawing_prompts import (
    Sentence,
    random_names,
    swapped_order,
    swapped_roles,
)
from replications.indirect_object_identification.grouping import (
    Group,
    Progress,
    by_prompt,
    difference,
    groups_of,
    last_logits,
)
from replications.indirect_object_identification.path_stages import PUBLISHED, heads_in, published_heads
from replications.indirect_object_identification.positions import IOIPrompts
from replications.indirect_object_identification.setting import Array, Setting, array, settle, stored
from torch import Tensor

from interventions import Site, captured
from reprise import Job, Result

Sentences = tuple[Sentence, ...]
SIGNALS: Mapping[tuple[int, int], Callable[[Sentences, int], Sentences]] = {
    (1, 1): lambda sentences, seed: sentences,
    (1, 0): random_names,
    (1, -1): lambda sentences, seed: swapped_order(swapped_roles(sentences)),
    (-1, 1): swapped_order,
    (-1, 0): lambda sentences, seed: swapped_order(random_names(sentences, seed)),
    (-1, -1): swapped_roles,
}
"""What makes a sentence of each (position, token)."""


def signals(job: Job) -> Result:
    """`logit_difference` [prompt, sentence], with the inhibition heads that were found; `weights` [prompt, 2].

    `published.*` are those of the paper's heads, where they can be asked about (`path_stages`). `signals` among the
    facts says (position, token) of each sentence, the first being the prompt itself.
    """
    setting = settle(job)
    readings = {"": heads_in(stored(job, "paths_to_queries"), circuit.INHIBITION)}
    if of_paper := published_heads(job, setting, circuit.INHIBITION):
        readings[PUBLISHED] = of_paper
    sentences = setting.sentences(setting.trials.signals)
    clean = setting.tokenized(sentences)
    others = [setting.tokenized(change(sentences, setting.seed)) for change in SIGNALS.values()]
    arrays: dict[str, Array] = {}
    for prefix, heads in readings.items():
        if heads:
            found = array(with_signals(setting, clean, others, heads, job.progress))
            arrays |= {f"{prefix}logit_difference": found, f"{prefix}weights": weights_of(found)}
    facts = {f"{prefix}heads": [list(head) for head in heads] for prefix, heads in readings.items()}
    return Result(arrays, {**setting.facts(), **facts, "signals": [list(signal) for signal in SIGNALS]})


def with_signals(
    setting: Setting,
    clean: IOIPrompts,
    others: Sequence[IOIPrompts],
    heads: Sequence[Head],
    progress: Progress = lambda done, total: None,
) -> Float[Tensor, "prompt sentence"]:
    """F of the prompts with the heads' z at END from each of the others."""
    network = setting.model.network
    sites = [Site("z", layer, head=head, position=-1) for layer, head in heads]

    def run(group: Group) -> Tensor:
        prompts, columns = group.of(clean), []
        for other in others:
            with captured(network, sites) as seen:
                last_logits(network, group.of(other))
            logits = last_logits(network, prompts, {site: seen[site][0] for site in sites})
            columns.append(difference(logits, clean, group.rows))
        return torch.stack(columns, dim=1)

    return by_prompt(groups_of(clean), run, progress)


def weights_of(differences: Array) -> Array:
    """What position and token weigh in each prompt's F [prompt, sentence], [prompt, 2]."""
    design = np.array(list(SIGNALS), dtype=np.float64)
    found: Array = np.linalg.lstsq(design, differences.T.astype(np.float64), rcond=None)[0].T.astype(np.float32)
    return found

"""What is left when the repeated name cannot look at its first mention: attention cut, in all heads of all layers.

    A'[S2, k] = 0 for the words k that are cut,    A[S2, k] / sum of A[S2, k'] over all others k' for the rest

which is the softmax over the keys that are left, as if the cut ones were masked before it (a control of ours). At all
other queries nothing changes. What is cut:

    s1             S1, where a duplicate-token head looks
    s1_and_next    S1 and S1+1, where an induction head looks
    io             IO, the control: as much of the same kind of attention, to the name that is not repeated

A model that takes the name that is there and is not the last one named, without asking whether it was named before,
loses nothing.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace

import torch
from jaxtyping import Float
from replications.indirect_object_identification.grouping import Group, by_prompt, difference, groups_of, last_logits
from replications.indirect_object_identification.positions import IO, S1, S1_NEXT, S2, IOIPrompts
from replications.indirect_object_identification.setting import SCORES, Setting, array, settle
from torch import Tensor

from interventions import Site, edited
from reprise import Job, Result

WORDS = (IO, S1, S1_NEXT, S2)
CUTS: Mapping[str, tuple[str, ...]] = {"s1": (S1,), "s1_and_next": (S1, S1_NEXT), "io": (IO,)}


def cut(job: Job) -> Result:
    """logit(IO) - logit(S) of every prompt, [prompt]: `plain`, and with each of `CUTS`; on the part "scores"."""
    setting = settle(job)
    found = array(with_cuts(setting, setting.clean(setting.trials.validated, SCORES), job.progress))
    names = ("plain", *CUTS)
    facts = {"cuts": {name: list(words) for name, words in CUTS.items()}}
    return Result({name: found[:, at] for at, name in enumerate(names)}, {**setting.facts(), **facts})


def with_cuts(
    setting: Setting, prompts: IOIPrompts, progress: Callable[[int, int], None] = lambda done, total: None
) -> Float[Tensor, "prompt cut"]:
    """F without a cut, and with each of `CUTS`."""

    def run(group: Group) -> Tensor:
        parts = [replace(group, rows=rows) for rows in torch.split(group.rows, setting.trials.batch)]
        return torch.cat(
            [torch.stack([_one(setting, prompts, part, cut) for cut in ((), *CUTS.values())], dim=1) for part in parts]
        )

    return by_prompt(groups_of(prompts, WORDS), run, progress)


def _one(setting: Setting, prompts: IOIPrompts, group: Group, words: Sequence[str]) -> Float[Tensor, " row"]:
    """F of a group's prompts with the attention from S2 to some words cut."""
    network = setting.model.network
    layers = range(setting.n_layers) if words else ()
    keys = [group.at[word] + group.length for word in words]
    edits = {Site("pattern", layer, position=group.at[S2]): cutting(keys) for layer in layers}
    with edited(network, edits):
        return difference(last_logits(network, group.of(prompts)), prompts, group.rows)


def cutting(keys: Sequence[int]) -> Callable[[Float[Tensor, "row head key"]], Float[Tensor, "row head key"]]:
    """An edit of the pattern of one query: nothing goes to `keys`, and what is left sums to 1 again.

    Where all of a row went to them, so that nothing is left in floating point, the row stays 0.
    """

    def edit(pattern: Float[Tensor, "row head key"]) -> Float[Tensor, "row head key"]:
        left = pattern.clone()
        left[..., keys] = 0
        return left / left.sum(dim=-1, keepdim=True).clamp(min=torch.finfo(left.dtype).tiny)

    return edit

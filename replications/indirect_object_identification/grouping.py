"""Prompts in groups that the engine can treat alike: of one length, with the words that matter at the same places.

The engine edits one position of all prompts, counted from the end. Sentences of different templates have their names at
different places, so that a sweep over IO, S1, S1+1, S2 and END is one sweep a group. Prompts of a group have one length
and lose their padding, which also saves its work.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Float, Int
from replications.indirect_object_identification.positions import IOIPrompts
from torch import Tensor, nn

from interventions import Metric, Prompts, Site, edited, logit_difference

WORDS = ("IO", "S1", "S1+1", "S2", "END")
Progress = Callable[[int, int], None]


@dataclass(frozen=True)
class Group:
    """The rows of some prompts of `length` tokens; `at` says where each word stands in all of them, from the end."""

    rows: Int[Tensor, " row"]
    length: int
    at: Mapping[str, int]

    def of(self, prompts: IOIPrompts) -> Prompts:
        """These rows, without padding; of the prompts themselves or of others that are aligned with them.

        Raises:
            ValueError: a row has another number of tokens there.
        """
        lengths = prompts.lengths[self.rows]
        if not bool((lengths == self.length).all()):
            row = int(self.rows[lengths != self.length][0])
            raise ValueError(
                f"prompt {row} has {int(prompts.lengths[row])} tokens, expected {self.length} as the prompt that it is "
                f"aligned with; write its names with one token each"
            )
        return Prompts(prompts.prompts.tokens[self.rows, -self.length :])

    def metric(self, prompts: IOIPrompts) -> Metric:
        """logit(IO) - logit(S) of these rows."""
        return logit_difference(correct=prompts.io[self.rows], wrong=prompts.s[self.rows])


@dataclass(frozen=True)
class Effects:
    """What edits do to F = logit(IO) - logit(S), and F without them; logits."""

    clean: Float[Tensor, " prompt"]
    effects: Float[Tensor, "prompt ..."]


def groups_of(prompts: IOIPrompts, words: Sequence[str] = ()) -> tuple[Group, ...]:
    """Groups of one length in which each of `words` stands at one place."""
    end = prompts.tokens.shape[1]
    places = torch.stack([prompts.lengths, *(prompts.positions[word] - end for word in words)], dim=1)
    kinds, kind_of = torch.unique(places, dim=0, return_inverse=True)
    return tuple(
        Group((kind_of == at).nonzero().flatten(), length, dict(zip(words, of_words, strict=True)))
        for at, (length, *of_words) in enumerate(kinds.tolist())
    )


def by_prompt(
    groups: Sequence[Group], run: Callable[[Group], Tensor], progress: Progress = lambda done, total: None
) -> Float[Tensor, "prompt ..."]:
    """`run` of every group, [row, ...], with its rows back in the order of the prompts; on the CPU."""
    total, done, found = sum(len(group.rows) for group in groups), 0, torch.empty(0)
    for group in groups:
        part = run(group).float().cpu()
        if not done:
            found = part.new_empty(total, *part.shape[1:])
        found[group.rows] = part
        done += len(group.rows)
        progress(done, total)
    return found


def effects_by_prompt(
    groups: Sequence[Group],
    run: Callable[[Group], Effects],
    progress: Progress = lambda done, total: None,
) -> Effects:
    """`run` of every group, back in the order of the prompts."""
    shape: list[int] = []

    def flat(group: Group) -> Tensor:
        part = run(group)
        shape[:] = part.effects.shape[1:]
        return torch.cat([part.clean[:, None], part.effects.flatten(1)], dim=1)

    rows = by_prompt(groups, flat, progress)
    return Effects(rows[:, 0], rows[:, 1:].unflatten(1, shape))  # type: ignore[no-untyped-call]


def last_logits(
    network: nn.Module, prompts: Prompts, edits: Mapping[Site, Tensor] | None = None
) -> Float[Tensor, "row d_vocab"]:
    """Logits at the last token of prompts without padding, with all edits made together; float32."""
    device = next(network.parameters()).device
    with torch.no_grad(), edited(network, edits or {}):
        logits: Tensor = network(prompts.tokens.to(device), use_cache=False, logits_to_keep=1).logits
    return logits[:, -1].float()


def difference(
    logits: Float[Tensor, "row d_vocab"], prompts: IOIPrompts, rows: Int[Tensor, " row"]
) -> Float[Tensor, " row"]:
    """logit(IO) - logit(S) of the rows."""
    io, s = (tokens[rows].to(logits.device)[:, None] for tokens in (prompts.io, prompts.s))
    return (logits.gather(1, io) - logits.gather(1, s))[:, 0]

"""Which streams many circuits have in common, token by token: what is worked out before anything is computed.

The stream of a token behind layer l depends on what the circuit keeps of l at this token, on the stream there before l,
and, if a head is kept there, on the streams of all tokens up to it. So these name a *state*,

    state_{l+1}(circuit, t) = (state_l(circuit, t), heads kept of l at t, [state_l(circuit, u) for all u up to t])

where the last part counts if heads are kept at t alone. Circuits that agree in all of it share one state, whatever they
do elsewhere: where they keep heads at a few words, all other tokens have one state a layer. Before layer 0 all share
one a token. What is measured stands at the last token, so that going back from there only states are kept that a later
one reads. Nothing is approximated.

Prompts are of one *kind* where they have their words at the same places, and then have the same states. All tokens end
together, as prompts do.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import torch
from jaxtyping import Bool, Int
from torch import Tensor

Table = Int[Tensor, "kind circuit pos"]
"""The number of a state, or something else of every circuit, kind and token; -1 where there is none."""


@dataclass(frozen=True)
class Layer:
    """The states behind a layer, by what they are made of.

    Args:
        kinds, tokens: of which kind each is, and at which token.
        parents: the states before the layer, of the same tokens.
        asking: those states that keep heads, and `heads`, which these are.
        contexts: states before the layer, by token; -1 where nothing asks for them.
        context_of: the row of `contexts` that each of `asking` looks at, up to its token.
    """

    kinds: Int[Tensor, " state"]
    tokens: Int[Tensor, " state"]
    parents: Int[Tensor, " state"]
    asking: Int[Tensor, " asking"]
    heads: Bool[Tensor, "asking head"]
    contexts: Int[Tensor, "context pos"]
    context_of: Int[Tensor, " asking"]


@dataclass(frozen=True)
class States:
    """All states of some circuits.

    Args:
        kinds, tokens: of the states before the first layer.
        layers: the states behind each.
        ends: the state behind the last layer, of each kind and circuit.
    """

    kinds: Int[Tensor, " state"]
    tokens: Int[Tensor, " state"]
    layers: tuple[Layer, ...]
    ends: Int[Tensor, "kind circuit"]

    @classmethod
    def of(cls, nodes: Int[Tensor, "circuit layer head"], kinds: Int[Tensor, "kind pos"]) -> States:
        """Of circuits that keep these nodes.

        Args:
            kinds: the bits of a token's words by which nodes name it; 0 before the first token.
        """
        words, word_at = torch.unique(kinds, return_inverse=True)
        kept = [_Kept.of(of_layer, words) for of_layer in nodes.unbind(dim=1)]
        asks = [of.any[:, word_at].transpose(0, 1) for of in kept]
        wanted = list(_wanted(asks, kinds != 0))[::-1]
        first = wanted[0].any(dim=1)
        state = torch.full(first.shape, -1)
        state[first] = torch.arange(int(first.sum()))
        state = torch.where(wanted[0], state[:, None], -1)
        layers = []
        for of, behind in zip(kept, wanted[1:], strict=True):
            found, state = _behind(state, of, word_at, behind)
            layers.append(found)
        of_kinds, tokens = first.nonzero(as_tuple=True)
        return cls(of_kinds, tokens, tuple(layers), state[:, :, -1])

    def widest(self) -> Int[Tensor, " kind"]:
        """The most states that a layer has of each kind."""
        n = len(self.ends)
        return torch.stack([torch.bincount(layer.kinds, minlength=n) for layer in self.layers]).amax(dim=0)


@dataclass(frozen=True)
class _Kept:
    """The different `sets` of heads that circuits keep of a layer at a token, and which each circuit keeps by word."""

    sets: Bool[Tensor, "set head"]
    set_of: Int[Tensor, "circuit word"]

    @classmethod
    def of(cls, nodes: Int[Tensor, "circuit head"], words: Int[Tensor, " word"]) -> _Kept:
        different, choice = torch.unique(nodes, dim=0, return_inverse=True)
        kept = (different[:, None] & words[:, None]) != 0
        sets, number = torch.unique(kept.flatten(0, 1), dim=0, return_inverse=True)
        return cls(sets, number.view(kept.shape[:2])[choice])

    @property
    def any(self) -> Bool[Tensor, "circuit word"]:
        return self.sets.any(dim=1)[self.set_of]


def _wanted(asks: list[Bool[Tensor, "kind circuit pos"]], real: Bool[Tensor, "kind pos"]) -> Iterator[Tensor]:
    """Where circuits need the stream: behind the last layer, behind the one before, ..., before the first."""
    wanted = torch.zeros_like(asks[0])
    wanted[:, :, -1] = True
    yield wanted
    for of_layer in asks[::-1]:
        read = (wanted & of_layer).flip(2).cumsum(dim=2).flip(2) > 0  # all up to the last token that asks
        wanted = wanted | (read & real[:, None])
        yield wanted


def _behind(
    state: Table, kept: _Kept, word_at: Int[Tensor, "kind pos"], wanted: Bool[Tensor, "kind circuit pos"]
) -> tuple[Layer, Table]:
    """The states behind a layer, and which of them each circuit has."""
    kinds, circuits, tokens = wanted.nonzero(as_tuple=True)
    sets, parents = kept.set_of[circuits, word_at[kinds, tokens]], state[wanted]
    asks = kept.sets.any(dim=1)[sets]
    seen = torch.where(asks, _beginnings(state)[wanted], -1)
    number = numbered(parents, sets, seen)
    n = int(number.max()) + 1
    entries = torch.arange(len(number))
    one = torch.full((n,), len(number)).scatter_reduce(0, number, entries, "amin")  # the first that has each
    asking = asks[one].nonzero().flatten()
    which = one[asking]
    reading, context_of = torch.unique(kinds[which] * wanted.shape[1] + circuits[which], return_inverse=True)
    behind = torch.full_like(state, -1)
    behind[wanted] = number
    contexts = state.flatten(0, 1)[reading]
    return Layer(kinds[one], tokens[one], parents[one], asking, kept.sets[sets[which]], contexts, context_of), behind


def _beginnings(state: Table) -> Table:
    """The same number for the same states at all tokens up to one."""
    found = [numbered(state[:, :, 0])]
    for column in state.unbind(dim=2)[1:]:
        found.append(numbered(found[-1], column))
    return torch.stack(found, dim=2)


def numbered(*columns: Int[Tensor, "*entry"]) -> Int[Tensor, "*entry"]:
    """Entries as numbers from 0 without gaps, the same one where all columns have the same; these are -1 or more."""
    found = columns[0]
    for column in columns[1:]:
        found = torch.unique(found * (int(column.max()) + 2) + column, return_inverse=True)[1]
    return found if len(columns) > 1 else torch.unique(found, return_inverse=True)[1]

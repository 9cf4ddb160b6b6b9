"""A circuit as data: which heads it has, in which role, and at which words of the sentence each role works.

    nodes[layer, head] = a bit for every word of WORDS at which the head is kept, and one for all other tokens

Wang et al. 2022 (section 4) count a head at its role's position as a node: a name mover is in the circuit at END, and
its output at other tokens is outside of it. A role without words has its heads everywhere. What is outside is replaced
by its mean (`ablation`). Subsets K of a circuit are taken out of it and out of the whole model M alike, node by node:

    C \\ K  keeps no node of K's heads,      M \\ K  keeps all but the nodes that the circuit has of K's heads
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import msgspec
import torch
from jaxtyping import Int
from torch import Tensor

WORDS = ("IO", "S1", "S1+1", "S2", "END")
ELSEWHERE = 1 << len(WORDS)
EVERYWHERE = 2 * ELSEWHERE - 1
MOVERS, NEGATIVE, BACKUP, INHIBITION = "movers", "negative", "backup", "inhibition"
INDUCTION, DUPLICATE, PREVIOUS, OTHER = "induction", "duplicate", "previous", "other"
ROLES = (MOVERS, NEGATIVE, BACKUP, INHIBITION, INDUCTION, DUPLICATE, PREVIOUS, OTHER)

Head = tuple[int, int]
"""(layer, head)"""
Nodes = Int[Tensor, "layer head"]


class CircuitError(ValueError):
    """A circuit that cannot be read, or that a model does not have."""


@dataclass(frozen=True)
class Circuit:
    """Heads by role; `words` says where a role's heads are kept, `source` how the circuit is known."""

    name: str
    roles: Mapping[str, tuple[Head, ...]]
    words: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    source: str = ""

    def __post_init__(self) -> None:
        """Raises CircuitError for a word that is none, or a place of a role that is not there."""
        for role, words in self.words.items():
            if role not in self.roles:
                raise CircuitError(
                    f"circuit {self.name!r}: words of role {role!r}, which it does not have: expected one of "
                    f"{', '.join(self.roles)}"
                )
            if unknown := [word for word in words if word not in WORDS]:
                raise CircuitError(
                    f"circuit {self.name!r}: role {role!r} at word {unknown[0]!r}: expected one of {', '.join(WORDS)}"
                )

    @property
    def heads(self) -> tuple[Head, ...]:
        """All heads, each once, in order."""
        return tuple(sorted({head for heads in self.roles.values() for head in heads}))

    def roles_of(self, head: Head) -> tuple[str, ...]:
        return tuple(role for role, heads in self.roles.items() if head in heads)

    def only(self, heads: Iterable[Head]) -> Circuit:
        """The circuit without all other heads; roles that lose all of theirs are gone."""
        wanted = set(heads)
        roles = {role: tuple(head for head in of if head in wanted) for role, of in self.roles.items()}
        roles = {role: of for role, of in roles.items() if of}
        words = {role: words for role, words in self.words.items() if role in roles}
        return Circuit(self.name, roles, words, self.source)

    def everywhere(self) -> Circuit:
        """The same heads, kept at all tokens."""
        return Circuit(f"{self.name}, everywhere", self.roles, {}, self.source)

    def nodes(self, n_layers: int, n_heads: int) -> Nodes:
        """What it keeps; of a head with two roles, the words of both.

        Raises:
            CircuitError: the model has no such head.
        """
        nodes = torch.zeros(n_layers, n_heads, dtype=torch.long)
        for role, heads in self.roles.items():
            kept = sum(1 << WORDS.index(word) for word in self.words[role]) if role in self.words else EVERYWHERE
            for layer, head in heads:
                if not (0 <= layer < n_layers and 0 <= head < n_heads):
                    raise CircuitError(
                        f"circuit {self.name!r}: head {layer}.{head} of role {role!r} does not exist: expected layers "
                        f"0 to {n_layers - 1} and heads 0 to {n_heads - 1}; take the circuit of this model"
                    )
                nodes[layer, head] |= kept
        return nodes


def whole(n_layers: int, n_heads: int) -> Nodes:
    """The nodes of the whole model."""
    return torch.full((n_layers, n_heads), EVERYWHERE)


def circuit_of_heads(name: str, heads: Iterable[Head], source: str = "") -> Circuit:
    """Heads without roles, everywhere."""
    return Circuit(name, {OTHER: tuple(sorted(heads))}, {}, source)


def without(nodes: Nodes, heads: Iterable[Head], of: Nodes) -> Nodes:
    """`nodes` less those that `of` has of these heads: C \\ K is without(C, K, C), M \\ K is without(M, K, C)."""
    left = nodes.clone()
    for layer, head in heads:
        left[layer, head] &= ~of[layer, head]
    return left


def overlap(found: Iterable[Head], published: Iterable[Head]) -> dict[str, float]:
    """Precision and recall of the heads found; of none found the precision is 0."""
    ours, theirs = set(found), set(published)
    both = len(ours & theirs)
    return {"precision": both / max(1, len(ours)), "recall": both / max(1, len(theirs))}


def with_roles(name: str, heads: Iterable[Head], roles: Mapping[str, Iterable[Iterable[int]]]) -> Circuit:
    """Heads found by one procedure, with the roles that another gave to some of them; the rest are "other".

    Args:
        roles: heads by role, as a stage stores them; those that are not among `heads` are left out.
    """
    mine = {tuple(head) for head in heads}
    found = {}
    for role, of in roles.items():
        named: list[Head] = []
        for layer, head in of:
            if (layer, head) in mine and (layer, head) not in named:
                named.append((layer, head))
        if named:
            found[role] = tuple(named)
    named_already = {head for of in found.values() for head in of}
    rest = tuple(sorted((layer, head) for layer, head in mine if (layer, head) not in named_already))
    return Circuit(name, {**found, **({OTHER: rest} if rest else {})})


def write(path: Path, circuit: Circuit) -> None:
    """As JSON: name, source, and heads and words by role."""
    roles = {
        role: {"heads": [list(head) for head in heads], "words": list(circuit.words.get(role, ()))}
        for role, heads in circuit.roles.items()
    }
    content = {"name": circuit.name, "source": circuit.source, "roles": roles}
    path.write_bytes(msgspec.json.format(msgspec.json.encode(content)) + b"\n")


def read(path: Path) -> Circuit:
    """A circuit that `write` wrote, or that somebody wrote by hand; "words" and "source" may be missing.

    Raises:
        CircuitError: naming the file, for what is no such circuit.
    """
    try:
        stored = msgspec.json.decode(path.read_bytes(), type=_Stored)
    except (OSError, msgspec.MsgspecError) as error:
        raise CircuitError(
            f"{path}: no circuit ({error}): expected "
            f'{{"name": ..., "roles": {{"movers": {{"heads": [[9, 9]], "words": ["END"]}}}}}}'
        ) from error
    roles = {role: part.heads for role, part in stored.roles.items()}
    words = {role: part.words for role, part in stored.roles.items() if part.words}
    return Circuit(stored.name, roles, words, stored.source)


class _StoredRole(msgspec.Struct, forbid_unknown_fields=True):
    heads: tuple[tuple[int, int], ...]
    words: tuple[str, ...] = ()


class _Stored(msgspec.Struct, forbid_unknown_fields=True):
    name: str
    roles: dict[str, _StoredRole]
    source: str = ""


# Figure 2's heads and the words of their roles, as several public codes list them alike (second-hand).
GPT2_SMALL = Circuit(
    "Wang et al. 2022",
    {
        MOVERS: ((9, 6), (9, 9), (10, 0)),
        NEGATIVE: ((10, 7), (11, 10)),
        BACKUP: ((9, 0), (9, 7), (10, 1), (10, 2), (10, 6), (10, 10), (11, 2), (11, 9)),
        INHIBITION: ((7, 3), (7, 9), (8, 6), (8, 10)),
        INDUCTION: ((5, 5), (5, 8), (5, 9), (6, 9)),
        DUPLICATE: ((0, 1), (0, 10), (3, 0)),
        PREVIOUS: ((2, 2), (4, 11)),
    },
    {
        **dict.fromkeys((MOVERS, NEGATIVE, BACKUP, INHIBITION), ("END",)),
        **dict.fromkeys((INDUCTION, DUPLICATE), ("S2",)),
        PREVIOUS: ("S1+1",),
    },
    "GPT-2 small, 26 heads (second-hand)",
)
# The paper's naive circuit has no backup and no negative heads, and the strongest of the early ones alone (memory).
NAIVE_GPT2_SMALL = replace(
    GPT2_SMALL.only(
        (*GPT2_SMALL.roles[MOVERS], *GPT2_SMALL.roles[INHIBITION], (5, 5), (6, 9), (0, 1), (3, 0), (2, 2), (4, 11))
    ),
    name="Wang et al. 2022, naive",
    source="GPT-2 small, 13 heads (memory)",
)


def published(config: Any) -> tuple[Circuit, Circuit] | None:
    """The published circuit and the naive one of models with GPT-2 small's shape; None for all others."""
    shape = (config.model_type, config.num_hidden_layers, config.num_attention_heads, config.hidden_size)
    return (GPT2_SMALL, NAIVE_GPT2_SMALL) if shape == ("gpt2", 12, 12, 768) else None

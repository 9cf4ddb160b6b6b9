"""What circuits have in common: states by their definition, in nested tuples, and how many of them are computed."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from replications.indirect_object_identification.circuit import EVERYWHERE, Nodes, whole, without
from replications.indirect_object_identification.circuit_states import States, numbered
from torch import Tensor

S2, END, OTHER = 1 << 3, 1 << 4, 1 << 5
# Two kinds of prompts, of four and of three tokens; END is also S2 in neither.
KINDS = torch.tensor([[OTHER, S2, OTHER, END], [0, OTHER, S2, END]])
HEADS, LAYERS = 3, 4


def drawn_circuits(n: int) -> Tensor:
    """With few nodes each, so that some end early; the last two are equal in their first layers."""
    generator = torch.Generator().manual_seed(0)
    nodes = torch.randint(0, EVERYWHERE + 1, (n, LAYERS, HEADS), generator=generator)
    nodes *= torch.rand(nodes.shape, generator=generator) < 0.3
    nodes[-1, :2] = nodes[-2, :2]
    return torch.cat([nodes, torch.zeros_like(nodes[:1]), whole(LAYERS, HEADS)[None]])


def by_definition(nodes: Nodes, kind: int, layer: int, token: int, wanted: list[set[Any]]) -> Any:
    """The state behind `layer` layers as a nested tuple; it and all that it is made of are added to `wanted`."""
    if layer == 0:
        found: Any = (kind, token)
    else:
        bits = int(KINDS[kind, token])
        heads = tuple(head for head in range(HEADS) if int(nodes[layer - 1, head]) & bits)
        before = [at for at in range(token + 1) if int(KINDS[kind, at])] if heads else []
        seen = tuple(by_definition(nodes, kind, layer - 1, at, wanted) for at in before)
        found = (by_definition(nodes, kind, layer - 1, token, wanted), heads, seen)
    wanted[layer].add(found)
    return found


def test_states_are_those_of_the_definition_and_each_is_there_once() -> None:
    circuits = drawn_circuits(12)
    wanted: list[set[Any]] = [set() for _ in range(LAYERS + 1)]
    ends = [[by_definition(nodes, kind, LAYERS, 3, wanted) for nodes in circuits] for kind in range(2)]
    states = States.of(circuits, KINDS)
    keys: list[Any] = list(zip(states.kinds.tolist(), states.tokens.tolist(), strict=True))
    assert sorted(keys) == sorted(wanted[0])
    for layer, expected in zip(states.layers, wanted[1:], strict=True):
        behind = [(keys[parent], (), ()) for parent in layer.parents.tolist()]
        for at, heads, row in zip(layer.asking.tolist(), layer.heads, layer.context_of.tolist(), strict=True):
            context = layer.contexts[row, : int(layer.tokens[at]) + 1].tolist()
            seen = tuple(keys[state] for state in context if state >= 0)
            behind[at] = (behind[at][0], tuple(heads.nonzero().flatten().tolist()), seen)
        assert len(set(behind)) == len(behind)
        assert set(behind) == expected
        keys = behind
    assert [[keys[end] for end in of_kind] for of_kind in states.ends.tolist()] == ends


@pytest.mark.parametrize(
    ("circuits", "expected"),
    [
        # The model: of the last layer the last token alone.
        ([whole(LAYERS, HEADS)], [4, 4, 4, 1]),
        # Without a head: all tokens twice from there on.
        ([whole(LAYERS, HEADS), without(whole(LAYERS, HEADS), [(1, 0)], whole(LAYERS, HEADS))], [4, 8, 8, 2]),
        # Without it at S2, the second token: there twice, then from there on.
        (
            [whole(LAYERS, HEADS), without(whole(LAYERS, HEADS), [(1, 0)], torch.full((LAYERS, HEADS), S2))],
            [4, 5, 7, 2],
        ),
        # Nothing: the last token alone.
        ([torch.zeros(LAYERS, HEADS, dtype=torch.long)], [1, 1, 1, 1]),
        # One head at END of the third layer: before it all tokens, behind it the last one.
        ([torch.tensor([[0] * 3, [0] * 3, [END, 0, 0], [0] * 3])], [4, 4, 1, 1]),
    ],
)
def test_how_many_states_are_computed(circuits: list[Tensor], expected: list[int]) -> None:
    states = States.of(torch.stack(circuits), KINDS[:1])
    assert [len(layer.tokens) for layer in states.layers] == expected
    assert states.widest().tolist() == [max(expected)]


def test_kinds_have_states_of_their_own() -> None:
    circuits = drawn_circuits(6)
    both = States.of(circuits, KINDS)
    for kind in range(2):
        alone = States.of(circuits, KINDS[kind : kind + 1])
        for layer, mine in zip(both.layers, alone.layers, strict=True):
            assert int((layer.kinds == kind).sum()) == len(mine.tokens)
            assert int((layer.kinds[layer.asking] == kind).sum()) == len(mine.asking)


def test_numbers_are_equal_where_all_columns_are() -> None:
    first, second = torch.tensor([0, 1, 0, -1, 0, 1]), torch.tensor([2, -1, 2, 2, -1, -1])
    number = numbered(first, second)
    assert sorted(set(number.tolist())) == [0, 1, 2, 3]
    pairs = list(zip(first.tolist(), second.tolist(), strict=True))
    assert all((number[a] == number[b]) == (pairs[a] == pairs[b]) for a in range(6) for b in range(6))

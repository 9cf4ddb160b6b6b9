"""Proposing a circuit without being told a head: rank all of them, then take away what is not needed.

    faithfulness(C) = 1 - |F(M) - F(C)| / |F(M)|        F(C): mean logit difference with all outside of C ablated

1. Heads are ranked twice: by integrated gradients of their mean ablation (Hanna et al. 2024), and by path patching to
   the logits and backwards (`path_stages`); a head counts by the better of its two ranks.
2. Of a large model the search starts from the shortest beginning of that ranking that is faithful, as are all longer
   ones that were measured. Of a small one it starts from all heads.
3. Backward elimination (`eliminate`): measure all single removals, remove what costs least, measure again. In a large
   model several heads go at once, but never more than leave the rest faithful. It stops when no single removal does.

Faithfulness is two-sided: a circuit that answers *better* than the model, because the heads that work against the
answer are missing, is unfaithful too. It is a ratio of means over prompts, as in the paper, so that what is wrong in
opposite directions on different prompts cancels; `discovery_stages` stores every prompt.

`grow` is forward greedy search, for comparison: where heads need each other, none of them helps alone.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass

from replications.indirect_object_identification.circuit import Head

Measure = Callable[[Sequence[frozenset[Head]]], Sequence[float]]
"""The faithfulness of several circuits, each given by its heads, measured together."""
Progress = Callable[[int, int], None]


@dataclass(frozen=True)
class Steps:
    """A path of circuits that a search went: `sizes` and `faithfulness` after each of its rounds, `order` of heads.

    Of an elimination `order` begins with the head that went first, and ends with what was left at the end; of a growth
    with the head that came first. `circuit` is what the search proposes.
    """

    order: tuple[Head, ...]
    sizes: tuple[int, ...]
    faithfulness: tuple[float, ...]
    circuit: tuple[Head, ...]


def eliminate(
    measure: Measure,
    heads: Iterable[Head],
    floor: float,
    at_once: float = 0.0,
    progress: Progress = lambda done, total: None,
) -> Steps:
    """Backward elimination; the circuit is what is left when no head can go without falling below `floor`.

    Behind that it goes on, without a floor, until one head is left, for the curve.

    Args:
        at_once: the largest share of the heads left that may go in one round; at least one does.
        progress: called with the heads gone and those in all.

    Raises:
        ValueError: no heads, a floor above 1, or a share that is none.
    """
    left = sorted(set(heads))
    if not left or floor > 1 or not 0 <= at_once < 1:
        raise ValueError(
            f"{len(left)} heads, floor {floor}, at_once {at_once}: expected at least one head, a floor of at most 1 "
            f"and a share from 0 to below 1"
        )
    gone: list[Head] = []
    sizes, found = [len(left)], [measure([frozenset(left)])[0]]
    circuit: tuple[Head, ...] | None = None
    while len(left) > 1:
        alone = measure([frozenset(left) - {head} for head in left])
        cheapest = sorted(range(len(left)), key=lambda at: (-alone[at], at))
        order = [left[at] for at in cheapest]
        many = halvings(min(len(left) - 1, max(1, int(at_once * len(left)))))
        together = [*measure([frozenset(left) - set(order[:n]) for n in many[:-1]]), alone[cheapest[0]]]
        faithful = [at for at, value in enumerate(together) if value >= floor]
        if circuit is None and not faithful:
            circuit = tuple(left)
        chosen = 0 if circuit is not None else faithful[0]
        gone += order[: many[chosen]]
        left = sorted(set(left) - set(gone))
        sizes.append(len(left))
        found.append(together[chosen])
        progress(len(gone), len(gone) + len(left))
    return Steps((*gone, *left), tuple(sizes), tuple(found), circuit or tuple(left))


def grow(measure: Measure, heads: Iterable[Head], floor: float, most: int) -> Steps:
    """Forward greedy search: from nothing, the head that leaves the circuit most faithful, up to `most` heads.

    The circuit is the first one that reaches `floor`, or the last one.
    """
    left, chosen = sorted(set(heads)), list[Head]()
    found: list[float] = []
    while left and len(chosen) < most:
        with_each = measure([frozenset((*chosen, head)) for head in left])
        best = max(range(len(left)), key=lambda at: with_each[at])
        found.append(with_each[best])
        chosen.append(left.pop(best))
    reached = [at + 1 for at, value in enumerate(found) if value >= floor]
    circuit = tuple(sorted(chosen[: reached[0] if reached else len(chosen)]))
    return Steps(tuple(chosen), tuple(range(1, len(chosen) + 1)), tuple(found), circuit)


def shortest_faithful(measure: Measure, order: Sequence[Head], sizes: Sequence[int], floor: float) -> int:
    """The smallest of `sizes` at which the first heads of `order`, and those at all larger sizes, are faithful.

    The largest size where even that is not.
    """
    ascending = sorted(set(sizes))
    values = measure([frozenset(order[:size]) for size in ascending])
    best = ascending[-1]
    for size, value in zip(reversed(ascending), reversed(values), strict=True):
        if value < floor:
            break
        best = size
    return best


def by_better_rank(*orders: Sequence[Head]) -> tuple[Head, ...]:
    """All heads by the best rank that one of the orders gives them; ties by the sum of the ranks, then by place.

    Raises:
        ValueError: the orders have different heads.
    """
    if any(set(order) != set(orders[0]) or len(order) != len(orders[0]) for order in orders):
        raise ValueError(
            f"orders of {', '.join(str(len(order)) for order in orders)} heads: expected the same heads in each, once"
        )
    ranks = [{head: rank for rank, head in enumerate(order)} for order in orders]

    def key(head: Head) -> tuple[int, int, Head]:
        mine = [rank[head] for rank in ranks]
        return min(mine), sum(mine), head

    return tuple(sorted(orders[0], key=key))


def halvings(n: int) -> list[int]:
    """n, n // 2, ... down to 1."""
    found = [n]
    while found[-1] > 1:
        found.append(found[-1] // 2)
    return found


def sizes_to_measure(n_heads: int, most: int = 12) -> list[int]:
    """Numbers of heads for a curve: all of them where there are few, else about `most`, denser where they are small."""
    if n_heads <= most:
        return list(range(n_heads + 1))
    ratio = n_heads ** (1 / (most - 2))
    return sorted({0, *(round(ratio**power) for power in range(most - 1)), n_heads})

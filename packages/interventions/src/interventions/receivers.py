"""Receivers of path patching: the final stream, or the queries, keys or values of heads.

Under grouped queries all heads of a group read the same keys and values; then no head's key can be changed alone, and a
group is a receiver as a whole.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from interventions.hooks import Modules

Projection = Literal["q", "k", "v"]
Head = tuple[int, int]
"""(layer, head)"""


@dataclass(frozen=True)
class FinalStream:
    """The stream behind the last layer: the direct effect on the logits at the last token."""


@dataclass(frozen=True)
class HeadInputs:
    """The queries, keys or values of heads (layer, head), changed together; heads are counted as query heads.

    For "k" and "v" under grouped queries, name all heads of a group.
    """

    heads: Sequence[Head]
    into: Projection


Receivers = FinalStream | HeadInputs


@dataclass(frozen=True)
class Into:
    """Receivers by layer, ascending: indices of their q, k or v heads. The final stream is layer `len(modules)`."""

    projection: Projection | None
    heads: dict[int, list[int]]

    @property
    def layers(self) -> list[int]:
        return list(self.heads)

    @classmethod
    def of(cls, modules: Modules, receivers: Receivers) -> Into:
        """Raises ValueError for receivers that do not exist, that no head comes before, or that are half a group."""
        if isinstance(receivers, FinalStream):
            return cls(None, {len(modules): []})
        into, heads = receivers.into, [checked(modules, head, "receiver") for head in receivers.heads]
        if into not in ("q", "k", "v"):
            raise ValueError(f"into {into!r}: expected 'q', 'k' or 'v'")
        if not heads or len(set(heads)) != len(heads):
            raise ValueError(f"receivers {heads}: expected at least one head, each once")
        if max(layer for layer, _ in heads) == 0:
            raise ValueError("receivers in layer 0 alone: no head comes before them; expected one in a later layer")
        group = 1 if into == "q" else modules.n_heads // modules.n_kv_heads
        for layer, head in heads:
            first = head // group * group
            if not {(layer, other) for other in range(first, first + group)} <= set(heads):
                raise ValueError(
                    f"receiver ({layer}, {head}): heads {first} to {first + group - 1} of layer {layer} share one "
                    f"{into}: expected all of them as receivers; or use into='q'"
                )
        layers = sorted({layer for layer, _ in heads})
        return cls(into, {at: sorted({head // group for layer, head in heads if layer == at}) for at in layers})


def checked(modules: Modules, head: Head, what: str) -> Head:
    """The head itself.

    Raises:
        ValueError: the network does not have it.
    """
    layer, index = head
    if not (0 <= layer < len(modules) and 0 <= index < modules.n_heads):
        raise ValueError(
            f"{what} ({layer}, {index}) does not exist: expected (layer, head), layers 0 to {len(modules) - 1}, heads "
            f"0 to {modules.n_heads - 1}"
        )
    return layer, index

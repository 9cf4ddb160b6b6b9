"""Scores of heads and attention patterns as matplotlib figures, which are returned and never shown."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from jaxtyping import Float
from torch import Tensor

if TYPE_CHECKING:
    from matplotlib.figure import Figure


def plot_heads(scores: Float[Tensor, "layer head"], *, title: str = "", label: str = "") -> Figure:
    """A score of every head as a heat map; `label` names the number and its unit.

    Raises:
        ImportError: matplotlib is not installed.
    """
    from circuits.figures import heat_map

    layers, heads = ([str(place) for place in range(size)] for size in scores.shape)
    return heat_map(scores, layers, heads, title=title, axes=("Layer", "Head"), label=label)


def plot_pattern(
    pattern: Float[Tensor, "query key"], tokens: Sequence[str] | None = None, *, title: str = ""
) -> Figure:
    """The attention pattern of a head on one text; positions are named by `tokens`, or numbered.

    Raises:
        ImportError: matplotlib is not installed.
        ValueError: not a token for each position.
    """
    from circuits.figures import heat_map

    if pattern.shape[0] != pattern.shape[1] or (tokens is not None and len(tokens) != len(pattern)):
        n = "no" if tokens is None else len(tokens)
        raise ValueError(f"pattern of shape {tuple(pattern.shape)}, {n} tokens: expected [pos, pos], a token for each")
    names = list(tokens) if tokens is not None else [str(place) for place in range(len(pattern))]
    axes = ("Query (attends from)", "Key (attends to)")
    return heat_map(pattern, names, names, title=title, axes=axes, label="Attention")

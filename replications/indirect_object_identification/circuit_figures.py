"""The circuit as a diagram: its heads by role, from left to right as the answer goes."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import matplotlib.pyplot as plt
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import FancyBboxPatch
from replications.indirect_object_identification import circuit
from replications.indirect_object_identification.circuit import Head
from replications.indirect_object_identification.drawing import ROLE_COLOURS, ROLE_NAMES, counted, heads_of, main, named

from reprise import Results

# Column of each role from the left, as the answer goes.
COLUMNS = (
    (circuit.PREVIOUS,),
    (circuit.DUPLICATE, circuit.INDUCTION),
    (circuit.INHIBITION,),
    (circuit.MOVERS, circuit.BACKUP, circuit.NEGATIVE),
)
ARROWS = (
    (circuit.PREVIOUS, circuit.INDUCTION),
    (circuit.INDUCTION, circuit.INHIBITION),
    (circuit.DUPLICATE, circuit.INHIBITION),
    (circuit.INHIBITION, circuit.MOVERS),
    (circuit.INHIBITION, circuit.BACKUP),
    (circuit.INHIBITION, circuit.NEGATIVE),
)
A_LINE, MOST_LINES = 4, 4
BOX, STEP, LINE = 1.7, 2.15, 0.165  # inches: width of a box, from column to column, height of a line


def diagram(results: Results) -> Figure:
    """The circuit that is judged: heads by role

    From left to right as the answer goes, with the words at which a role's heads are kept; without words, at all
    tokens. Arrows are the steps of path patching, not measured strengths. Heads whose role no step found are "other".
    """
    facts = main(results, "faithfulness").facts
    of = {role: heads_of(heads) for role, heads in facts["circuit"]["roles"].items()}
    texts = {role: _text(role, heads, facts["circuit"]["words"].get(role)) for role, heads in of.items()}
    places, low, high = _placed({role: text.count("\n") + 1 for role, text in texts.items()})
    last = STEP * len(COLUMNS) - 0.55
    figure, axes = plt.subplots(figsize=(last + 1.6, high - low + 0.75))
    kind = "The published circuit" if facts["is_published"] else "The circuit that the search proposed"
    axes.set(xlim=(-BOX / 2 - 0.1, last + 0.35), ylim=(low - 0.1, high + 0.1))
    axes.set_title(f"{kind}: {counted(facts['circuit']['heads'])}")
    axes.axis("off")
    for start, end in ARROWS:
        if start in places and end in places:
            _arrow(axes, places[start], (places[end][0] - BOX / 2, places[end][1]))
    for role in COLUMNS[-1]:
        if role in places:
            _arrow(axes, places[role], (last - 0.28, 0.0))
    for role, (x, y) in places.items():
        height = LINE * (texts[role].count("\n") + 1) + 0.12
        box = FancyBboxPatch((x - BOX / 2, y - height / 2), BOX, height, boxstyle="round,pad=0,rounding_size=0.08")
        box.set(facecolor="white", edgecolor=ROLE_COLOURS[role], linewidth=1.7)
        axes.add_patch(box)
        axes.text(x, y, texts[role], ha="center", va="center", fontsize=8, linespacing=1.3)
    axes.text(last, 0, "logits", ha="center", va="center", fontsize=9, weight="bold")
    return figure


def _text(role: str, heads: Sequence[Head], words: Sequence[str] | None) -> str:
    """Name, words and heads, on a few lines."""
    names = [named(head) for head in heads]
    lines = [", ".join(names[first : first + A_LINE]) for first in range(0, len(names), A_LINE)]
    more = len(names) - A_LINE * MOST_LINES
    shown = [*lines[:MOST_LINES], *([f"and {more} more"] if more > 0 else [])]
    return "\n".join([f"{ROLE_NAMES[role]}{_at(words)}", *shown])


def _at(words: Sequence[str] | None) -> str:
    return f" at {', '.join(words)}" if words else ""


def _placed(lines: Mapping[str, int]) -> tuple[dict[str, tuple[float, float]], float, float]:
    """The middle of every role's box, in inches, and the lowest and highest ends of boxes."""
    places: dict[str, tuple[float, float]] = {}
    high = 0.3
    for at, column in enumerate(COLUMNS):
        roles = [role for role in column if role in lines]
        heights = [LINE * lines[role] + 0.12 for role in roles]
        top = (sum(heights) + 0.25 * (len(roles) - 1)) / 2
        high = max(high, top)
        for role, height in zip(roles, heights, strict=True):
            places[role] = (STEP * at, top - height / 2)
            top -= height + 0.25
    low = -high
    if circuit.OTHER in lines:
        height = LINE * lines[circuit.OTHER] + 0.12
        places[circuit.OTHER] = (STEP * 1.5, low - 0.2 - height / 2)
        low -= 0.2 + height
    return places, low, high


def _arrow(axes: Axes, start: tuple[float, float], end: tuple[float, float]) -> None:
    how = {"arrowstyle": "-|>", "color": "#999999", "linewidth": 1.3, "shrinkA": 2, "shrinkB": 2}
    axes.annotate("", xy=end, xytext=(start[0] + BOX / 2, start[1]), arrowprops=how)

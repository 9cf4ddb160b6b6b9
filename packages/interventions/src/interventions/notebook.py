"""How results look in a notebook: tables of plain HTML, without scripts, style sheets or anything from elsewhere.

Everything that comes from data is escaped. A number's size is shown twice, as text and as a shade behind it, so that no
reader needs the colours. Shades let the page through (opacity at most 0.5) and text keeps the colour that the page
gives it: dark text on a light page and light text on a dark one both keep a contrast above 4.5, what WCAG 2.2 asks for
(criterion 1.4.3). Rows and columns have headers with a scope, and every table a caption that names its unit.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from html import escape

from jaxtyping import Float
from torch import Tensor

# Okabe and Ito's blue and vermilion, told apart by readers with any colour vision: below zero and above.
BELOW, ABOVE = "0,114,178", "213,94,0"
OPACITY = 0.5
CELL = "padding:.15em .5em;text-align:right"
UNITS = {
    "logit difference": "logits",
    "logit": "logits",
    "log-probability": "nats",
    "KL to the clean run": "nats",
    "loss": "nats per token",
    "rank": "places",
}
"""Of the metrics that have one; a probability has none, and of a custom metric it is not known."""


def table(
    caption: str,
    columns: Sequence[str],
    rows: Sequence[Sequence[str]],
    *,
    shades: Sequence[Sequence[float]] | None = None,
    note: str = "",
) -> str:
    """A table as HTML; the first cell of each row is its header.

    Args:
        shades: of the cells behind the first, -1 (blue) to 1 (vermilion), 0 or NaN for none.
        note: a line below the table.
    """
    head = "".join(f'<th scope="col" style="{CELL}">{escape(name)}</th>' for name in columns)
    body = []
    for index, (first, *cells) in enumerate(rows):
        shade = [0.0] * len(cells) if shades is None else shades[index]
        data = "".join(
            f'<td style="{CELL}{_shaded(size)}">{escape(cell)}</td>' for cell, size in zip(cells, shade, strict=True)
        )
        body.append(f'<tr><th scope="row" style="{CELL}">{escape(first)}</th>{data}</tr>')
    below = f"<p>{escape(note)}</p>" if note else ""
    return (
        '<div style="overflow-x:auto">'
        '<table style="border-collapse:collapse;font-variant-numeric:tabular-nums">'
        f'<caption style="caption-side:top;text-align:left;white-space:nowrap">{escape(caption)}</caption>'
        f"<thead><tr>{head}</tr></thead><tbody>{''.join(body)}</tbody></table>{below}</div>"
    )


def heat_map(
    caption: str,
    values: Float[Tensor, "row column"],
    *,
    rows: Sequence[str],
    columns: Sequence[str],
    corner: str,
    middle: float = 0.0,
    note: str = "",
) -> str:
    """Numbers as a table whose shades grow with their distance from `middle`.

    Args:
        corner: the header of the row headers, such as "layer / head".
    """
    numbers = values.tolist()
    largest = max((abs(x - middle) for row in numbers for x in row if math.isfinite(x)), default=0.0) or 1.0
    digits = decimals([x for row in numbers for x in row])
    text = [[label, *(_rounded(x, digits) for x in row)] for label, row in zip(rows, numbers, strict=True)]
    shades = [[(x - middle) / largest if math.isfinite(x) else 0.0 for x in row] for row in numbers]
    return table(caption, [corner, *columns], text, shades=shades, note=note)


def decimals(numbers: Sequence[float]) -> int:
    """How many decimals show the largest of some numbers with three digits, between 0 and 6."""
    largest = max((abs(x) for x in numbers if math.isfinite(x)), default=0.0)
    return 2 if largest == 0 else min(6, max(0, 2 - math.floor(math.log10(largest))))


def with_unit(quantity: str) -> str:
    """A metric's name with its unit, where that is known."""
    return f"{quantity} ({UNITS[quantity]})" if quantity in UNITS else quantity


def _rounded(number: float, digits: int) -> str:
    """A number without the sign of a zero that it is rounded to."""
    return f"{round(number, digits) + 0.0:.{digits}f}"


def _shaded(size: float) -> str:
    opacity = OPACITY * min(1.0, abs(size))
    return f";background:rgba({ABOVE if size > 0 else BELOW},{opacity:.2f})" if opacity >= 0.005 else ""

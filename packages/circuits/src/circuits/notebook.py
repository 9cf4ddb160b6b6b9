"""How results look in a notebook: tables of plain HTML, without scripts, style sheets or anything from elsewhere.

Everything that comes from data is escaped. A number's size is shown twice, as text and as a shade behind it, so that no
reader needs the colours. Shades let the page through (opacity at most 0.5) and text keeps the colour that the page
gives it, which leaves a contrast above 4.5 on light pages and on dark ones (WCAG 2.2, criterion 1.4.3).
"""

from __future__ import annotations

from collections.abc import Sequence
from html import escape

# Okabe and Ito's blue and vermilion, told apart by readers with any colour vision: below zero and above.
BELOW, ABOVE = "0,114,178", "213,94,0"
OPACITY = 0.5
CELL = "padding:.15em .5em;text-align:right"


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
        shades: of the cells behind the first, -1 (blue) to 1 (vermilion), 0 for none.
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


def _shaded(size: float) -> str:
    opacity = OPACITY * min(1.0, abs(size))
    return f";background:rgba({ABOVE if size > 0 else BELOW},{opacity:.2f})" if opacity >= 0.005 else ""

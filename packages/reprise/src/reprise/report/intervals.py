"""The geometry of an interval plot: where the estimate, its 95 % interval and the accepted range lie on a line.

The scale is linear and belongs to one row: it spans everything that is drawn there, with a margin. An open end of the
accepted range reaches the border of the plot.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

from reprise.report.gather import Judged
from reprise.tables import interval, number

WIDTH, MARGIN = 168.0, 14.0


@dataclass(frozen=True)
class Plot:
    """Horizontal positions in a box WIDTH wide, and the same in words."""

    estimate: float
    low: float
    high: float
    accept_from: float
    accept_to: float
    paper: float | None
    words: str


def plot(judged: Judged, with_paper_value: bool) -> Plot | None:
    """The plot of a measured claim; None where nothing was measured.

    Args:
        with_paper_value: mark the paper's own number too, which only the paper tier is compared with.
    """
    row, accept = judged.row, judged.accept
    if row.estimate is None or row.low is None or row.high is None:
        return None
    paper_value = row.paper_value if with_paper_value else None
    drawn = [row.estimate, row.low, row.high, accept.at_least, accept.at_most]
    drawn = [value for value in (*drawn, paper_value) if value is not None and math.isfinite(value)]
    least, most = min(drawn), max(drawn)

    def at(value: float) -> float:
        if math.isinf(value):
            return 0.0 if value < 0 else WIDTH
        share = (value - least) / (most - least) if most > least else 0.5
        return round(MARGIN + share * (WIDTH - 2 * MARGIN), 1)

    words = f"{number(row.estimate)}, 95 % interval {interval(row)}; accepted {accept}"
    if paper_value is not None:
        words += f"; the paper's number {number(paper_value)}"
    return Plot(
        estimate=at(row.estimate),
        low=at(row.low),
        high=at(row.high),
        accept_from=at(accept.at_least),
        accept_to=at(accept.at_most),
        paper=None if paper_value is None else at(paper_value),
        words=words,
    )

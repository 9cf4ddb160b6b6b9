"""Sweeps over layer and coefficient: success and fluency of completions together, in every cell.

In each cell the vector acts in one layer with one coefficient, and completions are scored by a metric of the user's and
by their perplexity under the unsteered model (`outcomes`). A coefficient is chosen by both: the success of a text that
nobody could read is none. Choose on other prompts than those that are reported.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
from jaxtyping import Float
from torch import Tensor

from interventions import Model
from interventions.notebook import heat_map
from steering.errors import SteeringError
from steering.grids import EVERYWHERE, Progress, run_cells, stacked, steers_of
from steering.intervals import Quotient
from steering.outcomes import GREEDY, Kind, Metric, Outcome, Writing, measured, transform, written
from steering.positions import Positions
from steering.steering import Operation, Steer
from steering.vectors import SteeringVector

if TYPE_CHECKING:
    from matplotlib.figure import Figure


@dataclass(frozen=True)
class SteeringSweep:
    """Outcomes by layer and coefficient, `cells[layer][coefficient]`, and without the vector."""

    vector: str
    layers: tuple[int, ...]
    coefficients: tuple[float, ...]
    plain: Outcome
    cells: tuple[tuple[Outcome, ...], ...]

    @property
    def axes(self) -> tuple[str, str]:
        return ("layer", "coefficient")

    def at(self, layer: int, coefficient: float) -> Outcome:
        """One cell.

        Raises:
            SteeringError: it is not in the sweep.
        """
        if layer not in self.layers or coefficient not in self.coefficients:
            raise SteeringError(
                f"layer {layer}, coefficient {coefficient:g}: expected one of layers {list(self.layers)} and of "
                f"coefficients {list(self.coefficients)}"
            )
        return self.cells[self.layers.index(layer)][self.coefficients.index(coefficient)]

    def mean(self, kind: Kind = "success") -> Float[Tensor, "layer coefficient"]:
        """Estimates.

        Raises:
            SteeringError: there is no metric of that kind.
        """
        return transform(kind)(self._quotient(kind).estimate())

    def ends(
        self, kind: Kind = "success", *, seed: int = 0, level: float = 0.95, resamples: int = 1000
    ) -> tuple[Float[Tensor, "layer coefficient"], Float[Tensor, "layer coefficient"]]:
        """Ends of their intervals, the same prompts resampled in all cells.

        Raises:
            SteeringError: as `mean`; a level outside 0 to 1, or no resamples.
        """
        how = transform(kind)
        return self._quotient(kind).ends(seed=seed, level=level, resamples=resamples, transform=how)

    def best(self, *, largest: bool = True, perplexity_ratio: float = 2.0) -> tuple[int, float]:
        """Layer and coefficient of the largest (or smallest) success among cells that are still fluent.

        Args:
            perplexity_ratio: how many times as high as without the vector perplexity may be.

        Raises:
            SteeringError: no cell is fluent, or none has a success that could be measured.
        """
        limit = perplexity_ratio * float(self.plain.quotient("perplexity").estimate().exp())
        success, perplexity = self.mean(), self.mean("perplexity")
        fluent = (perplexity <= limit) & ~success.isnan()
        if not bool(fluent.any()):
            raise SteeringError(
                f"{self.vector}: perplexity is {float(perplexity.nan_to_num(torch.inf).min()):.3g} at least, more than "
                f"{perplexity_ratio:g} times that without the vector, in all cells: sweep smaller coefficients"
            )
        worst = -torch.inf if largest else torch.inf
        ranked = success.masked_fill(~fluent, worst)
        place = int(ranked.argmax() if largest else ranked.argmin())
        layer, coefficient = divmod(place, len(self.coefficients))
        return self.layers[layer], self.coefficients[coefficient]

    def plot(self, kind: Kind = "success", title: str | None = None) -> Figure:
        """Success or perplexity by coefficient, a line for each layer with its interval; dashed without the vector.

        Raises:
            ImportError: matplotlib is not installed.
            SteeringError: there is no metric of that kind.
        """
        from interventions import figures

        curves = {
            f"layer {layer}": (middle, low, high)
            for layer, middle, low, high in zip(self.layers, self.mean(kind), *self.ends(kind), strict=True)
        }
        return figures.lines(
            curves,
            [f"{coefficient:g}" for coefficient in self.coefficients],
            title=title or f"{self.vector}, {len(self.plain.values)} prompts",
            x="Coefficient",
            y=kind.capitalize(),
            level=self.plain.interval(kind).estimate,
        )

    def __repr__(self) -> str:
        sizes = f"{len(self.layers)} layers x {len(self.coefficients)} coefficients"
        return f"<SteeringSweep of {self.vector}: {sizes}; success without it {self.plain.interval('success')}>"

    def _repr_html_(self) -> str:
        names = [f"{coefficient:g}" for coefficient in self.coefficients]
        parts = []
        for kind in ("success", "perplexity"):
            plain = self.plain.interval(kind)
            parts.append(
                heat_map(
                    f"{self.vector}: {kind}; {plain} without the vector",
                    self.mean(kind),
                    rows=[str(layer) for layer in self.layers],
                    columns=names,
                    corner="layer / coefficient",
                    middle=plain.estimate,
                )
            )
        return "".join(parts)

    def _quotient(self, kind: Kind) -> Quotient:
        return stacked([[cell.quotient(kind) for cell in row] for row in self.cells])


def steering_sweep(
    model: Model,
    vector: SteeringVector,
    prompts: Sequence[str],
    metric: Metric,
    *,
    coefficients: Sequence[float],
    layers: Sequence[int] | None = None,
    positions: Positions = EVERYWHERE,
    operation: Operation = "add",
    writing: Writing = GREEDY,
    wellformed: Metric | None = None,
    progress: Progress = lambda done, total: None,
) -> SteeringSweep:
    """Write and measure completions in every cell.

    Args:
        layers: some of the vector's; all by default. Each acts alone.
        progress: called with the cells done and the cells in all, that without the vector included.

    Raises:
        SteeringError: before anything is written, no prompts, layers or coefficients, or one of them twice, a layer
            that the vector does not have, or a coefficient that is not finite; else as `generation.generate`.
    """
    if not prompts:
        raise SteeringError("no prompts: expected at least one to complete")
    steers = steers_of(vector, layers, coefficients, positions, operation)

    def run(some: tuple[Steer, ...]) -> Outcome:
        completions = written(model, prompts, writing, steers=some)
        return measured(model, prompts, completions, metric, wellformed=wellformed)

    plain, cells = run_cells(run, steers, progress)
    chosen = vector.layers if layers is None else tuple(layers)
    return SteeringSweep(vector.name, chosen, tuple(coefficients), plain, cells)

"""The result of a sweep: one number for every prompt and cell, with named axes, errors and intervals over prompts."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
from jaxtyping import Float
from torch import Tensor

from interventions.notebook import heat_map, table, with_unit

if TYPE_CHECKING:
    from matplotlib.figure import Figure

LARGEST_MAP = 1024  # cells: what a page shows well


@dataclass(frozen=True)
class SweepResult:
    """`values` [prompt, *axes]: the metric with the cell's edit; `clean` [prompt]: without.

    `axes` names the dimensions after the first; `coordinates[axis]` says what its indices are: layers, heads, or
    positions counted from the end.
    """

    values: Float[Tensor, "prompt ..."]
    clean: Float[Tensor, " prompt"]
    axes: tuple[str, ...]
    coordinates: Mapping[str, tuple[int, ...]]
    component: str
    metric: str

    @property
    def effects(self) -> Float[Tensor, "prompt ..."]:
        """values - clean."""
        return self.values - self.clean.view(-1, *[1] * len(self.axes))

    def mean(self) -> Float[Tensor, "*cells"]:
        """Mean over prompts of the effects."""
        return self.effects.mean(dim=0)

    def standard_error(self) -> Float[Tensor, "*cells"]:
        """Standard error over prompts of the mean effect: s / sqrt(n); NaN for a single prompt."""
        n = len(self.values)
        if n == 1:
            return torch.full(self.values.shape[1:], torch.nan)
        error: Tensor = self.effects.std(dim=0) / n**0.5
        return error

    def interval(
        self, *, seed: int, level: float = 0.95, resamples: int = 1000
    ) -> tuple[Float[Tensor, "*cells"], Float[Tensor, "*cells"]]:
        """Ends of a percentile-bootstrap interval of the mean effect, prompts resampled (the same for all cells).

        Raises:
            ValueError: a level outside 0 to 1, or no resamples.
        """
        if not 0 < level < 1 or resamples < 1:
            raise ValueError(
                f"level {level}, {resamples} resamples: expected a level between 0 and 1, at least one resample"
            )
        n = len(self.values)
        generator = torch.Generator().manual_seed(seed)
        # A resample is a vector of how often each prompt was drawn: all means in one product.
        draws = torch.randint(n, (resamples, n), generator=generator)
        shares = torch.zeros(resamples, n).scatter_add_(1, draws, torch.full(draws.shape, 1 / n))
        ends = torch.tensor([(1 - level) / 2, (1 + level) / 2])
        # torch.quantile takes no more than 2^24 numbers.
        parts = torch.split(self.effects.reshape(n, -1), max(1, 2**23 // resamples), dim=1)
        quantiles = torch.cat([torch.quantile(shares @ part, ends, dim=0) for part in parts], dim=1)
        low, high = quantiles.view(2, *self.values.shape[1:])
        return low, high

    def top(self, n: int) -> list[tuple[dict[str, int], float]]:
        """The `n` cells of largest mean effect by size, as ({axis: coordinate}, mean effect)."""
        means = self.mean()
        places = means.abs().flatten().argsort(descending=True)[:n]
        return [(self._cell(int(place), means.shape), float(means.flatten()[place])) for place in places]

    def _cell(self, place: int, shape: Sequence[int]) -> dict[str, int]:
        cell = {}
        for axis, size in reversed(list(zip(self.axes, shape, strict=True))):
            place, index = divmod(place, size)
            cell[axis] = self.coordinates[axis][index]
        return {axis: cell[axis] for axis in self.axes}

    def plot(self, title: str | None = None) -> Figure:
        """The mean effects as a matplotlib figure: a heat map over two axes, a line with its interval over one.

        Raises:
            ImportError: matplotlib is not installed.
            ValueError: the sweep has three axes.
        """
        from interventions import figures

        return figures.sweep(self, title, f"mean change of {with_unit(self.metric)}")

    def __repr__(self) -> str:
        cells = "; ".join(f"{_named(cell)}: {effect:+.3g}" for cell, effect in self.top(3))
        return f"<SweepResult: {_summary(self)}; largest: {cells}>"

    def _repr_html_(self) -> str:
        means = self.mean()
        if len(self.axes) > 2 or means.numel() > LARGEST_MAP:
            rows = [[_named(cell), f"{effect:+.3g}"] for cell, effect in self.top(10)]
            caption = f"{_summary(self)}. The 10 largest of {means.numel()} cells"
            return table(caption, ["cell", "mean change"], rows)
        labels = [[str(place) for place in self.coordinates[axis]] for axis in self.axes]
        if len(self.axes) == 1:
            labels, means = [["mean change"], *labels], means[None]
        return heat_map(_summary(self), means, rows=labels[0], columns=labels[1], corner=" / ".join(self.axes))


def _summary(result: SweepResult) -> str:
    axes = zip(result.axes, result.values.shape[1:], strict=True)
    sizes = " x ".join(f"{size} {axis}{'s'[: size != 1]}" for axis, size in axes)
    n = len(result.values)
    return (
        f"Mean change of {with_unit(result.metric)} when {result.component} is edited: {sizes}, "
        f"{n} prompt{'s'[: n != 1]}; {float(result.clean.mean()):.3g} without an edit"
    )


def _named(cell: Mapping[str, int]) -> str:
    return ", ".join(f"{axis} {place}" for axis, place in cell.items())

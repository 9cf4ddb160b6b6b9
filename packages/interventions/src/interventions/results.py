"""The result of a sweep: one number for every prompt and cell, with named axes, errors and intervals over prompts."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor


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

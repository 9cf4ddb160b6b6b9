"""Right or wrong, prompt by prompt, and the accuracy with its interval.

    accuracy = r / n,    interval (Wilson 1927):  (p + z^2/2n +- z sqrt(p(1-p)/n + z^2/4n^2)) / (1 + z^2/n)

at the level's normal quantile z. Unlike the normal approximation it stays within 0 to 1 and has a width at 0 and 1,
where function vectors often are. Prompts count as independent. What is right stays with each prompt, so that two
conditions on the same prompts can be compared in pairs.
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import product
from statistics import NormalDist
from typing import TYPE_CHECKING

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from interventions.notebook import heat_map, table

if TYPE_CHECKING:
    from matplotlib.figure import Figure


@dataclass(frozen=True)
class Scores:
    """`right` [prompt, *axes]; `axes` names the dimensions after the first, `coordinates` what their places are."""

    right: Bool[Tensor, "prompt ..."]
    axes: tuple[str, ...] = ()
    coordinates: tuple[tuple[int, ...], ...] = ()

    def __post_init__(self) -> None:
        sizes = tuple(len(places) for places in self.coordinates)
        if self.right.shape[1:] != sizes or len(self.axes) != len(sizes) or not len(self.right):
            raise ValueError(
                f"right has shape {tuple(self.right.shape)}, axes {self.axes} have sizes {sizes}: expected at least "
                f"one prompt, then one dimension an axis"
            )

    @property
    def n(self) -> int:
        """Prompts."""
        return len(self.right)

    @property
    def accuracy(self) -> Float[Tensor, "*axes"]:
        """The share of prompts that are right."""
        return self.right.float().mean(dim=0)

    def interval(self, level: float = 0.95) -> tuple[Float[Tensor, "*axes"], Float[Tensor, "*axes"]]:
        """Ends of Wilson's interval of the accuracy.

        Raises:
            ValueError: a level outside 0 to 1.
        """
        if not 0 < level < 1:
            raise ValueError(f"level {level}: expected a level between 0 and 1")
        z, n = NormalDist().inv_cdf((1 + level) / 2), self.n
        p = self.accuracy.double()
        middle = p + z**2 / (2 * n)
        width = z * (p * (1 - p) / n + z**2 / (4 * n**2)).sqrt()
        scale = 1 + z**2 / n
        return ((middle - width) / scale).float(), ((middle + width) / scale).float()

    def take(self, axis: str, coordinate: int) -> Scores:
        """The scores at one place of an axis, without that axis.

        Raises:
            ValueError: there is no such axis or place.
        """
        if axis not in self.axes:
            raise ValueError(f"axis {axis!r}: expected one of {', '.join(self.axes) or 'none'}")
        dimension = self.axes.index(axis)
        places = self.coordinates[dimension]
        if coordinate not in places:
            raise ValueError(f"{axis} {coordinate}: expected one of {', '.join(map(str, places))}")
        rest = [at for at in range(len(self.axes)) if at != dimension]
        return Scores(
            self.right.select(dimension + 1, places.index(coordinate)),
            tuple(self.axes[at] for at in rest),
            tuple(self.coordinates[at] for at in rest),
        )

    def plot(self, title: str = "", *, baseline: float | None = None) -> Figure:
        """Accuracy as a matplotlib figure: with its interval over one axis, as a heat map over two.

        Args:
            baseline: an accuracy to compare with, drawn as a dashed line.

        Raises:
            ImportError: matplotlib is not installed.
            ValueError: there is no axis.
        """
        from interventions import figures

        labels = [[str(place) for place in places] for places in self.coordinates]
        names, accuracy = [axis.capitalize() for axis in self.axes], f"Accuracy, {self.n} prompts"
        if len(names) == 1:
            curves = {"": (self.accuracy, *self.interval())}
            return figures.lines(curves, labels[0], title=title, x=names[0], y=accuracy, level=baseline)
        if len(names) != 2:
            raise ValueError(f"scores with {len(names)} axes: expected one or two to draw; print them instead")
        axes = (names[0], names[1])
        return figures.heat_map(self.accuracy, *labels, title=title, axes=axes, label=accuracy, limits=(0.0, 1.0))

    def __repr__(self) -> str:
        if not self.axes:
            low, high = self.interval()
            return f"<Scores: accuracy {float(self.accuracy):.3f} [{low:.3f}, {high:.3f}], {self.n} prompts>"
        best = self.accuracy.argmax()
        places = zip(self.axes, self.coordinates, torch.unravel_index(best, self.accuracy.shape), strict=True)
        at = ", ".join(f"{axis} {of[int(place)]}" for axis, of, place in places)
        return (
            f"<Scores over {', '.join(self.axes)}: {self.n} prompts; highest {float(self.accuracy.max()):.3f} at {at}>"
        )

    def _repr_html_(self) -> str:
        caption = f"Accuracy [95 % interval], {self.n} prompts"
        if len(self.axes) == 2:
            down, across = [[str(place) for place in places] for places in self.coordinates]
            caption = f"Accuracy, {self.n} prompts"
            return heat_map(caption, self.accuracy, rows=down, columns=across, corner=" / ".join(self.axes))
        low, high = self.interval()
        ends = zip(*(numbers.reshape(-1).tolist() for numbers in (self.accuracy, low, high)), strict=True)
        cells = [f"{p:.3f} [{below:.3f}, {above:.3f}]" for p, below, above in ends]
        places = product(*self.coordinates)
        rows = [[*map(str, at), cell] for at, cell in zip(places, cells, strict=True)]
        return table(caption, [*self.axes, "accuracy"], rows)

"""Right or wrong, prompt by prompt, and the accuracy with its interval.

    accuracy = r / n,    interval (Wilson 1927):  (p + z^2/2n +- z sqrt(p(1-p)/n + z^2/4n^2)) / (1 + z^2/n)

at the level's normal quantile z. Unlike the normal approximation it stays within 0 to 1 and has a width at 0 and 1,
where function vectors often are. Prompts count as independent. What is right stays with each prompt, so that two
conditions on the same prompts can be compared in pairs.
"""

from __future__ import annotations

from dataclasses import dataclass
from statistics import NormalDist

from jaxtyping import Bool, Float
from torch import Tensor


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

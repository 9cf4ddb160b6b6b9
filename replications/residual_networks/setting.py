"""The runs of a sweep: their names, networks, recipes and data.

A run is named by kind, depth and seed: `plain-56-seed0`. The tiny tier is the paper's experiment made small: half the
width, digits of 8x8 pixels padded by 1 (the paper pads 32x32 pixels by 4) and not mirrored, and 1,600 steps, in which
the 1,300 images are seen 157 times (the paper's 50,000 are seen 164 times). Rate, momentum, weight decay, batch size
and the shares of the run after which the rate is divided are the paper's.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path

from reprise.errors import UserError
from training.vision import (
    Architecture,
    Augmentation,
    ImageFileError,
    MissingPackage,
    Recipe,
    Split,
    load_cifar10,
    load_digits,
    recipe_for,
)

KINDS = ("plain", "residual")
DEPTHS = {"tiny": (8, 20, 32, 44, 56), "paper": (20, 32, 44, 56, 110)}
SEEDS = 5  # tiny tier, and the paper's residual network of 110 layers (table 6)
PAPER_SEEDS = 3  # the paper runs every other network once
NAME = re.compile(r"(plain|residual)-(\d+)-seed(\d+)")


@dataclass(frozen=True)
class Scale:
    """What differs between the tiers.

    Args:
        evaluations: how often the errors are measured, evenly over the run.
        moments: shares of the run after which gradients are measured.
        checkpoints: steps between two checkpoints.
    """

    width: int
    channels: int
    evaluations: int
    checkpoints: int
    moments: tuple[float, ...] = (0.0, 1 / 16, 1 / 4, 1 / 2, 1.0)


SCALES = {"tiny": Scale(8, 1, 40, 400), "paper": Scale(16, 3, 32, 1000)}
DIGITS = Recipe(steps=1600, divide_at=(800, 1200), augmentation=Augmentation(pad=1, flip=False))


@dataclass(frozen=True)
class Unit:
    """One run of the sweep."""

    kind: str
    depth: int
    seed: int

    @property
    def name(self) -> str:
        return f"{self.kind}-{self.depth}-seed{self.seed}"

    @classmethod
    def parse(cls, name: str) -> Unit:
        """Raises ValueError for a name that is not one of a run."""
        found = NAME.fullmatch(name)
        if not found:
            raise ValueError(f"{name!r}: expected a run's name, for example plain-56-seed0")
        return cls(found[1], int(found[2]), int(found[3]))


def seeds_of(tier: str, kind: str, depth: int) -> range:
    """The seeds of a network in a tier."""
    return range(SEEDS if tier == "tiny" or (kind, depth) == ("residual", 110) else PAPER_SEEDS)


UNITS = {
    tier: tuple(
        Unit(kind, depth, seed).name for kind in KINDS for depth in depths for seed in seeds_of(tier, kind, depth)
    )
    for tier, depths in DEPTHS.items()
}


def recipe(tier: str, depth: int) -> Recipe:
    """How a network is trained; the paper tier warms a network of 110 layers up as the paper does."""
    return DIGITS if tier == "tiny" else recipe_for(depth)


def architecture(tier: str, unit: Unit) -> Architecture:
    scale = SCALES[tier]
    return Architecture(unit.depth, unit.kind == "residual", scale.width, scale.channels)


def images(tier: str, data: Path | None) -> Split:
    """The digits, or CIFAR-10 from a folder. All runs of a tier have the same split.

    Raises:
        UserError: the paper tier without a folder, a batch that is missing or damaged, scikit-learn missing.
    """
    try:
        if tier == "tiny":
            return load_digits()
        if data is None:
            raise UserError(
                "the paper tier trains on CIFAR-10, which the project does not hold: give its folder with --data DIR"
            )
        return load_cifar10(data)
    except (ImageFileError, MissingPackage) as error:
        raise UserError(str(error)) from error

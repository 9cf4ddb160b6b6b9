"""The shipped models by name: where they lie, their checkpoints, and how to train them again.

This module imports nothing slow, because the command line asks it for names.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from torch import Tensor

NAMES = (
    "attn-only-0l",
    "attn-only-1l",
    "attn-only-2l",
    "attn-only-3l",
    "attn-only-2l-seed1",
    "attn-only-2l-seed2",
    "relations-4l",
    "relations-4l-seed1",
    "relations-4l-seed2",
    "relations-lists-4l",
    "relations-lists-4l-seed1",
    "relations-lists-4l-seed2",
    "stories-4l",
    "stories-4l-seed1",
    "people-4l",
    "people-4l-seed1",
    "people-4l-seed2",
    "ioi-4l",
    "ioi-4l-seed1",
    "ioi-4l-seed2",
)


def shared_folder() -> Path:
    """The folder shared/ of a checkout or of an unpacked release, at or above $REPRISE_ROOT if that is set, else at or
    above this file or the current folder.

    Raises:
        FileNotFoundError: if there is none.
    """
    starts = [Path(os.environ["REPRISE_ROOT"])] if "REPRISE_ROOT" in os.environ else [Path(__file__), Path.cwd()]
    for start in starts:
        for folder in (start, *start.resolve().parents):
            if (folder / "shared" / "models").is_dir():
                return folder / "shared"
    raise FileNotFoundError(
        f"no folder shared/models at or above {starts[-1]}; the models are no part of the package: run in a checkout "
        "of the project or where a release's reprise-shared-*.tar is unpacked, or set REPRISE_ROOT to such a folder"
    )


def folder(name: str) -> Path:
    """The folder of a shipped model, for `interventions.load`.

    Raises:
        KeyError: if there is no such model.
        FileNotFoundError: if the checkout does not hold it.
    """
    if name not in NAMES:
        raise KeyError(f"no model {name!r}; the zoo has: {', '.join(NAMES)}")
    path = shared_folder() / "models" / name
    if not path.is_dir():
        raise FileNotFoundError(f"{path} does not exist")
    return path


def checkpoint_steps(folder: Path) -> tuple[int, ...]:
    """The training steps whose weights a model folder holds, ascending; none where it holds the final ones alone.

    Raises:
        ModelFolderError: the file with the weights is not the one that the card states.
    """
    from zoo import cards, packing

    path = folder / cards.CHECKPOINTS
    if not path.exists():
        return ()
    cards.check(folder, cards.CHECKPOINTS)
    return packing.packed_steps(path)


def checkpoint(folder: Path, step: int) -> dict[str, Tensor]:
    """The weights of a training step, for `interventions.set_weights`.

    Raises:
        KeyError: for a step that is not there.
        ModelFolderError: the file is not the one that the card states.
    """
    from zoo import cards, packing

    cards.check(folder, cards.CHECKPOINTS)
    return packing.unpack(folder / cards.CHECKPOINTS, step)


def tokens_per_step(folder: Path) -> int:
    """Training tokens of one step of the model in a folder."""
    from zoo import cards

    return cards.read(folder).recipe.tokens_per_step


class _Catalogue:
    """What the entry point `reprise.models` names."""

    def names(self) -> tuple[str, ...]:
        return NAMES

    def folder(self, name: str) -> Path:
        return folder(name)

    def train(
        self, name: str, out: Path, device: str, threads: int, progress: Callable[[int, int, float], None]
    ) -> Path:
        import torch

        from zoo import in_context_training, ioi_training, people_training, stories_training
        from zoo.in_context_recipes import IN_CONTEXT_RECIPES
        from zoo.ioi_recipes import IOI_RECIPES
        from zoo.people_recipes import PEOPLE_RECIPES
        from zoo.pretraining import pretrain
        from zoo.recipes import RECIPES
        from zoo.stories_recipes import STORIES_RECIPES

        torch.set_num_threads(threads)
        if name in IN_CONTEXT_RECIPES:
            return in_context_training.train(IN_CONTEXT_RECIPES[name], out, device=device, progress=progress)
        if name in STORIES_RECIPES:
            return stories_training.train(STORIES_RECIPES[name], out, device=device, progress=progress)
        if name in PEOPLE_RECIPES:
            return people_training.train(PEOPLE_RECIPES[name], out, device=device, progress=progress)
        if name in IOI_RECIPES:
            return ioi_training.train(IOI_RECIPES[name], out, device=device, progress=progress)
        return pretrain(RECIPES[name], out, device=device, progress=progress)


CATALOGUE = _Catalogue()

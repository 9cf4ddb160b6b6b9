"""Results that are committed because they take too long to compute at every run: those of stages that say `minutes`.

They lie in `replications/<paper>/kept/<tier>/<stage>/<unit>.safetensors`, the very files that a run stored. A run on
the tier's own models, data and seed takes them from there; `reprise accept` puts what a run has computed in their
place. The key in the file is a hash of the code that computed it, so a run can tell that the code has changed since.
"""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import TYPE_CHECKING

from reprise import backends, store
from reprise.experiment import Experiment
from reprise.store import Stored
from reprise.turns import Turn, of_stage

if TYPE_CHECKING:
    from reprise.run import Request


def folder_of(root: Path, paper: str, tier: str) -> Path:
    return root / "replications" / paper / "kept" / tier


def take(request: Request, turn: Turn) -> Stored | None:
    """The kept result of a turn, copied among the results of the run; None where there is none that may be taken.

    A damaged file counts as none, and is then computed again.
    """
    path = _path(request, turn)
    stored = None if path is None else store.read(path)
    if path is not None and stored is not None:
        with store.atomic(turn.path(request.folder())) as temporary:
            shutil.copyfile(path, temporary)
    return stored


def damaged(request: Request, turn: Turn) -> list[Path]:
    """The files that would have given the result of a turn, were they whole: the run's own, and the kept one."""
    files = (turn.path(request.folder()), _path(request, turn))
    return [path for path in files if path is not None and path.exists() and store.read(path) is None]


def _path(request: Request, turn: Turn) -> Path | None:
    """Where the kept result lies that a run may take; None where it may take none."""
    asked = (request.fresh, request.no_kept, request.model_names, request.data, request.seed)
    ours = not any(asked) and request.backend == backends.ENGINE
    if not ours or turn.stage.minutes_of(request.tier) is None:
        return None
    return turn.path(folder_of(request.root, request.paper.slug, request.tier))


def state(stored: Stored, key: str, minutes: float | None) -> str:
    """How a run speaks of a kept result."""
    about = f"--fresh computes it in about {minutes:g} min"
    return f"kept; {about}" if stored.key == key else f"kept, and its code or its inputs have changed since; {about}"


def accept(root: Path, paper: str, tier: str, experiment: Experiment, results: Path) -> int:
    """Make the results of kept stages in the folder `results` the committed ones; returns how many changed.

    Units that this run has no result of keep theirs; files of units that are no more are removed.
    """
    folder = folder_of(root, paper, tier)
    changed = 0
    known = set()
    for stage in experiment.stages:
        if stage.minutes_of(tier) is None or stage.each_model:
            continue
        for turn in of_stage(stage, (), tier):
            source, target = turn.path(results), turn.path(folder)
            known.add(target)
            stored = store.read(source)
            if stored is None:
                continue
            before = store.read(target)
            if before is None or (before.sha256, before.key) != (stored.sha256, stored.key):
                with store.atomic(target) as temporary:
                    shutil.copyfile(source, temporary)
                changed += 1
    for path in folder.glob("*/*.safetensors"):
        if path not in known:
            path.unlink()
    return changed

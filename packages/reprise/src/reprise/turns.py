"""One execution of a stage: what it is called, what its result depends on, and carrying it out.

A stage runs once, once for each model, or once for each unit of a sweep; each of these is a turn with a result file of
its own. The key of a turn is a hash of everything that its result depends on. What a turn leaves while it runs lies in
a scratch folder that is named after the key, so that a turn goes on from what the same turn left, and from nothing
else.
"""

from __future__ import annotations

import fnmatch
import hashlib
import shutil
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import msgspec

from reprise import backends, models, provenance, store
from reprise.errors import UserError
from reprise.experiment import Experiment, Job, Results, Stage
from reprise.models import ModelReference
from reprise.store import Provenance, Result, Stored

if TYPE_CHECKING:
    from reprise.run import Request

ByStage = Mapping[str, Mapping[str, Stored]]


@dataclass(frozen=True)
class Turn:
    """A stage, and the model or the unit that it runs for."""

    stage: Stage
    reference: ModelReference | None = None
    unit: str | None = None

    @property
    def name(self) -> str:
        """The name of the model or the unit; "" for a stage that runs once."""
        return self.reference.name if self.reference else self.unit or ""

    @property
    def label(self) -> str:
        return f"{self.stage.name} [{self.name}]" if self.name else self.stage.name

    def path(self, folder: Path) -> Path:
        """Where its result lies below a folder of results."""
        slug = self.reference.slug if self.reference else self.unit or "result"
        return folder / self.stage.name / f"{slug}.safetensors"

    def scratch(self, folder: Path, key: str) -> Path:
        path = self.path(folder)
        return path.with_name(f".{path.stem}-{key[:16]}")


def of_stage(stage: Stage, references: tuple[ModelReference, ...], tier: str) -> tuple[Turn, ...]:
    """The turns of a stage, in their order."""
    if stage.units is not None:
        return tuple(Turn(stage, unit=unit) for unit in stage.units_of(tier))
    return tuple(Turn(stage, reference) for reference in references) if stage.each_model else (Turn(stage),)


def chosen(turn: Turn, only: tuple[str, ...]) -> bool:
    """Whether a run may compute this turn: any but the units that `--only` leaves out."""
    return not only or turn.unit is None or any(fnmatch.fnmatchcase(turn.unit, pattern) for pattern in only)


def check_patterns(experiment: Experiment, tier: str, only: tuple[str, ...], paper: str) -> None:
    """Refuse a pattern of `--only` that names nothing.

    Raises:
        UserError: naming the pattern and some units that there are.
    """
    units = [unit for stage in experiment.stages for unit in stage.units_of(tier)]
    for pattern in only:
        if not fnmatch.filter(units, pattern):
            some = f"units are, for example: {', '.join(units[:3])}" if units else "no stage of it has units"
            raise UserError(f"{paper}: --only {pattern!r} names no unit of tier {tier!r}; {some}")


def needed_by(turn: Turn, by_stage: ByStage) -> dict[str, dict[str, Stored]]:
    """What a turn gets of earlier stages: all, or what belongs to its own model or unit and to no one's."""
    return {
        name: {of: stored for of, stored in by_stage[name].items() if not turn.name or of in ("", turn.name)}
        for name in turn.stage.needs
    }


def key_of(request: Request, turn: Turn, references: tuple[ModelReference, ...], needed: ByStage, code: str) -> str:
    """A hash of all that the result of a turn depends on; `code` is that of its stage (`reprise.fingerprint`)."""
    seen = (turn.reference,) if turn.reference else references
    parts = {
        "stage": turn.stage.name,
        "code": code,
        "tier": request.tier,
        "seed": request.seed,
        "device": request.device,
        "dtype": request.dtype,
        "models": [[model.name, model.fingerprint] for model in seen],
        "needs": {name: {model: stored.sha256 for model, stored in of.items()} for name, of in needed.items()},
        "data": {name: _data_sha256(request.root / name, turn.stage) for name in turn.stage.data},
    }
    if turn.unit is not None:
        parts["unit"] = turn.unit
    if request.data:
        parts["data_folder"] = request.data.sha256
    if request.backend != backends.ENGINE:
        parts["backend"] = request.backend
    return hashlib.sha256(msgspec.json.encode(parts, order="sorted")).hexdigest()


def execute(
    request: Request,
    turn: Turn,
    references: tuple[ModelReference, ...],
    needed: ByStage,
    key: str,
    within: Callable[[int, int], None] = lambda done, total: None,
) -> Stored:
    """Run a turn and store its result; its scratch folder, and those of older code, go then.

    Raises:
        UserError: what the stage raises, or a folder that cannot be written.
    """
    folder, here = request.folder(), backends.is_here(request.backend)
    _make(turn.path(folder).parent)  # so that a stage makes its scratch folder by a plain mkdir
    started = time.monotonic()
    result = turn.stage.function(
        Job(
            root=request.root,
            tier=request.tier,
            seed=request.seed,
            device=request.device,
            dtype=request.dtype,
            models=references,
            inputs=results_of(request.tier, request.seed, needed),
            one_model=turn.reference,
            one_unit=turn.unit,
            scratch=turn.scratch(folder, key),
            data=request.data.path if request.data else None,
            backend=request.backend,
            progress=within,
        )
    )
    if turn.reference:
        result = Result(result.arrays, {**result.facts, "model": turn.reference.name})
    if turn.unit is not None:
        result = Result(result.arrays, {**result.facts, "unit": turn.unit})
    stored = store.write(
        turn.path(folder),
        result,
        key,
        Provenance(
            commit=provenance.commit(request.root),
            packages=provenance.versions(),
            models={model.name: model.fingerprint for model in ((turn.reference,) if turn.reference else references)},
            seed=request.seed,
            device=request.device if here else backends.AS_SERVED,
            dtype=request.dtype if here else backends.AS_SERVED,
            backend=request.backend,
            seconds=round(time.monotonic() - started, 3),
        ),
    )
    for scratch in turn.path(folder).parent.glob(f".{turn.path(folder).stem}-{'[0-9a-f]' * 16}"):
        shutil.rmtree(scratch, ignore_errors=True)
    return stored


def _make(folder: Path) -> None:
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise UserError(f"{folder}: cannot be written ({error.strerror}); choose another folder with --out") from error


def results_of(tier: str, seed: int, by_stage: ByStage) -> Results:
    return Results(
        tier=tier,
        seed=seed,
        by_stage={name: {of: stored.result for of, stored in each.items()} for name, each in by_stage.items()},
    )


def _data_sha256(path: Path, stage: Stage) -> str:
    try:
        return models.file_sha256(path)
    except OSError as error:
        raise UserError(
            f"{path}: cannot be read ({error.strerror}); stage {stage.name!r} names it as data, restore it"
        ) from error

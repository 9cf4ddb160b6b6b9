"""Running a paper: every stage that is not stored yet, in order, each result stored as soon as it is complete.

Layout of the output folder: `<out>/results/<paper>/<tier>/<stage>/<model>.safetensors`, and beside the stages
claims.json, the verdicts. Models of a run that was asked for with `--model` get a folder of their own, so that they
never mix with the results of the tier's own models; so do results on a folder given with `--data`.
"""

from __future__ import annotations

import hashlib
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import msgspec
from filelock import FileLock

from reprise import models, provenance, store
from reprise.data_folders import DataFolder
from reprise.errors import UserError
from reprise.experiment import Experiment, Job, Results, Stage
from reprise.fingerprint import code_sha256
from reprise.models import ModelReference
from reprise.paper import Paper
from reprise.store import Provenance, Result, Stored


@dataclass(frozen=True)
class Request:
    """What to run: a tier of a paper, on its own models and data or on others, into a folder."""

    root: Path
    paper: Paper
    tier: str
    out: Path
    seed: int = 0
    model_names: tuple[str, ...] = ()
    data: DataFolder | None = None
    device: str = "cpu"
    dtype: str = "float32"
    fresh: bool = False

    def folder(self) -> Path:
        """Where the results go."""
        parts = [self.tier]
        if self.model_names:
            parts.append("+".join(models.resolve(name).slug for name in self.model_names))
        if self.data:
            parts.append(f"data-{self.data.slug}")
        if self.seed:
            parts.append(f"seed{self.seed}")
        return self.out / "results" / self.paper.slug / "-".join(parts)

    def references(self) -> tuple[ModelReference, ...]:
        """The models of the run.

        Raises:
            UserError: if there are none, or one cannot be found.
        """
        names = self.model_names or self.paper.tier(self.tier).models
        if not names:
            raise UserError(
                f"{self.paper.slug}: tier {self.tier!r} names no models; give one with --model NAME_OR_PATH_OR_ID"
            )
        references = tuple(models.resolve(name) for name in names)
        slugs = [reference.slug for reference in references]
        if twice := {slug for slug in slugs if slugs.count(slug) > 1}:
            raise UserError(f"two models are named {min(twice)!r}; results are kept by name, so rename one")
        return references


@dataclass(frozen=True)
class Progress:
    """What a run tells while it goes on; both default to silence."""

    stage: Callable[[str, str], None] = lambda label, state: None
    within: Callable[[int, int], None] = lambda done, total: None


def run(request: Request, experiment: Experiment, progress: Progress | None = None) -> Results:
    """Run every stage whose stored result is missing, damaged or out of date; returns all results.

    Two runs into one folder take turns (a file lock), and the second finds the stages of the first.

    Raises:
        UserError: a model cannot be found, data for an experiment that takes none, or what a stage raises.
    """
    _check_data(request, experiment)
    progress = progress or Progress()
    references = request.references()
    folder = request.folder()
    prepare(folder)
    with FileLock(folder / ".lock"):
        by_stage: dict[str, dict[str, Stored]] = {}
        for stage in experiment.stages:
            by_stage[stage.name] = {}
            for reference in references if stage.each_model else (None,):
                stored = _stored_or_run(request, stage, reference, references, by_stage, folder, progress)
                by_stage[stage.name][reference.name if reference else ""] = stored
            _tidy(folder, stage, references)
    return _results(request, by_stage)


def _check_data(request: Request, experiment: Experiment) -> None:
    """Refuse a data folder that no stage would read.

    Raises:
        UserError: naming the paper.
    """
    if request.data and not experiment.takes_data:
        raise UserError(
            f"{request.paper.slug}: takes no data folder; run it without --data (an experiment that reads Job.data "
            f"says so by TAKES_DATA = True)"
        )


def _tidy(folder: Path, stage: Stage, references: tuple[ModelReference, ...]) -> None:
    """Remove what killed runs left, and the results of models that the run no longer names."""
    kept = {result_path(folder, stage, reference) for reference in (references if stage.each_model else (None,))}
    for path in (folder / stage.name).iterdir():
        if path not in kept and path.is_file():
            path.unlink()


def stored_results(request: Request, experiment: Experiment) -> Results:
    """What is stored, without running anything or looking at models.

    Raises:
        UserError: if a stage has no readable result.
    """
    folder = request.folder()
    by_stage: dict[str, dict[str, Stored]] = {}
    for stage in experiment.stages:
        by_stage[stage.name] = {}
        for path in sorted((folder / stage.name).glob("*.safetensors")):
            stored = store.read(path)
            if stored is None:
                raise UserError(f"{path}: damaged; run `reprise run {request.paper.slug} --tier {request.tier}` again")
            by_stage[stage.name][str(stored.result.facts.get("model", ""))] = stored
        if not by_stage[stage.name]:
            command = f"reprise run {request.paper.slug} --tier {request.tier}"
            raise UserError(f"{folder}: no result of stage {stage.name!r}; run `{command}`")
    return _results(request, by_stage)


def result_path(folder: Path, stage: Stage, reference: ModelReference | None) -> Path:
    return folder / stage.name / f"{reference.slug if reference else 'result'}.safetensors"


def _stored_or_run(
    request: Request,
    stage: Stage,
    reference: ModelReference | None,
    references: tuple[ModelReference, ...],
    by_stage: dict[str, dict[str, Stored]],
    folder: Path,
    progress: Progress,
) -> Stored:
    label = f"{stage.name} [{reference.name}]" if reference else stage.name
    seen = (reference,) if reference else references
    needed = {name: _for_model(by_stage[name], reference) for name in stage.needs}
    key = _key(request, stage, seen, needed)
    path = result_path(folder, stage, reference)
    stored = None if request.fresh else store.read(path)
    if stored is not None and stored.key == key:
        progress.stage(label, "stored")
        return stored
    progress.stage(label, "running")
    started = time.monotonic()
    result = stage.function(
        Job(
            root=request.root,
            tier=request.tier,
            seed=request.seed,
            device=request.device,
            dtype=request.dtype,
            models=references,
            inputs=_results(request, needed),
            one_model=reference,
            data=request.data.path if request.data else None,
            progress=progress.within,
        )
    )
    if reference:
        result = Result(result.arrays, {**result.facts, "model": reference.name})
    stored = store.write(
        path,
        result,
        key,
        Provenance(
            commit=provenance.commit(request.root),
            packages=provenance.versions(),
            models={model.name: model.fingerprint for model in seen},
            seed=request.seed,
            device=request.device,
            dtype=request.dtype,
            seconds=round(time.monotonic() - started, 3),
        ),
    )
    progress.stage(label, "done")
    return stored


def _for_model(of: dict[str, Stored], reference: ModelReference | None) -> dict[str, Stored]:
    """What a stage gets of an earlier one: all models, or its own model's result and that of a stage that runs once."""
    return {model: stored for model, stored in of.items() if reference is None or model in ("", reference.name)}


def _key(request: Request, stage: Stage, seen: tuple[ModelReference, ...], needed: dict[str, dict[str, Stored]]) -> str:
    """A hash of all that the result of a stage depends on."""
    parts = {
        "stage": stage.name,
        "code": code_sha256(stage.function),
        "tier": request.tier,
        "seed": request.seed,
        "device": request.device,
        "dtype": request.dtype,
        "models": [[model.name, model.fingerprint] for model in seen],
        "needs": {name: {model: stored.sha256 for model, stored in of.items()} for name, of in needed.items()},
        "data": {name: _data_sha256(request.root / name, stage) for name in stage.data},
    }
    if request.data:
        parts["data_folder"] = request.data.sha256
    return hashlib.sha256(msgspec.json.encode(parts, order="sorted")).hexdigest()


def _data_sha256(path: Path, stage: Stage) -> str:
    try:
        return models.file_sha256(path)
    except OSError as error:
        raise UserError(
            f"{path}: cannot be read ({error.strerror}); stage {stage.name!r} names it as data, restore it"
        ) from error


def _results(request: Request, by_stage: dict[str, dict[str, Stored]]) -> Results:
    return Results(
        tier=request.tier,
        seed=request.seed,
        by_stage={name: {model: stored.result for model, stored in of.items()} for name, of in by_stage.items()},
    )


def prepare(folder: Path) -> None:
    """Create an output folder.

    Raises:
        UserError: if it cannot be written.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
        (folder / ".lock").touch()
    except OSError as error:
        raise UserError(f"{folder}: cannot be written ({error.strerror}); choose another folder with --out") from error

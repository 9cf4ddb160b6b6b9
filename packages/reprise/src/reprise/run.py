"""Running a paper: every stage that is not stored yet, in order, each result stored as soon as it is complete.

Layout of the output folder: `<out>/results/<paper>/<tier>/<stage>/<model or unit>.safetensors`, and beside the stages
claims.json, the verdicts. Models of a run that was asked for with `--model` get a folder of their own, so that they
never mix with the results of the tier's own models; so do results on a folder given with `--data`, of another seed, and
of another backend.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from filelock import FileLock

from reprise import backends, kept, models, store, turns, workers
from reprise.data_folders import DataFolder
from reprise.errors import UserError
from reprise.experiment import Experiment, Results, Stage
from reprise.fingerprint import code_sha256
from reprise.models import ModelReference
from reprise.paper import Paper
from reprise.store import Stored
from reprise.workers import Errand, Execute


@dataclass(frozen=True)
class Request:
    """What to run: a tier of a paper, on its own models and data or on others, into a folder.

    `fresh` computes everything anew, `no_kept` what is kept but not stored in the folder. `only` are patterns of the
    units to compute, in `jobs` processes.
    """

    root: Path
    paper: Paper
    tier: str
    out: Path
    seed: int = 0
    model_names: tuple[str, ...] = ()
    data: DataFolder | None = None
    backend: str = backends.ENGINE
    device: str = "cpu"
    dtype: str = "float32"
    fresh: bool = False
    no_kept: bool = False
    only: tuple[str, ...] = ()
    jobs: int = 1

    def folder(self) -> Path:
        """Where the results go."""
        parts = [self.tier]
        if self.model_names:
            parts.append("+".join(models.resolve(name).slug for name in self.model_names))
        if self.data:
            parts.append(f"data-{self.data.slug}")
        if self.backend != backends.ENGINE:
            parts.append(f"backend-{backends.slug(self.backend)}")
        if self.seed:
            parts.append(f"seed{self.seed}")
        return self.out / "results" / self.paper.slug / "-".join(parts)

    def references(self) -> tuple[ModelReference, ...]:
        """The models of the run; none for a tier that trains its networks itself.

        Raises:
            UserError: if there are none, or one cannot be found.
        """
        tier = self.paper.tier(self.tier)
        if tier.trains:
            if self.model_names:
                raise UserError(
                    f"{self.paper.slug}: tier {self.tier!r} trains its networks itself; run it without --model"
                )
            return ()
        names = self.model_names or tier.models
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


def run(
    request: Request, experiment: Experiment, progress: Progress | None = None, execute: Execute = workers.execute
) -> Results:
    """Run every stage whose stored result is missing, damaged or out of date; returns all results.

    Two runs into one folder take turns (a file lock), and the second finds the stages of the first. Units of a sweep
    that `request.only` leaves out are not computed; their results are there if they are stored or kept. `execute`
    carries out the turns of a stage: here, in processes, or on a cluster (`reprise.on_ray`).

    Raises:
        UserError: a model cannot be found, data for an experiment that takes none, a backend that would not work, a
            pattern that names no unit, or what a stage raises.
    """
    _check_data(request, experiment)
    backends.check(request, experiment)
    turns.check_patterns(experiment, request.tier, request.only, request.paper.slug)
    progress = progress or Progress()
    references = request.references()
    folder = request.folder()
    prepare(folder)
    with lock(folder):
        _remove_partial(folder)
        by_stage: dict[str, dict[str, Stored]] = {}
        for stage in experiment.stages:
            by_stage[stage.name] = _stage(request, stage, references, by_stage, progress, execute)
            _tidy(folder, stage, references, request.tier)
    return turns.results_of(request.tier, request.seed, by_stage)


def _stage(
    request: Request,
    stage: Stage,
    references: tuple[ModelReference, ...],
    by_stage: dict[str, dict[str, Stored]],
    progress: Progress,
    execute: Execute,
) -> dict[str, Stored]:
    """The results of a stage, by model or unit: what is stored, what is kept, and the rest computed."""
    found: dict[str, Stored] = {}
    missing: list[Errand] = []
    all_turns = turns.of_stage(stage, references, request.tier)
    code = code_sha256(stage.function)  # once for all turns: following all that a function reaches takes a while
    for turn in all_turns:
        needed = turns.needed_by(turn, by_stage)
        key = turns.key_of(request, turn, references, needed, code)
        stored = None if request.fresh else store.read(turn.path(request.folder()))
        if stored is not None and stored.key == key:
            progress.stage(turn.label, "stored")
            found[turn.name] = stored
        elif (taken := kept.take(request, turn)) is not None:
            progress.stage(turn.label, kept.state(taken, key, stage.minutes_of(request.tier)))
            found[turn.name] = taken
        elif turns.chosen(turn, request.only):
            for path in () if request.fresh else kept.damaged(request, turn):
                progress.stage(turn.label, f"{path} is damaged; computed again")
            missing.append(Errand(turn, references, needed, key))
    found |= execute(request, missing, progress)
    return {turn.name: found[turn.name] for turn in all_turns if turn.name in found}


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


def _tidy(folder: Path, stage: Stage, references: tuple[ModelReference, ...], tier: str) -> None:
    """Remove what killed runs left, and the results of models and units that are no more."""
    known = {turn.path(folder) for turn in turns.of_stage(stage, references, tier)}
    for path in (folder / stage.name).glob("*"):
        if path not in known and path.is_file():
            path.unlink()


def lock(folder: Path) -> FileLock:
    """The lock on a folder of results, for a `with` statement; who has it may take it again."""
    return FileLock(folder / ".lock", is_singleton=True)


def _remove_partial(folder: Path) -> None:
    """Remove what runs left that were killed while they wrote claims.json."""
    for path in folder.glob(".*.partial"):
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
            facts = stored.result.facts
            by_stage[stage.name][str(facts.get("unit", facts.get("model", "")))] = stored
        if not by_stage[stage.name] and stage.units is None:
            command = f"reprise run {request.paper.slug} --tier {request.tier}"
            raise UserError(f"{folder}: no result of stage {stage.name!r}; run `{command}`")
    return turns.results_of(request.tier, request.seed, by_stage)


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

"""An experiment: named stages, the measurements that judge its claims, and the figures.

A replication's experiment.py defines

    STAGES: tuple[Stage, ...]          in the order in which they run
    CLAIMS: dict[str, Measure]         claim id -> what it measures, from stored results alone; None: not measured
    TAKES_DATA = True                  if stages read a folder that is given with --data (`Job.data`); absent otherwise
    CHECK_BACKEND = check              if stages compute on `Job.backend` (see `reprise.backends`); absent otherwise

and its figures.py defines `FIGURES: dict[str, Draw]`, functions from stored results to a plot, an interactive page
(`reprise.pages`), or None where these results do not allow it. A stage is a plain function from a job to a result.
"""

from __future__ import annotations

import importlib.util
import re
import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING, Any

from reprise.backends import ENGINE
from reprise.errors import UserError
from reprise.measurement import Measurement
from reprise.models import ModelReference
from reprise.pages import Page
from reprise.store import Result

if TYPE_CHECKING:
    from matplotlib.figure import Figure


UNIT = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]*")


@dataclass(frozen=True)
class Results:
    """Stored results by stage, and by model or unit for stages that run once for each.

    `results.one("stage")` is the result of a stage that runs once; `results.of("stage")` maps the names of models or
    units to results. Units that were never run are absent.
    """

    tier: str
    seed: int
    by_stage: Mapping[str, Mapping[str, Result]]

    def one(self, stage: str) -> Result:
        return self.of(stage)[""]

    def of(self, stage: str) -> Mapping[str, Result]:
        """Raises KeyError naming the stages that are there."""
        if stage not in self.by_stage:
            raise KeyError(f"no stage {stage!r}; stored are: {', '.join(self.by_stage)}")
        return self.by_stage[stage]


@dataclass(frozen=True)
class Job:
    """One execution of a stage: what it may depend on, and nothing else.

    `model` is the model to work on for stages that run once a model. `inputs` holds the stages named in `needs`, for
    that model alone in a stage that runs once a model.
    `unit` is the part of a sweep to run, for stages that have units. `scratch` is a folder for what lets a killed
    execution go on (a checkpoint); it exists once something is written there, belongs to this execution alone, and goes
    when the result is stored. Write it whole (`reprise.store.atomic`): a kill may come while it is written.
    `data` is the folder given with `--data`, absolute, or None for the data that the project ships; the content of all
    files below it counts as input of every stage. `backend` is the one given with `--backend`.
    `progress(done, total)` moves the progress bar.
    """

    root: Path
    tier: str
    seed: int
    device: str
    dtype: str
    models: tuple[ModelReference, ...]
    inputs: Results
    one_model: ModelReference | None = None
    one_unit: str | None = None
    scratch: Path = field(default_factory=lambda: Path("scratch"))
    data: Path | None = None
    backend: str = ENGINE
    progress: Callable[[int, int], None] = field(default=lambda done, total: None)

    @property
    def model(self) -> ModelReference:
        if self.one_model is None:
            raise RuntimeError("this stage runs once, not once a model: declare it with each_model=True")
        return self.one_model

    @property
    def unit(self) -> str:
        if self.one_unit is None:
            raise RuntimeError("this stage has no units: declare them with units=(...)")
        return self.one_unit


@dataclass(frozen=True)
class Stage:
    """A named step. It runs again when its code, its inputs, the seed, or a model's hash changed, and not otherwise.

    Args:
        each_model: run once for every model of the run, with a result each.
        units: run once for each of these names (the runs of a sweep), with a result each; one tuple for all tiers, or
            one for each. `reprise run --only PATTERN` runs some of them.
        minutes: about how long one execution takes on one core, for all tiers or for each. Such a stage is *kept*: its
            results are committed with the replication, and a run takes them from there unless it is told to compute
            (`--fresh`, or `--no-kept` which goes on from what an interrupted run has stored).
        needs: names of earlier stages whose results the function reads.
        data: files below the project's root that the function reads; their content counts as input.
    """

    name: str
    function: Callable[[Job], Result]
    each_model: bool = False
    needs: tuple[str, ...] = ()
    data: tuple[str, ...] = ()
    units: tuple[str, ...] | Mapping[str, tuple[str, ...]] | None = None
    minutes: float | Mapping[str, float] | None = None

    def __post_init__(self) -> None:
        if self.units is None:
            return
        if self.each_model:
            raise ValueError(f"stage {self.name!r}: expected either units or each_model; name a stage for each")
        for names in self.units.values() if isinstance(self.units, Mapping) else (self.units,):
            for name in names:
                if not UNIT.fullmatch(name) or names.count(name) > 1:
                    raise ValueError(
                        f"stage {self.name!r}: unit {name!r}: expected names of letters, digits, '-', '_' and '.', "
                        "each once; they are names of files"
                    )

    def units_of(self, tier: str) -> tuple[str, ...]:
        """The names of the units of a tier; none for a stage without units."""
        if isinstance(self.units, Mapping):
            return self.units.get(tier, ())
        return self.units or ()

    def minutes_of(self, tier: str) -> float | None:
        """About how long one execution takes, or None for a stage that is computed by every run."""
        return self.minutes.get(tier) if isinstance(self.minutes, Mapping) else self.minutes


Measure = Callable[[Results], Measurement | None]
Draw = Callable[[Results], "Figure | Page | None"]
CheckBackend = Callable[[str, str], None]


@dataclass(frozen=True)
class Experiment:
    """What `load_experiment` finds; `takes_data` says whether stages read `Job.data`.

    `check_backend` refuses a backend and a model's location that cannot work; None where stages do not read
    `Job.backend`.
    """

    stages: tuple[Stage, ...]
    claims: Mapping[str, Measure]
    takes_data: bool = False
    check_backend: CheckBackend | None = None


def load_experiment(folder: Path) -> Experiment:
    """The experiment of a replication's folder.

    Raises:
        UserError: if experiment.py is missing, fails to import, or lacks STAGES or CLAIMS.
    """
    module = _module(folder, "experiment")
    stages = tuple(_attribute(module, "STAGES"))
    seen: set[str] = set()
    for stage in stages:
        if missing := set(stage.needs) - seen:
            raise UserError(
                f"{folder.name}: stage {stage.name!r} needs {missing.pop()!r}, which no earlier stage gives"
            )
        seen.add(stage.name)
    return Experiment(
        stages,
        dict(_attribute(module, "CLAIMS")),
        takes_data=bool(getattr(module, "TAKES_DATA", False)),
        check_backend=getattr(module, "CHECK_BACKEND", None),
    )


def load_figures(folder: Path) -> Mapping[str, Draw]:
    """The figures of a replication's folder; raises UserError as `load_experiment` does."""
    return dict(_attribute(_module(folder, "figures"), "FIGURES"))


def _module(folder: Path, name: str) -> ModuleType:
    path = folder / f"{name}.py"
    if not path.exists():
        raise UserError(f"{path}: no such file; every replication has one (`reprise new` writes it)")
    qualified = f"replications.{folder.name}.{name}"
    root = str(folder.parent.parent)
    if root not in sys.path:
        sys.path.insert(0, root)
    spec = importlib.util.spec_from_file_location(qualified, path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[qualified] = module
    try:
        spec.loader.exec_module(module)
    except UserError:
        raise
    except Exception as error:
        del sys.modules[qualified]
        kind = type(error).__name__
        raise UserError(f"{path}: cannot be imported ({kind}: {error}); `python {path}` shows where") from error
    return module


def _attribute(module: ModuleType, name: str) -> Any:
    try:
        return getattr(module, name)
    except AttributeError as error:
        raise UserError(
            f"{module.__file__}: defines no {name}; see `reprise.experiment` for what it should hold"
        ) from error

"""From what was asked for on the command line to runs that are checked, and from these to judged claims."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from reprise import backends, claims, workspace
from reprise.claims import ClaimResult
from reprise.cli.output import progress_of
from reprise.errors import UserError
from reprise.paper import Paper

if TYPE_CHECKING:
    from reprise.experiment import Experiment
    from reprise.run import Progress, Request
    from reprise.workers import Execute

DTYPES = ("float32", "bfloat16", "float16")


@dataclass(frozen=True, kw_only=True)
class Asked:
    """Runs of one paper, one for each seed; the options are those of `reprise.run.Request`."""

    root: Path
    paper: Paper
    tier: str
    out: Path
    seeds: tuple[int, ...]
    device: str
    dtype: str
    model_names: tuple[str, ...] = ()
    data: Path | None = None
    backend: str = backends.ENGINE
    fresh: bool = False
    no_kept: bool = False
    only: tuple[str, ...] = ()
    jobs: int = 1


def prepared(asked: Asked) -> list[tuple[Request, Experiment]]:
    """What to run, checked as far as it can be before anything is computed.

    Raises:
        UserError: a tier, number format, model, data folder or claim that there is not; a backend that would not work.
    """
    from reprise import data_folders
    from reprise.experiment import load_experiment
    from reprise.run import Request

    asked.paper.tier(asked.tier)
    if asked.dtype not in DTYPES:
        raise UserError(f"no dtype {asked.dtype!r}; expected float32, bfloat16 or float16")
    data = None if asked.data is None else data_folders.resolve(asked.data)
    requests = [
        Request(
            root=asked.root,
            paper=asked.paper,
            tier=asked.tier,
            out=asked.out,
            seed=seed,
            model_names=asked.model_names,
            data=data,
            backend=asked.backend,
            device=asked.device,
            dtype=asked.dtype,
            fresh=asked.fresh,
            no_kept=asked.no_kept,
            only=asked.only,
            jobs=asked.jobs,
        )
        for seed in asked.seeds
    ]
    requests[0].references()
    experiment = load_experiment(workspace.folder_of(asked.root, asked.paper))
    claims.check(asked.paper, experiment.claims, asked.tier)
    backends.check(requests[0], experiment)
    return [(request, experiment) for request in requests]


def title_of(request: Request) -> str:
    """What a run is called in what is told of it."""
    return f"{request.paper.slug} (seed {request.seed})" if request.seed else request.paper.slug


def judged(
    request: Request,
    experiment: Experiment,
    execute: Execute | None = None,
    progress_for: Callable[[str], AbstractContextManager[Progress]] = progress_of,
) -> tuple[ClaimResult, ...]:
    """Run a paper, here unless `execute` does otherwise, and judge its claims."""
    from reprise import workers
    from reprise.run import lock, prepare, run

    prepare(request.folder())
    with lock(request.folder()):  # so that verdicts are those of the results beside them
        with progress_for(title_of(request)) as progress:
            results = run(request, experiment, progress, execute or workers.execute)
        rows = claims.evaluate(request.paper, experiment.claims, results)
        claims.save(rows, request.folder())
    return rows

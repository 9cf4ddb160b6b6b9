"""reprise run, verify, train, bench."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from reprise import claims, workspace
from reprise.claims import ClaimResult
from reprise.cli import app
from reprise.cli.clusters import on_ray, ray_address
from reprise.cli.options import (
    All,
    Data,
    Device,
    Dtype,
    Fresh,
    Jobs,
    Json,
    Models,
    NoKept,
    Only,
    Out,
    Seed,
    Slugs,
    Tier,
    check_tier,
    choose,
)
from reprise.cli.output import print_claims, print_json, progress_of
from reprise.errors import UserError
from reprise.paper import Paper

if TYPE_CHECKING:
    from reprise.experiment import Experiment
    from reprise.run import Progress, Request
    from reprise.workers import Execute


@app.command()
def run(
    papers: Slugs = None,
    every: All = False,
    tier: Tier = "tiny",
    model: Models = None,
    data: Data = None,
    seed: Seed = 0,
    fresh: Fresh = False,
    no_kept: NoKept = False,
    only: Only = None,
    jobs: Jobs = 1,
    executor: Annotated[
        str, typer.Option("--executor", metavar="local|ray[://HOST:PORT]", help="Where stages are computed.")
    ] = "local",
    out: Out = workspace.DEFAULT_OUT,
    device: Device = "cpu",
    dtype: Dtype = "float32",
    as_json: Json = False,
) -> None:
    """Run papers, resuming what was interrupted, and judge their claims."""
    root = workspace.find_root()
    chosen = choose(root, papers, every)
    check_tier(tier)
    address = ray_address(executor, jobs)
    sweep = (no_kept, tuple(only or ()), jobs)
    asked = [
        partial(_prepared, root, paper, tier, model, data, seed, fresh, out, device, dtype, *sweep) for paper in chosen
    ]
    rows = [row for one in asked for row in _judged(*one())] if address is None else on_ray(address, asked, _judged)
    print_json(rows) if as_json else print_claims(rows)


@app.command()
def verify(
    papers: Slugs = None,
    every: All = False,
    tier: Tier = "tiny",
    data: Data = None,
    seed: Seed = 0,
    fresh: Fresh = False,
    out: Out = workspace.DEFAULT_OUT,
    device: Device = "cpu",
    dtype: Dtype = "float32",
    as_json: Json = False,
) -> None:
    """Run papers and compare with the committed verdicts; exit 1 when a supported claim no longer is."""
    root = workspace.find_root()
    chosen = choose(root, papers, every)
    check_tier(tier)
    rows = [
        row
        for paper in chosen
        for row in _judged(*_prepared(root, paper, tier, None, data, seed, fresh, out, device, dtype))
    ]
    before = [row for paper in chosen for row in claims.committed(root, paper, tier)]
    lost = claims.lost(rows, before)
    print_json(rows) if as_json else print_claims(rows)
    for row in lost:
        typer.echo(f"lost: {row.paper} {row.claim} ({row.tier}): was supported, now {row.verdict}", err=True)
    if lost:
        raise typer.Exit(1)


@app.command()
def train(
    name: Annotated[str, typer.Argument(metavar="NAME", help="A model of the zoo.")],
    out: Annotated[Path | None, typer.Option("--out", help="Folder [default: build/models/NAME].")] = None,
    device: Device = "cpu",
    threads: Annotated[int, typer.Option("--threads", min=1, help="CPU threads.")] = 1,
) -> None:
    """Train a shipped model from its recipe, resuming exactly where a killed run stopped."""
    from rich.console import Console
    from rich.progress import (
        BarColumn,
        MofNCompleteColumn,
        Progress,
        TextColumn,
        TimeElapsedColumn,
        TimeRemainingColumn,
    )

    from reprise import models, run

    folder = out or workspace.DEFAULT_OUT / "models" / name
    catalogue = models.find(name)
    run.prepare(folder)
    columns = (TextColumn(f"{name} loss {{task.fields[loss]:.3f}}"), BarColumn(), MofNCompleteColumn())
    with (
        _alone(folder),
        Progress(*columns, TimeElapsedColumn(), TimeRemainingColumn(), console=Console(stderr=True)) as bar,
    ):
        task = bar.add_task(name, total=None, loss=float("nan"))
        written = catalogue.train(
            name,
            folder,
            device,
            threads,
            lambda step, steps, loss: bar.update(task, completed=step, total=steps, loss=loss),
        )
    typer.echo(f"{written}: trained; its card is {written / 'README.md'}")


@app.command()
def bench(
    name: Annotated[str, typer.Argument(metavar="NAME", help="A benchmark of a package.")],
    repeats: Annotated[int, typer.Option("--repeats", min=1, help="Timed runs a row; the median counts.")] = 5,
    as_json: Json = False,
) -> None:
    """Time a package's benchmark: every row in one run, with its ratio to the row that it is compared with."""
    from reprise import benchmarks
    from reprise.cli.output import print_table

    rows = benchmarks.run(name, repeats)
    if as_json:
        print_json(rows)
        return
    print_table(
        name,
        ("name", "seconds", "timed share", "compared with", "ratio", "peak MiB", "of matmul peak"),
        (
            (
                row.name,
                f"{row.seconds:.4f}",
                f"{row.sampled:.3g}",
                row.baseline or "-",
                f"{row.ratio:.2f}",
                f"{row.peak_mib:.1f}",
                "-" if row.share_of_peak is None else f"{row.share_of_peak:.0%}",
            )
            for row in rows
        ),
        numeric=("seconds", "timed share", "ratio", "peak MiB", "of matmul peak"),
    )


@contextmanager
def _alone(folder: Path) -> Iterator[None]:
    """Inside, no other training writes into the folder.

    Raises:
        UserError: one does.
    """
    from filelock import FileLock, Timeout

    try:
        with FileLock(folder / ".lock", timeout=0):
            yield
    except Timeout as error:
        raise UserError(
            f"{folder}: another training writes there; wait for its end or choose another folder with --out"
        ) from error


def _prepared(
    root: Path,
    paper: Paper,
    tier: str,
    model: list[str] | None,
    data: Path | None,
    seed: int,
    fresh: bool,
    out: Path,
    device: str,
    dtype: str,
    no_kept: bool = False,
    only: tuple[str, ...] = (),
    jobs: int = 1,
) -> tuple[Request, Experiment]:
    """What to run, checked as far as it can be before anything is computed."""
    from reprise import data_folders
    from reprise.experiment import load_experiment
    from reprise.run import Request

    paper.tier(tier)
    if dtype not in ("float32", "bfloat16", "float16"):
        raise UserError(f"no dtype {dtype!r}; expected float32, bfloat16 or float16")
    request = Request(
        root=root,
        paper=paper,
        tier=tier,
        out=out,
        seed=seed,
        model_names=tuple(model or ()),
        data=None if data is None else data_folders.resolve(data),
        device=device,
        dtype=dtype,
        fresh=fresh,
        no_kept=no_kept,
        only=only,
        jobs=jobs,
    )
    request.references()
    experiment = load_experiment(workspace.folder_of(root, paper))
    claims.check(paper, experiment.claims, tier)
    return request, experiment


def _judged(
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
        with progress_for(request.paper.slug) as progress:
            results = run(request, experiment, progress, execute or workers.execute)
        rows = claims.evaluate(request.paper, experiment.claims, results)
        claims.save(rows, request.folder())
    return rows

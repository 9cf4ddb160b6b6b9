"""reprise run, verify, train, bench."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import msgspec
import typer

from reprise import backends, claims, devices, workspace
from reprise.cli import app
from reprise.cli.clusters import in_processes, on_ray, ray_address
from reprise.cli.options import (
    All,
    Backend,
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
    Seeds,
    Slugs,
    Tier,
    check_tier,
    choose,
)
from reprise.cli.output import print_claims, print_json
from reprise.cli.preparing import Asked, judged, prepared
from reprise.errors import UserError

if TYPE_CHECKING:
    from reprise.experiment import Experiment
    from reprise.run import Request


@app.command()
def run(
    papers: Slugs = None,
    every: All = False,
    tier: Tier = "tiny",
    model: Models = None,
    data: Data = None,
    backend: Backend = backends.ENGINE,
    seed: Seeds = None,
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
    address = ray_address(executor, jobs)
    seeds = tuple(seed or (0,))
    if len(set(seeds)) < len(seeds):
        raise UserError(f"--seed {' '.join(map(str, seeds))}: expected each seed once")
    if address is None and backend in (backends.ENGINE, "nnsight"):
        devices.check(device)
    asked = partial(
        Asked,
        root=root,
        tier=check_tier(tier),
        out=out,
        model_names=tuple(model or ()),
        data=data,
        backend=backends.parse(backend),
        device=device,
        dtype=dtype,
        fresh=fresh,
        no_kept=no_kept,
        only=tuple(only or ()),
        jobs=jobs,
    )

    def prepare() -> Iterator[tuple[Request, Experiment]]:
        return (one for paper in chosen for one in prepared(asked(paper=paper, seeds=seeds)))

    if address is not None:
        of_runs = on_ray(address, prepare, judged)
    elif jobs > 1 and len(chosen) * len(seeds) > 1:
        of_runs = in_processes(jobs, prepare(), judged)
    else:
        of_runs = [judged(*one) for one in prepare()]
    rows = [row for of_run in of_runs for row in of_run]
    if len(seeds) == 1:
        print_json(rows) if as_json else print_claims(rows)
        return
    of_rows = [seeds[at % len(seeds)] for at, of_run in enumerate(of_runs) for _ in of_run]
    if as_json:
        print_json([{**msgspec.to_builtins(row), "seed": of} for row, of in zip(rows, of_rows, strict=True)])
    else:
        print_claims(rows, of_rows)


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
    devices.check(device)
    asked = partial(
        Asked,
        root=root,
        tier=check_tier(tier),
        out=out,
        seeds=(seed,),
        data=data,
        device=device,
        dtype=dtype,
        fresh=fresh,
    )
    rows = [row for paper in chosen for one in prepared(asked(paper=paper)) for row in judged(*one)]
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
    devices.check(device)
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
    name: Annotated[
        str | None, typer.Argument(metavar="NAME", help="A benchmark of a package or a paper; without it, their names.")
    ] = None,
    repeats: Annotated[int, typer.Option("--repeats", min=1, help="Timed runs a row; the median counts.")] = 5,
    as_json: Json = False,
) -> None:
    """Time a benchmark: every row in one run, with its ratio to the row that it is compared with."""
    from reprise import benchmarks
    from reprise.cli.output import print_table

    if name is None:
        names = benchmarks.names()
        print_json(names) if as_json else typer.echo("\n".join(names))
        return
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

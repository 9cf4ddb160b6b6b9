"""Several runs at once, of papers and of seeds: on one connection to Ray, or in `--jobs` processes.

All are prepared before the first starts.
"""

from __future__ import annotations

import sys
import threading
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractContextManager, contextmanager
from typing import TYPE_CHECKING

from reprise.claims import ClaimResult
from reprise.cli.output import progress_of
from reprise.cli.preparing import title_of
from reprise.errors import UserError

if TYPE_CHECKING:
    from reprise.experiment import Experiment
    from reprise.run import Progress, Request
    from reprise.workers import Execute

    Prepared = tuple[Request, Experiment]
    ProgressOf = Callable[[str], AbstractContextManager[Progress]]
    Judge = Callable[[Request, Experiment, Execute, ProgressOf], tuple[ClaimResult, ...]]

LOCAL = "local"
RAY = "ray"


def ray_address(executor: str, jobs: int) -> str | None:
    """The address in `--executor`: "" for a cluster that Ray finds or starts here, None for no Ray at all.

    Raises:
        UserError: neither, or processes of this machine asked for beside it.
    """
    if executor == LOCAL:
        return None
    scheme, given, address = executor.partition("://")
    if scheme != RAY or bool(given) != bool(address):
        raise UserError(f"no executor {executor!r}; expected local, ray, or ray://HOST:PORT")
    if jobs > 1:
        raise UserError(
            "--jobs counts processes of this machine and Ray has its own; give either --jobs or --executor ray"
        )
    return address


def on_ray(address: str, prepare: Callable[[], Iterable[Prepared]], judge: Judge) -> list[tuple[ClaimResult, ...]]:
    """Run and judge at the same time, as tasks; rows of each run, in the order in which they were prepared."""
    from reprise.on_ray import connected

    with connected(address or None) as cluster:
        return _together(prepare(), judge, cluster.execute, cluster.stopped.set)


def in_processes(jobs: int, prepared: Iterable[Prepared], judge: Judge) -> list[tuple[ClaimResult, ...]]:
    """Run and judge at the same time, `jobs` turns of all runs at once; rows as `on_ray`."""
    from reprise.workers import pool

    with pool(jobs) as processes:
        return _together(prepared, judge, processes.execute, processes.stop)


def _together(
    runs: Iterable[Prepared], judge: Judge, execute: Execute, stop: Callable[[], None]
) -> list[tuple[ClaimResult, ...]]:
    """A thread for each run, which waits most of the time.

    A run that fails does not stop the others: it is told at once, and the first error is raised when all are done. An
    interruption stops all.
    """
    prepared = list(runs)
    progress = progress_of if len(prepared) == 1 else _lines  # a terminal has room for one moving bar
    stopped = threading.Event()

    def one_of(request: Request, experiment: Experiment) -> tuple[ClaimResult, ...]:
        try:
            return judge(request, experiment, execute, progress)
        except Exception as error:
            if len(prepared) > 1 and not stopped.is_set():
                told = " ".join(str(error).split())
                _write(f"{title_of(request)}: failed: {told if isinstance(error, UserError) else repr(error)}\n")
            raise

    with ThreadPoolExecutor(len(prepared)) as threads:
        running = [threads.submit(one_of, *one) for one in prepared]
        try:
            return [one.result() for one in running]
        except (KeyboardInterrupt, SystemExit):
            stopped.set()
            stop()
            raise


@contextmanager
def _lines(title: str) -> Iterator[Progress]:
    """Progress of one of several runs: a line for every change."""
    from reprise.run import Progress

    yield Progress(stage=lambda label, state: _write(f"{title}: {label}: {state}\n"))


def _write(line: str) -> None:
    sys.stderr.write(line)  # one call, so that lines of several threads do not mix
    sys.stderr.flush()

"""Carrying out the turns of a stage, one after the other or in several processes.

Processes are started afresh (no fork), load the experiment by themselves, and compute with one thread each, so that two
of them on two cores do not fight; every result is stored by the process that computed it, as soon as it is complete. A
turn that fails lets those that run already finish and be stored, and starts no other of its run. Several runs, each in
a thread, may share one `Pool`.
"""

from __future__ import annotations

import multiprocessing
import os
import signal
import threading
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ProcessPoolExecutor, as_completed, wait
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, TypeVar

from reprise import store, turns, workspace
from reprise.errors import UserError
from reprise.experiment import load_experiment
from reprise.models import ModelReference
from reprise.store import Stored
from reprise.turns import ByStage, Turn

if TYPE_CHECKING:
    from reprise.run import Progress, Request

Given = TypeVar("Given")
Made = TypeVar("Made")

THREADS = ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS")


@dataclass(frozen=True)
class Errand:
    """A turn to execute, with what it gets of earlier stages and the key of its result."""

    turn: Turn
    references: tuple[ModelReference, ...]
    needed: ByStage
    key: str


Execute = Callable[["Request", Sequence[Errand], "Progress"], dict[str, Stored]]


def execute(request: Request, errands: Sequence[Errand], progress: Progress) -> dict[str, Stored]:
    """Execute all turns, in `request.jobs` processes where that is more than one; returns results by name.

    Raises:
        UserError: what a stage raises, or a process that was killed.
    """
    if request.jobs > 1 and len(errands) > 1:
        with pool(request.jobs) as processes:
            return processes.execute(request, errands, progress)
    found = {}
    for errand in errands:
        progress.stage(errand.turn.label, "running")
        found[errand.turn.name] = turns.execute(
            request, errand.turn, errand.references, errand.needed, errand.key, progress.within
        )
        progress.stage(errand.turn.label, "done")
    return found


@dataclass(frozen=True)
class Pool:
    """Processes that several threads may give turns to."""

    jobs: int
    processes: ProcessPoolExecutor
    _submitting: threading.Lock = field(default_factory=threading.Lock, repr=False)
    _stopped: threading.Event = field(default_factory=threading.Event, repr=False)

    def execute(self, request: Request, errands: Sequence[Errand], progress: Progress) -> dict[str, Stored]:
        """Execute all turns; returns results by name.

        Raises:
            UserError: what a stage raises, a process that was killed, or a pool that was stopped.
        """
        if not errands:
            return {}
        found: dict[str, Stored] = {}
        stage = errands[0].turn.stage.name
        progress.stage(f"{stage} [{len(errands)} in {self.jobs} processes]", "running")
        waiting: dict[Future[None], Turn] = {}
        try:
            with self._submitting:
                if self._stopped.is_set():
                    raise UserError(f"{request.paper.slug}: interrupted before {stage}; run it again to go on")
                for e in errands:
                    given = request, stage, e.turn.reference, e.turn.unit, e.references, e.needed, e.key
                    waiting[self.processes.submit(_remote, *given)] = e.turn
            for future in as_completed(waiting):
                turn = waiting[future]
                future.result()
                stored = store.read(turn.path(request.folder()))
                if stored is None:
                    raise UserError(f"{turn.path(request.folder())}: damaged as soon as it was written; check the disk")
                found[turn.name] = stored
                progress.stage(turn.label, "done")
                progress.within(len(found), len(errands))
        except BaseException as error:
            if not isinstance(error, Exception):
                self.stop()
            for future in waiting:
                future.cancel()
            wait(waiting)  # before the lock on the folder is released
            raise
        return found

    def stop(self) -> None:
        """Start no turn that waits, and end those that run: the next run goes on from what they left.

        A pool that lost a process gives up what it was given. It is not shut down here, since the end of the `with`
        block could then no longer wait for its thread, which would meet the end of Python.
        """
        with self._submitting:
            self._stopped.set()
        for process in multiprocessing.active_children():
            process.terminate()


@contextmanager
def pool(jobs: int) -> Iterator[Pool]:
    """Processes for the time of a `with` block, which leaves none behind; an interruption ends them."""
    with (
        _one_thread_each(),
        ProcessPoolExecutor(
            jobs, mp_context=multiprocessing.get_context("spawn"), initializer=_end_with_parent
        ) as processes,
    ):
        made = Pool(jobs, processes)
        try:
            yield made
        except BaseException as error:
            if not isinstance(error, Exception):
                made.stop()
            raise


def in_order(jobs: int, function: Callable[[Given], Made], over: Sequence[Given]) -> Iterator[Made]:
    """What a function of a module makes of each, in their order; in processes where `jobs` is more than one."""
    if jobs == 1 or len(over) < 2:
        yield from map(function, over)
        return
    with pool(jobs) as processes:
        yield from processes.processes.map(function, over)


def _remote(
    request: Request,
    stage: str,
    reference: ModelReference | None,
    unit: str | None,
    references: tuple[ModelReference, ...],
    needed: ByStage,
    key: str,
) -> None:
    """Execute one turn in a process of its own: functions are found by their names, since they cannot be sent."""
    experiment = load_experiment(workspace.folder_of(request.root, request.paper))
    (found,) = (one for one in experiment.stages if one.name == stage)
    turns.execute(request, Turn(found, reference, unit), references, needed, key)


def _end_with_parent() -> None:
    """End this process when the run that started it is killed, or ends it, and not by itself.

    Else it would go on writing where the resumed run writes, and then wait for errands for ever. A terminal interrupts
    all processes at once, and each would print where it was.
    """
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    parent = multiprocessing.parent_process()

    def watch() -> None:
        if parent is not None:
            parent.join()
            os._exit(1)

    threading.Thread(target=watch, daemon=True).start()


@contextmanager
def _one_thread_each() -> Iterator[None]:
    """Numeric libraries read the number of threads when they are loaded, which a new process does."""
    before = {name: os.environ.get(name) for name in THREADS}
    os.environ.update(dict.fromkeys(THREADS, "1"))
    try:
        yield
    finally:
        for name, value in before.items():
            if value is None:
                del os.environ[name]
            else:
                os.environ[name] = value

"""Carrying out the turns of a stage as Ray tasks, on a cluster or on this machine.

A task executes one turn and returns what it stored; the driver writes that into its own folder, so results need no
shared file system. Code, models and data must be at the same place on every node: a task computes the key of its turn
anew and refuses to run where it differs from the driver's, so that a node with other code or another model cannot give
a result in their name. A task whose worker is lost starts again on another one, up to `RETRIES` times, and goes on from
what the turn left in its scratch folder where both see the same folder; other tasks do not notice.

Ray is optional (`reprise[ray]`) and imported by `connected` and what runs inside it alone.
"""

from __future__ import annotations

import importlib.util
import logging
import os
import socket
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from reprise import data_folders, models, store, turns, workspace
from reprise.errors import UserError
from reprise.experiment import load_experiment
from reprise.fingerprint import code_sha256
from reprise.models import ModelReference
from reprise.store import Stored
from reprise.turns import ByStage, Turn
from reprise.workers import THREADS, Errand

if TYPE_CHECKING:
    from reprise.run import Progress, Request

RETRIES = 3
ANSWER_WITHIN = 5.0  # seconds for the head node to take a connection
LOOK_EVERY = 1.0  # seconds between two looks at whether the run was stopped
GIB = 2**30


@dataclass(frozen=True)
class Cluster:
    """A connection to Ray; several threads may run papers on it. Who sets `stopped` ends their tasks."""

    grows: bool
    stopped: threading.Event = field(default_factory=threading.Event)

    def execute(self, request: Request, errands: Sequence[Errand], progress: Progress) -> dict[str, Stored]:
        """Execute all turns as tasks; returns results by name.

        A turn that fails does not stop the others: the first error is raised when all that can be stored is.

        Raises:
            UserError: what a stage raises, a task that lost its worker too often, or too small a machine.
        """
        if not errands:
            return {}
        import ray

        request = replace(request, out=request.out.absolute())
        stage = errands[0].turn.stage.name
        options = resources(request)
        self._check_room(options, f"{request.paper.slug}: {stage}", progress)
        progress.stage(f"{stage} [{len(errands)} on Ray]", "running")
        task = ray.remote(**options)(in_task)
        waiting = {
            task.remote(request, stage, e.turn.reference, e.turn.unit, e.references, e.needed, e.key): e.turn
            for e in errands
        }
        found: dict[str, Stored] = {}
        errors: list[BaseException] = []
        try:
            while waiting and not self.stopped.is_set():
                ready, _ = ray.wait(list(waiting), timeout=LOOK_EVERY)
                for reference in ready:
                    turn = waiting.pop(reference)
                    try:
                        found[turn.name] = _kept(request, turn, _result(reference, turn))
                        progress.stage(turn.label, "done")
                    except Exception as error:
                        errors.append(error)
                        progress.stage(turn.label, "failed")
                    progress.within(len(found), len(errands))
        finally:
            for reference in waiting:
                ray.cancel(reference, force=True)
        if errors:
            raise errors[0]
        if self.stopped.is_set():
            raise UserError(f"{request.paper.slug}: stopped; run again to go on")
        return found

    def _check_room(self, options: dict[str, Any], what: str, progress: Progress) -> None:
        """Ray would wait for ever for a node that is large enough.

        Raises:
            UserError: on this machine, which does not grow; a cluster at an address may, so there it is only told.
        """
        import ray

        wanted = {"CPU": options["num_cpus"], "GPU": options.get("num_gpus", 0), "memory": options.get("memory", 0)}
        nodes = [node["Resources"] for node in ray.nodes() if node["Alive"]]
        if any(all(node.get(name, 0) >= amount for name, amount in wanted.items()) for node in nodes):
            return
        asked = f"{wanted['CPU']:g} CPUs, {wanted['GPU']:g} GPUs and {wanted['memory'] / GIB:g} GiB"
        if self.grows:
            progress.stage(what, f"waits: no node of the cluster has {asked} yet")
            return
        raise UserError(f"{what}: a task takes {asked}, which this machine has not; name a cluster by ray://HOST:PORT")


@contextmanager
def connected(address: str | None) -> Iterator[Cluster]:
    """Ray for the time of a `with` block.

    `address` is host:port of a cluster's Ray client server (port 10001 by default). None is what Ray itself takes:
    RAY_ADDRESS, a cluster that runs on this machine, or one started here and ended with the block.

    Raises:
        UserError: Ray is not installed, or no cluster answers at the address.
    """
    if importlib.util.find_spec("ray") is None:
        raise UserError(
            "--executor ray needs Ray, which is not installed; install the extra: pip install 'reprise[ray]'"
        )
    if address is not None:
        _check_answer(address)
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")  # Ray reads it when it is imported, and else sends statistics
    import ray

    grows = address is not None or "RAY_ADDRESS" in os.environ
    if ray.is_initialized():
        yield Cluster(grows)
        return
    try:
        ray.init(
            address=None if address is None else f"ray://{address}",
            include_dashboard=False,
            log_to_driver=False,  # what workers print would mix with --json
            logging_level=logging.ERROR,
        )
    except (OSError, RuntimeError, ValueError) as error:
        where = f"ray://{address}" if address else "this machine"
        told = str(error).strip().partition("\n")[0]
        raise UserError(
            f"{where}: no connection to Ray ({told}); check that the cluster runs the same Ray and Python"
        ) from error
    try:
        yield Cluster(grows)
    finally:
        ray.shutdown()


def resources(request: Request) -> dict[str, Any]:
    """Ray's options for the tasks of a run, from `cpus`, `gpus` and `memory_gib` of its tier.

    A task gets one CPU where the tier says nothing, and as many threads as CPUs; with `--device cuda` it gets one GPU
    where the tier says nothing, else none.

    Raises:
        UserError: a device with a number, since Ray chooses the GPU.
    """
    tier = request.paper.tier(request.tier)
    if request.device.startswith("cuda:"):
        raise UserError(f"--device {request.device}: Ray chooses the GPU of each task; give --device cuda")
    threads = dict.fromkeys(THREADS, str(tier.cpus))
    options: dict[str, Any] = {
        "num_cpus": tier.cpus,
        "max_retries": RETRIES,
        "max_calls": 1,  # a new process for each: what an earlier turn left in memory must reach neither result nor key
        "runtime_env": {"env_vars": threads},
    }
    if request.device == "cuda":
        options["num_gpus"] = tier.gpus or 1
    if tier.memory_gib is not None:
        options["memory"] = int(tier.memory_gib * GIB)
    return options


def in_task(
    request: Request,
    stage: str,
    reference: ModelReference | None,
    unit: str | None,
    references: tuple[ModelReference, ...],
    needed: ByStage,
    key: str,
) -> Stored:
    """Execute one turn on a node; functions are found by their names, since they cannot be sent.

    Raises:
        UserError: what the stage raises, or that the node's code, models or data are not the driver's.
    """
    experiment = load_experiment(workspace.folder_of(request.root, request.paper))
    (found,) = (one for one in experiment.stages if one.name == stage)
    turn, code = Turn(found, reference, unit), code_sha256(found.function)
    if turns.key_of(_as_here(request), turn, tuple(map(_found_here, references)), needed, code) != key:
        raise UserError(
            f"{turn.label}: code or data below {request.root} on node {socket.gethostname()} are not those of the "
            "machine that started the run; bring both to the same commit"
        )
    return turns.execute(request, turn, references, needed, key)


def _as_here(request: Request) -> Request:
    return replace(request, data=request.data and data_folders.resolve(request.data.path))


def _found_here(reference: ModelReference) -> ModelReference:
    """The model as it is on this node.

    Raises:
        UserError: it is another one, or is not there.
    """
    if reference.kind == "hub" or models.folder_fingerprint(Path(reference.location)) == reference.fingerprint:
        return reference
    raise UserError(
        f"{reference.location}: on node {socket.gethostname()} this is another model than on the machine that started "
        "the run; copy that one to the same place"
    )


def _result(reference: Any, turn: Turn) -> Stored:
    """What a task returned.

    Raises:
        UserError: its worker was lost too often. Otherwise what the stage raised, as it raised it.
    """
    import ray
    from ray.exceptions import RayError, RayTaskError

    try:
        stored: Stored = ray.get(reference)
    except RayTaskError as error:
        raise (error.cause if isinstance(error.cause, Exception) else error) from error
    except RayError as error:
        told = str(error).strip().partition("\n")[0]
        raise UserError(
            f"{turn.label}: its worker was lost {RETRIES + 1} times ({type(error).__name__}: {told}); if it needs "
            "more memory, say so by memory_gib in paper.toml; run again to go on"
        ) from error
    return stored


def _kept(request: Request, turn: Turn, result: Stored) -> Stored:
    """A result written into the run's folder, and read back as a resumed run would."""
    path = turn.path(request.folder())
    store.write(path, result.result, result.key, result.provenance)
    stored = store.read(path)
    if stored is None:
        raise UserError(f"{path}: damaged as soon as it was written; check the disk")
    return stored


def _check_answer(address: str) -> None:
    """Ray itself tries for half a minute.

    Raises:
        UserError: an address that is none, or at which nothing takes a connection.
    """
    host, _, port = address.rpartition(":")
    if not host or not port.isdecimal() or int(port) > 65535:
        raise UserError(f"--executor ray://{address}: expected ray://HOST:PORT, such as ray://head:10001")
    try:
        socket.create_connection((host.strip("[]"), int(port)), ANSWER_WITHIN).close()
    except (OSError, UnicodeError) as error:
        raise UserError(
            f"--executor ray://{address}: nothing answers there ({error}); start the cluster by `ray start --head`, "
            "whose client port is 10001"
        ) from error

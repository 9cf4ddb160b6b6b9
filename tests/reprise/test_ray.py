"""Turns as tasks of a Ray cluster: the same results, lost workers, errors, several papers at once."""

from __future__ import annotations

import contextlib
import importlib.util
import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from tests.reprise.test_units import invoke

from reprise import UserError, on_ray, store, workspace
from reprise.cli.clusters import ray_address
from reprise.experiment import Results, load_experiment
from reprise.on_ray import Cluster, connected, in_task, resources
from reprise.run import Progress, Request, run

if TYPE_CHECKING:
    from tests.reprise.conftest import Toys

needs_ray = pytest.mark.skipif(
    importlib.util.find_spec("ray") is None, reason="Ray is not installed: the extra reprise[ray]"
)

SWEEP = '''
import os
import time

import numpy as np

from reprise import Measurement, Result, Stage, UserError


def ran(job, label):
    with open(job.root / "log.txt", "a") as file:
        file.write(label + "\\n")


def grow(job):
    """Counts to 5 and writes down how far it is; waits at 3 while there is a file `wait-UNIT`."""
    ran(job, f"grow {job.unit}")
    ran(job, f"process {os.getpid()}")
    if (job.root / "fail").exists() and job.unit == "a-2":
        raise UserError("a-2: as asked")
    count = job.scratch / "count"
    done = int(count.read_text()) if count.exists() else 0
    for step in range(done, 5):
        while step == 3 and (job.root / f"wait-{job.unit}").exists():
            (job.root / f"pid-{job.unit}").write_text(str(os.getpid()))
            time.sleep(0.05)
        ran(job, f"step {job.unit} {step}")
        job.scratch.mkdir(exist_ok=True)
        count.write_text(str(step + 1))
    noise = np.random.default_rng(job.seed + int(job.unit[-1])).normal(size=(3, 4)).astype(np.float32)
    return Result({"noise": noise}, {"threads": os.environ["OMP_NUM_THREADS"]})


def total(job):
    of = job.inputs.of("grow")
    return Result({"sum": np.array(sum(float(one["noise"].sum()) for one in of.values()))}, {"of": sorted(of)})


STAGES = (Stage("grow", grow, units=("a-1", "a-2", "b-3")), Stage("total", total, needs=("grow",)))


def mean(results):
    return Measurement(estimate=float(results.one("total")["sum"]), low=-9.0, high=9.0, n=3, over="units")


CLAIMS = {"mean-is-positive": mean, "spread-is-small": lambda results: None}
'''


@pytest.fixture(scope="module")
def cluster() -> Iterator[Cluster]:
    """A cluster of this file, with places for two workers; its workers see the same environment in all tests."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("RAY_USAGE_STATS_ENABLED", "0")
        import ray

        ray.init(
            address="local",
            num_cpus=2,
            include_dashboard=False,
            object_store_memory=80 * 2**20,
            log_to_driver=False,
            logging_level="error",
        )
        with connected(None) as made:
            yield made
        assert ray.is_initialized()  # whoever did not start it does not end it
        ray.shutdown()


@pytest.fixture
def sweep(toys: Toys) -> Toys:
    (toys.folder / "experiment.py").write_text(SWEEP)
    text = (toys.folder / "paper.toml").read_text()
    first = text.index("models = ", text.index("[tiers.tiny]"))
    (toys.folder / "paper.toml").write_text(text[:first] + "trains = true" + text[text.index("\n", first) :])
    return toys


def request(toys: Toys, out: str = "build", only: str = "*") -> Request:
    (paper,) = workspace.load_papers(toys.root, ("toys",))
    return Request(toys.root, paper, "tiny", Path(out), only=() if only == "*" else (only,))


def executed(toys: Toys, cluster: Cluster | None, out: str = "build", progress: Progress | None = None) -> Results:
    experiment = load_experiment(toys.folder)
    if cluster is None:
        return run(request(toys, out), experiment, progress)
    return run(request(toys, out), experiment, progress, cluster.execute)


def files(toys: Toys, out: str) -> dict[str, tuple[str, str]]:
    """Key and content hash of every stored result, by its place."""
    folder = toys.root / out / "results"
    found = {path.relative_to(folder).as_posix(): store.read(path) for path in folder.rglob("*.safetensors")}
    return {name: (one.key, one.sha256) for name, one in found.items() if one is not None}


@needs_ray
def test_models_give_what_a_local_run_gives(toys: Toys, cluster: Cluster) -> None:
    executed(toys, None, "local")
    results = executed(toys, cluster, "ray")
    assert files(toys, "ray") == files(toys, "local")
    assert len(files(toys, "ray")) == 4
    results.one("numbers")["values"][0] = 0.0  # not read-only memory of Ray's


@needs_ray
def test_units_give_what_a_local_run_gives(sweep: Toys, cluster: Cluster, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    alone = executed(sweep, None, "local")
    seen: list[tuple[str, str]] = []
    within: list[tuple[int, int]] = []
    several = executed(
        sweep,
        cluster,
        "ray",
        Progress(stage=lambda *said: seen.append(said), within=lambda *done: within.append(done)),
    )
    assert files(sweep, "ray") == files(sweep, "local")
    for stage in ("grow", "total"):
        assert list(several.of(stage)) == list(alone.of(stage))
    assert sorted(label for label, state in seen if state == "done") == [
        *(f"grow [{unit}]" for unit in ("a-1", "a-2", "b-3")),
        "total",
    ]
    assert (3, 3) in within
    processes = [line for line in sweep.executions() if line.startswith("process")]
    assert (len(processes), len(set(processes))) == (6, 4)  # one of the local run, and one for each task
    again: list[str] = []
    executed(sweep, cluster, "ray", Progress(stage=lambda label, state: again.append(state)))
    assert set(again) == {"stored"}


@needs_ray
def test_a_killed_worker_costs_the_unfinished_part_of_its_unit(sweep: Toys, cluster: Cluster) -> None:
    wait, pid = sweep.root / "wait-a-2", sweep.root / "pid-a-2"
    wait.touch()
    done: list[Results] = []
    driver = threading.Thread(target=lambda: done.append(executed(sweep, cluster, "ray")))
    driver.start()
    killed = int(when_written(pid))
    while len(files(sweep, "ray")) < 2:  # the other units are done, by the other worker
        time.sleep(0.05)
    pid.unlink()
    os.kill(killed, signal.SIGKILL)
    assert int(when_written(pid)) != killed
    wait.unlink()
    driver.join(timeout=60)
    log = sweep.executions()
    assert log.count("grow a-2") == 2
    assert [log.count(f"grow {unit}") for unit in ("a-1", "b-3")] == [1, 1]
    assert [log.count(f"step a-2 {step}") for step in range(5)] == [1, 1, 1, 1, 1]
    assert done[0].one("total").facts["of"] == ["a-1", "a-2", "b-3"]
    executed(sweep, None, "local")
    assert {name: of for name, (_, of) in files(sweep, "ray").items()} == {
        name: of for name, (_, of) in files(sweep, "local").items()
    }


def when_written(path: Path) -> str:
    deadline = time.monotonic() + 60
    while not (path.exists() and path.read_text()):
        assert time.monotonic() < deadline, f"{path} was never written"
        time.sleep(0.02)
    return path.read_text()


@needs_ray
def test_a_worker_that_is_lost_every_time_is_named(
    sweep: Toys, cluster: Cluster, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(on_ray, "RETRIES", 0)
    (sweep.root / "wait-a-1").touch()
    pid = sweep.root / "pid-a-1"
    killer = threading.Thread(target=lambda: os.kill(int(when_written(pid)), signal.SIGKILL))
    killer.start()
    with pytest.raises(UserError, match=r"grow \[a-1\]: its worker was lost 1 times .*memory_gib in paper\.toml"):
        run(request(sweep, only="a-1"), load_experiment(sweep.folder), None, cluster.execute)
    killer.join()
    assert files(sweep, "build") == {}


@needs_ray
def test_an_error_of_a_stage_is_its_own_line_and_the_other_units_are_kept(
    sweep: Toys, cluster: Cluster, monkeypatch: pytest.MonkeyPatch
) -> None:
    (sweep.root / "fail").touch()
    code, said = invoke("run", "toys", "--executor", "ray", "--only", "a-*")
    assert code == 2
    assert said.splitlines()[-1] == "error: a-2: as asked"
    assert "Traceback" not in said
    (sweep.root / "fail").unlink()
    sweep.executions()
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    executed(sweep, None)
    assert [line for line in sweep.executions() if line.startswith("grow")] == ["grow a-2", "grow b-3"]


@needs_ray
def test_a_stopped_run_ends_its_tasks(sweep: Toys, cluster: Cluster) -> None:
    (sweep.root / "wait-b-3").touch()
    mine = replace(cluster, stopped=threading.Event())
    driver = threading.Thread(
        target=lambda: swallow(
            lambda: run(request(sweep, only="b-3"), load_experiment(sweep.folder), None, mine.execute)
        )
    )
    driver.start()
    pid = int(when_written(sweep.root / "pid-b-3"))
    mine.stopped.set()
    driver.join(timeout=30)
    assert not driver.is_alive()
    deadline = time.monotonic() + 30
    while Path(f"/proc/{pid}").exists() and time.monotonic() < deadline:
        time.sleep(0.05)
    assert not Path(f"/proc/{pid}").exists()


def swallow(run_it: object) -> None:
    with contextlib.suppress(UserError):
        run_it()  # type: ignore[operator]


@needs_ray
def test_several_papers_at_once(sweep: Toys, cluster: Cluster) -> None:
    """The first paper waits in its first unit for the end of the second one."""
    shutil.copytree(sweep.folder, sweep.folder.with_name("games"))
    sweep.edit('/ f"wait-', '/ f"never-')
    (sweep.root / "wait-a-1").touch()

    def release() -> None:
        when_written(sweep.out / "results" / "toys" / "tiny" / "claims.json")
        (sweep.root / "wait-a-1").unlink()

    threading.Thread(target=release, daemon=True).start()
    code, said = invoke("run", "--all", "--executor", "ray", "--only", "a-1", "--json")
    assert code == 0, said
    rows = json.loads(said[said.index("[\n") :])
    assert [(row["paper"], row["verdict"]) for row in rows] == [
        (paper, verdict) for paper in ("games", "toys") for verdict in (rows[0]["verdict"], "not run")
    ]
    assert rows[0]["estimate"] == rows[2]["estimate"]
    assert "games: grow [1 on Ray]: running\n" in said
    assert "toys: grow [a-1]: done\n" in said


@needs_ray
def test_several_seeds_at_once(sweep: Toys, cluster: Cluster, monkeypatch: pytest.MonkeyPatch) -> None:
    """The first seed waits in its unit for the end of the second one."""
    sweep.edit('/ f"wait-{job.unit}"', '/ f"wait-{job.unit}-{job.seed}"')
    wait = sweep.root / "wait-a-1-0"
    wait.touch()

    judged = sweep.root / "ray" / "results" / "toys" / "tiny-seed7" / "claims.json"
    first: list[bool] = []

    def release() -> None:
        deadline = time.monotonic() + 240
        while not judged.exists() and time.monotonic() < deadline:
            time.sleep(0.05)
        first.append(judged.exists())
        wait.unlink()

    threading.Thread(target=release, daemon=True).start()
    asked = ("run", "toys", "--only", "a-1", "--seed", "0", "--seed", "7", "--json")
    code, said = invoke(*asked, "--executor", "ray", "--out", "ray")
    assert code == 0, said
    assert first == [True]
    assert "toys (seed 7): grow [a-1]: done\n" in said
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    _, alone = invoke(*asked, "--out", "local")
    assert json.loads(said[said.index("[\n") :]) == json.loads(alone[alone.index("[\n") :])
    assert files(sweep, "ray") == files(sweep, "local")
    assert len(files(sweep, "ray")) == 4


@needs_ray
def test_a_cluster_by_its_address(sweep: Toys, cluster: Cluster, tmp_path: Path) -> None:
    import ray

    port = free_port()
    words = ["--address", ray.get_runtime_context().gcs_address, "--port", str(port), "--mode", "legacy"]
    with (tmp_path / "server.log").open("w") as log:
        server = subprocess.Popen([sys.executable, "-m", "ray.util.client.server", *words], stdout=log, stderr=log)
    try:
        deadline = time.monotonic() + 40
        while not answers(port) and time.monotonic() < deadline:
            time.sleep(0.1)
        command = "from reprise.cli import main; main()"
        words = ["run", "toys", "--out", "far", "--only", "a-1", "--executor", f"ray://127.0.0.1:{port}", "--json"]
        ended = subprocess.run([sys.executable, "-c", command, *words], capture_output=True, text=True, check=False)
    finally:
        server.kill()
        server.wait()
    assert ended.returncode == 0, ended.stderr
    assert len(json.loads(ended.stdout)) == 2
    run(request(sweep, "local", "a-1"), load_experiment(sweep.folder))
    assert files(sweep, "far") == files(sweep, "local")


def free_port() -> int:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        return int(taken.getsockname()[1])


def answers(port: int) -> bool:
    try:
        socket.create_connection(("127.0.0.1", port), 1.0).close()
    except OSError:
        return False
    return True


@needs_ray
def test_an_address_that_does_not_answer(toys: Toys) -> None:
    started = time.monotonic()
    port = free_port()
    code, said = invoke("run", "toys", "--executor", f"ray://127.0.0.1:{port}")
    assert (code, time.monotonic() - started < 10) == (2, True)
    assert f"error: --executor ray://127.0.0.1:{port}: nothing answers there ([Errno 111] Connection refused)" in said
    assert toys.executions() == []


@needs_ray
@pytest.mark.parametrize("address", ["head", "head:", ":10001", "head:ten", "head:70000"])
def test_an_address_that_is_none(toys: Toys, address: str) -> None:
    code, said = invoke("run", "toys", "--executor", f"ray://{address}")
    assert code == 2
    assert f"--executor ray://{address}: expected ray://HOST:PORT, such as ray://head:10001" in said


def test_without_ray_the_extra_is_named(toys: Toys, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    code, said = invoke("run", "toys", "--executor", "ray")
    assert (code, said) == (
        2,
        "error: --executor ray needs Ray, which is not installed; install the extra: pip install 'reprise[ray]'\n",
    )


def test_nothing_else_imports_ray() -> None:
    command = "import sys, reprise.on_ray, reprise.cli; reprise.cli._register(); sys.exit('ray' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", command], check=False).returncode == 0


def test_the_executor_is_local_or_ray() -> None:
    assert [ray_address(name, 1) for name in ("local", "ray", "ray://head:1")] == [None, "", "head:1"]
    for name in ("", "rays", "ray://", "ray:head", "dask://head:1"):
        with pytest.raises(UserError, match=r"no executor .*expected local, ray, or ray://HOST:PORT"):
            ray_address(name, 1)
    with pytest.raises(UserError, match="give either --jobs or --executor ray"):
        ray_address("ray", 2)


@pytest.mark.parametrize(
    ("tier", "device", "expected"),
    [
        ({}, "cpu", {"num_cpus": 1}),
        ({"cpus": 4, "gpus": 2, "memory_gib": 1.5}, "cpu", {"num_cpus": 4, "memory": 3 * 2**29}),
        ({"gpus": 0.5}, "cuda", {"num_cpus": 1, "num_gpus": 0.5}),
        ({}, "cuda", {"num_cpus": 1, "num_gpus": 1}),
    ],
)
def test_resources_of_a_task(toys: Toys, tier: dict[str, float], device: str, expected: dict[str, float]) -> None:
    found = resources(asking(toys, tier, device))
    assert found.pop("runtime_env")["env_vars"]["OMP_NUM_THREADS"] == str(expected["num_cpus"])
    assert found == {"max_retries": 3, "max_calls": 1, **expected}


def asking(toys: Toys, tier: dict[str, float], device: str = "cpu") -> Request:
    lines = "".join(f"\n{name} = {value}" for name, value in tier.items())
    toys.edit('about = "Toy models."', f'about = "Toy models."{lines}', "paper.toml")
    return replace(request(toys), device=device)


def test_a_numbered_device_is_refused(toys: Toys) -> None:
    with pytest.raises(UserError, match="--device cuda:1: Ray chooses the GPU of each task; give --device cuda"):
        resources(asking(toys, {}, "cuda:1"))


@pytest.mark.parametrize("line", ["cpus = 0", "cpus = 1.5", "gpus = 0", "gpus = 1.5", "memory_gib = -1"])
def test_malformed_resources_are_refused(toys: Toys, line: str) -> None:
    with pytest.raises(
        UserError, match=rf"paper\.toml: .*(`\$\.tiers\[\.\.\.\]\.?{line.split(maxsplit=1)[0]}`|gpus 1\.5: expected)"
    ):
        asking(toys, dict([line.split(" = ")]))  # type: ignore[arg-type]


@needs_ray
def test_more_than_this_machine_has_is_refused(toys: Toys, cluster: Cluster) -> None:
    asked = asking(toys, {"cpus": 4000, "memory_gib": 2})
    experiment = load_experiment(toys.folder)
    with pytest.raises(UserError, match="toys: numbers: a task takes 4000 CPUs, 0 GPUs and 2 GiB, which this machine"):
        run(asked, experiment, None, cluster.execute)


@needs_ray
def test_a_cluster_that_may_grow_is_waited_for(toys: Toys, cluster: Cluster) -> None:
    told: list[tuple[str, str]] = []
    wanted = {"num_cpus": 1, "num_gpus": 64}
    Cluster(grows=True)._check_room(wanted, "toys: numbers", Progress(stage=lambda *said: told.append(said)))
    assert told == [("toys: numbers", "waits: no node of the cluster has 1 CPUs, 64 GPUs and 0 GiB yet")]


def test_a_node_with_other_code_or_another_model_is_refused(toys: Toys) -> None:
    asked = request(toys)
    references = asked.references()
    with pytest.raises(UserError, match=r"numbers: code or data below .* are not those of the machine"):
        in_task(asked, "numbers", None, None, references, {}, "other")
    (toys.models[0] / "config.json").write_text('{"d_model": 5}')
    with pytest.raises(UserError, match=r"models/one: on node .* this is another model"):
        in_task(asked, "numbers", None, None, references, {}, "other")

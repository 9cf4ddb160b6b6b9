"""`--backend`: part of the key, the folder and the provenance of a result; papers that do not take part refuse it."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
from tests.reprise.test_units import invoke

from reprise import UserError, backends, store
from reprise.report import build
from reprise.workspace import load_papers

if TYPE_CHECKING:
    from tests.reprise.conftest import Toys

STAGES = ["numbers", "scaled one", "scaled two", "summary"]
CHECK = """
def check(backend, location):
    ran(f"check {backend} {location.rpartition('/')[2]}")
    if backend == "ndif":
        raise UserError("no key, as asked")


CHECK_BACKEND = check
STAGES = ("""


@pytest.fixture
def taking(toys: Toys) -> Toys:
    """The toy paper, whose first stage notes the backend."""
    toys.edit("\nSTAGES = (", CHECK)
    toys.edit("from reprise import Measurement", "from reprise import UserError, Measurement")
    toys.edit('"count": {1: 50}', '"count": {1: 50}, "by": job.backend')
    return toys


def stored(toys: Toys, folder: str) -> dict[str, store.Stored]:
    found = {path.stem: store.read(path) for path in (toys.out / "results" / "toys" / folder).glob("*/*.safetensors")}
    return {name: one for name, one in found.items() if one is not None}


def test_another_backend_computes_anew_and_says_so(taking: Toys) -> None:
    server = "http://Head-1:8000"
    assert invoke("run", "toys")[0] == 0
    assert taking.executions() == STAGES
    for backend in ("nnsight", server):
        code, said = invoke("run", "toys", "--backend", f"{backend}/" if backend == server else backend)
        assert code == 0, said
        checked = [f"check {backend} {name}" for name in ("one", "two")]
        assert taking.executions() == [*checked, *checked, *STAGES]
    engine, nnsight, served = (
        stored(taking, name) for name in ("tiny", "tiny-backend-nnsight", "tiny-backend-Head-1-8000")
    )
    assert len({of["result"].key for of in (engine, nnsight, served)}) == 3
    assert len({of["one"].key for of in (engine, nnsight, served)}) == 3
    for of, backend, machine in (
        (engine, "engine", ("cpu", "float32")),
        (nnsight, "nnsight", ("cpu", "float32")),
        (served, server, ("as served", "as served")),
    ):
        told = of["one"].provenance
        assert (told.backend, (told.device, told.dtype)) == (backend, machine)
    assert invoke("run", "toys", "--backend", server)[0] == 0
    assert [line for line in taking.executions() if not line.startswith("check")] == []


def test_results_of_the_engine_are_written_as_they_always_were(taking: Toys) -> None:
    invoke("run", "toys")
    for path in (taking.out / "results").rglob("*.safetensors"):
        assert b"backend" not in path.read_bytes()


def test_the_report_names_the_backend_and_the_command(taking: Toys) -> None:
    invoke("run", "toys", "--backend", "nnsight")
    build(taking.root, load_papers(taking.root), taking.out)
    page = (taking.out / "report" / "papers" / "toys.html").read_text()
    assert "<td>nnsight</td><td>cpu</td>" in page
    assert "--backend nnsight" in page
    code, said = invoke("figures", "toys", "--backend", "nnsight")
    assert (code, "tiny-backend-nnsight/figures" in said) == (0, True)


def test_a_backend_that_would_not_work_is_refused_before_anything_runs(taking: Toys) -> None:
    assert invoke("run", "toys", "--backend", "ndif") == (2, "error: no key, as asked\n")
    assert taking.executions() == ["check ndif one"]
    code, said = invoke("run", "toys", "--backend", "ndif", "--dtype", "bfloat16")
    assert (code, taking.executions()) == (2, [])
    assert "--device cpu --dtype bfloat16: with --backend ndif the model is not loaded here" in said


def test_a_paper_that_does_not_take_part_says_so(toys: Toys) -> None:
    code, said = invoke("run", "toys", "--backend", "nnsight")
    assert (code, toys.executions()) == (2, [])
    assert said.startswith("error: toys: runs on the engine alone; leave out --backend nnsight (a paper whose stages")


@pytest.mark.parametrize(
    "text", ["", "torch", "http://", "http://host", "host:80", "http://a:b@host:80", "http://h:80/x"]
)
def test_what_is_no_backend(text: str) -> None:
    with pytest.raises(UserError, match=r"no backend .*expected engine, nnsight, ndif, or .* http://HOST:PORT"):
        backends.parse(text)

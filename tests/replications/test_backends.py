"""`reprise run --backend`: both papers of vectors give the engine's numbers on every backend.

NDIF and a server are stood in for: every trace is packed as for NDIF and unpacked here, or is run as a server gets it,
a prompt at a time without padding.
"""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from replications.function_vectors import setting, vector_stages
from replications.task_vectors import bench
from tests.reprise.test_units import invoke

from function_vectors import load_templates
from interventions import backends, skeletons
from reprise import store
from reprise.store import Stored

from .function_vector_runs import DATA, ROOT
from .test_function_vectors import random_model

nnsight = pytest.importorskip("nnsight")

PAPERS = ("function_vectors", "task_vectors")
FEW = setting.Trials(shots=2, means=3, natural_means=3, effects=2, scored=3, draws=1, rebuilds=1, steps=3, lists=3)
FEWEST = bench.Trials(shots=2, chosen_on=2, scored_on=2, conflict=2, vectors=2)


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A random GPT-J that is sure of what it says, so that no prediction hangs on the last digit."""
    from transformers import AutoModelForCausalLM

    folder = Path(random_model("gptj", tmp_path_factory.mktemp("models") / "gptj").location)
    network = AutoModelForCausalLM.from_pretrained(folder)
    torch.manual_seed(1)
    with torch.no_grad():
        for parameter in network.parameters():
            if parameter.ndim > 1:
                parameter.normal_(std=0.3)
    network.save_pretrained(folder)
    return folder


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("data")
    for name in ("antonym", "capitalize"):
        pairs = json.loads((DATA / "tasks" / f"{name}.json").read_text())
        (folder / f"{name}.json").write_text(json.dumps(pairs[:12]))
    return folder


@pytest.fixture(autouse=True, scope="module")
def small() -> Iterator[None]:
    """The project's own papers, with few prompts and two templates."""
    templates = load_templates
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("REPRISE_ROOT", str(ROOT))
        patch.setitem(setting.TRIALS, "paper", FEW)
        patch.setitem(bench.TRIALS, "paper", FEWEST)
        patch.setattr(setting, "load_templates", lambda path: templates(path)[:2])
        patch.setattr(vector_stages, "DOES", 0.0)
        yield


def run(paper: str, out: Path, data: Path, *words: str) -> tuple[int, str]:
    return invoke("run", paper, "--tier", "paper", "--data", str(data), "--out", str(out), "--json", *words)


def results(out: Path, paper: str, ending: str) -> dict[str, Stored]:
    (folder,) = (path for path in (out / "results" / paper).iterdir() if path.name.endswith(ending))
    found = {path.parent.name: store.read(path) for path in folder.glob("*/*.safetensors")}
    return {name: one for name, one in found.items() if one is not None}


@pytest.fixture(scope="module")
def engine(model: Path, data: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The output folder of both papers on the engine."""
    out = tmp_path_factory.mktemp("build")
    for paper in PAPERS:
        code, said = run(paper, out, data, "--model", str(model))
        assert code == 0, said
    return out


def assert_same(found: dict[str, Stored], expected: dict[str, Stored], backend: str) -> None:
    assert set(found) == set(expected)
    for stage, ours in expected.items():
        theirs = found[stage]
        assert theirs.key != ours.key
        assert (ours.provenance.backend, theirs.provenance.backend) == ("engine", backend)
        for name, values in ours.result.arrays.items():
            np.testing.assert_allclose(theirs.result[name], values, rtol=1e-3, atol=1e-4, err_msg=f"{stage} {name}")
        told = {key: value for key, value in theirs.result.facts.items() if key != "model"}
        assert told == {key: value for key, value in ours.result.facts.items() if key != "model"}


@pytest.mark.parametrize("paper", PAPERS)
def test_nnsight_gives_the_engines_numbers(paper: str, model: Path, data: Path, engine: Path) -> None:
    code, said = run(paper, engine, data, "--model", str(model), "--backend", "nnsight")
    assert code == 0, said
    found = results(engine, paper, "-backend-nnsight")
    assert_same(found, results(engine, paper, data.name), "nnsight")
    assert {(one.provenance.device, one.provenance.dtype) for one in found.values()} == {("cpu", "float32")}


TransformersModel = nnsight.TransformersModel


def traced(model: Path) -> Any:
    from transformers import AutoTokenizer

    return TransformersModel(str(model), task="text-generation", tokenizer=AutoTokenizer.from_pretrained(model))


def deployed(*names: str, state: str = "RUNNING") -> Any:
    return lambda path, **_: {
        "deployments": {str(at): {"repo_id": name, "application_state": state} for at, name in enumerate(names)}
    }


@pytest.fixture
def ndif(model: Path, monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """NDIF with `owner/model`, whose traces run here; the model of every trace is noted."""
    from nnsight.intervention.backends.local import LocalSimulationBackend

    asked: list[str] = []
    load = skeletons.load_skeleton

    def loaded(name: str, **options: Any) -> Any:
        asked.append(f"{name} {options['revision']} {options['task']} {options['tokenizer'].vocab_size}")
        return traced(model)

    def sent(self: Any, remote: bool, *_: Any) -> Any:
        assert remote is True
        asked.append("trace")
        return LocalSimulationBackend(self)

    monkeypatch.setattr(nnsight.CONFIG.API, "APIKEY", "a key")
    monkeypatch.setattr(nnsight.ndif, "_get", deployed("Owner/Model", "owner/other"))
    monkeypatch.setattr(skeletons, "load_skeleton", lambda name: load(model))
    monkeypatch.setattr(nnsight, "TransformersModel", loaded)
    monkeypatch.setattr(nnsight.modeling.mixins.remotable.Remotable, "_remote_backend", sent)
    return asked


def test_ndif_gives_the_engines_numbers_and_no_weights_are_loaded(
    ndif: list[str], data: Path, engine: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("interventions.load", pytest.fail)
    code, said = run("function_vectors", tmp_path, data, "--model", "owner/model", "--backend", "ndif")
    assert code == 0, said
    found = results(tmp_path, "function_vectors", "-backend-ndif")
    assert_same(found, results(engine, "function_vectors", data.name), "ndif")
    assert {(one.provenance.device, one.provenance.dtype) for one in found.values()} == {("as served", "as served")}
    assert ndif.count("owner/model main text-generation 500") == len(found)
    assert ndif.count("trace") > 100


class Health(BaseHTTPRequestHandler):
    """The part of a server that is asked before a run."""

    status = 200

    def do_GET(self) -> None:
        self.send_response(self.status if self.path == "/health" else 404)
        self.end_headers()

    def log_message(self, *_: Any) -> None:
        pass


@pytest.fixture
def address(monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    server = ThreadingHTTPServer(("127.0.0.1", 0), Health)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield f"http://127.0.0.1:{server.server_port}"
    server.shutdown()
    server.server_close()


def test_a_server_gives_the_engines_numbers(
    address: str, model: Path, data: Path, engine: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    kind = TransformersModel
    trace, served = kind.trace, []

    def one_prompt(self: Any, tokens: list[int], *, serve: str, temperature: float, max_tokens: int) -> Any:
        served.append((serve, temperature, max_tokens))
        return trace(self, torch.tensor([tokens]), use_cache=False)

    monkeypatch.setattr(kind, "trace", one_prompt)
    monkeypatch.setattr(kind, "logits", property(lambda self: self.output.logits[:, -1]), raising=False)
    monkeypatch.setattr(backends, "_on_server", lambda location, backend: traced(Path(location)))
    monkeypatch.setattr(backends, "_require", lambda package, backend: None)
    code, said = run("task_vectors", engine, data, "--model", str(model), "--backend", address)
    assert code == 0, said
    ending = f"-backend-{address.removeprefix('http://').replace(':', '-')}"
    assert_same(results(engine, "task_vectors", ending), results(engine, "task_vectors", data.name), address)
    assert set(served) == {(address, 0.0, 1)}


def refused(*words: str) -> str:
    """The one line with which a run ends before it begins."""
    code, said = invoke("run", *words)
    assert (code, said.count("\n")) == (2, 1), said
    return said


def test_what_a_backend_lacks_is_said_before_anything_runs(
    ndif: list[str], address: str, model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked = ("task_vectors", "--tier", "paper", "--out", str(tmp_path / "build"))
    hub = (*asked, "--model", "owner/model")
    assert (
        "no backend 'torch'; expected engine, nnsight, ndif, or the address of a server: http://HOST:PORT"
        in refused(*hub, "--backend", "torch")
    )
    assert f"{model} is a folder here, and NDIF runs models of the Hugging Face hub; name one by its id" in refused(
        *asked, "--model", str(model), "--backend", "ndif"
    )
    assert "--device cuda --dtype float32: with --backend ndif the model is not loaded here" in refused(
        *hub, "--backend", "ndif", "--device", "cuda"
    )
    monkeypatch.setattr(nnsight.ndif, "_get", deployed("owner/model", "a/b", state="DEPLOYING"))
    assert "NDIF does not run owner/model now; it runs none; name one of these with --model" in refused(
        *hub, "--backend", "ndif"
    )

    def fail(*_: Any, **__: Any) -> None:
        raise OSError

    monkeypatch.setattr(nnsight.ndif, "_get", fail)
    assert "https://api.ndif.us does not answer; try again later" in refused(*hub, "--backend", "ndif")
    monkeypatch.setattr(nnsight.CONFIG.API, "APIKEY", None)
    assert "--backend ndif: no key for NDIF; get one from https://ndif.us and set NDIF_API_KEY" in refused(
        *hub, "--backend", "ndif"
    )
    dead = "http://127.0.0.1:9"
    said = refused(*hub, "--backend", dead)
    assert f"--backend {dead}: nothing answers there (" in said
    assert "start it there by `nnsight-serve owner/model --host 0.0.0.0 --port PORT`" in said
    assert "vllm is not installed; pip install the server's version of vllm" in refused(*hub, "--backend", address)
    monkeypatch.setattr(Health, "status", 503)
    assert "is no nnsight server, or is not ready (GET /health: 503); wait for it" in refused(
        *hub, "--backend", address
    )
    assert ndif == []
    assert not (tmp_path / "build").exists()


def test_other_papers_run_on_the_engine_alone(tmp_path: Path) -> None:
    assert "induction_heads: runs on the engine alone; leave out --backend nnsight" in refused(
        "induction_heads", "--backend", "nnsight", "--out", str(tmp_path / "build")
    )
    assert not (tmp_path / "build").exists()

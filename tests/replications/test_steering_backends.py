"""`reprise run --backend`: both steering papers give the engine's numbers on every backend, and the same texts.

NDIF and a server are stood in for: every trace is packed as for NDIF and unpacked here, or is run as a server gets it,
a text at a time without padding, of which it gives the last token's logits alone.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from replications.activation_addition import setting as addition
from replications.contrastive_activation_addition import setting as contrastive

import interventions
from interventions import backends, loading, skeletons
from reprise import Result
from steering.traces import Trace

from .activation_addition_runs import ROOT
from .steering_backend_runs import (
    ADDITION,
    CONTRASTIVE,
    FEW,
    FEWEST,
    PAPERS,
    SOME,
    assert_same,
    gpt2_folder,
    llama_folder,
    question_folder,
    run,
)
from .test_backends import deployed, refused, traced

nnsight = pytest.importorskip("nnsight")

ADDRESS = "http://there:8000"
PAIRS = ((ADDITION, "gpt2"), (CONTRASTIVE, "llama"))


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    folder = tmp_path_factory.mktemp("models")
    gpt2 = gpt2_folder(folder / "gpt2")
    return {"gpt2": gpt2, "llama": llama_folder(folder / "llama", gpt2)}


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return question_folder(tmp_path_factory.mktemp("questions"))


@pytest.fixture(autouse=True, scope="module")
def small() -> Iterator[None]:
    """The project's own papers, with few trials."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("REPRISE_ROOT", str(ROOT))
        patch.setitem(addition.TRIALS, "paper", FEW)
        patch.setitem(contrastive.TRIALS, "paper", FEWEST)
        yield


@pytest.fixture(scope="module")
def engine(models: dict[str, Path], data: Path) -> dict[tuple[str, str], dict[str, Result]]:
    """What the engine gives, by paper and model."""
    return {(paper, name): run(paper, models[name], data) for paper, name in PAIRS}


Engine = dict[tuple[str, str], dict[str, Result]]


@pytest.mark.parametrize(("paper", "name"), PAIRS)
def test_nnsight_gives_the_engines_numbers(
    paper: str, name: str, models: dict[str, Path], data: Path, engine: Engine, monkeypatch: pytest.MonkeyPatch
) -> None:
    requests = {"passed": 0, "generated": 0}

    def counted(way: str, run: Any) -> Any:
        def counting(self: Any, *args: Any, **options: Any) -> Any:
            requests[way] += 1
            return run(self, *args, **options)

        return counting

    for way in requests:
        monkeypatch.setattr(Trace, way, counted(way, getattr(Trace, way)))
    found = run(paper, models[name], data, "nnsight")
    assert list(found) == list(engine[paper, name])
    assert_same(found, engine[paper, name])
    assert requests["passed"] > 40
    assert requests["generated"] > 4  # conditions are written together


@pytest.mark.parametrize(("paper", "name"), PAIRS)
def test_ndif_gives_the_engines_numbers_and_no_weights_are_loaded(
    paper: str, name: str, models: dict[str, Path], data: Path, engine: Engine, monkeypatch: pytest.MonkeyPatch
) -> None:
    from nnsight.intervention.backends.local import LocalSimulationBackend

    view, sent = traced(models[name]), []

    def send(self: Any, remote: bool, *_: Any) -> Any:
        assert remote is True
        sent.append(self)
        return LocalSimulationBackend(self)

    load = skeletons.load_skeleton
    monkeypatch.setattr(loading, "load", pytest.fail)
    monkeypatch.setattr(skeletons, "load_skeleton", lambda identifier: load(models[name]))
    monkeypatch.setattr(loading, "_hub_answers", lambda: False)
    monkeypatch.setattr(nnsight, "TransformersModel", lambda *_, **__: view)
    monkeypatch.setattr(nnsight.modeling.mixins.remotable.Remotable, "_remote_backend", send)
    assert_same(run(paper, "owner/model", data, "ndif", SOME[paper]), engine[paper, name])
    assert len(sent) > 20


@pytest.mark.parametrize(("paper", "name"), PAIRS)
def test_a_server_gives_the_engines_numbers(
    paper: str, name: str, models: dict[str, Path], data: Path, engine: Engine, monkeypatch: pytest.MonkeyPatch
) -> None:
    view, kind, served = traced(models[name]), nnsight.TransformersModel, set()
    trace = kind.trace

    def one_text(self: Any, tokens: list[int], *, serve: str, temperature: float, max_tokens: int) -> Any:
        served.add((serve, temperature, max_tokens))
        return trace(self, torch.tensor([tokens]), use_cache=False, logits_to_keep=1)

    monkeypatch.setattr(kind, "trace", one_text)
    monkeypatch.setattr(kind, "logits", property(lambda self: self.output.logits[:, -1]), raising=False)
    monkeypatch.setattr(backends, "_on_server", lambda location, backend: view)
    monkeypatch.setattr(loading, "load", pytest.fail)
    assert_same(run(paper, models[name], data, ADDRESS, SOME[paper]), engine[paper, name])
    assert served == {(ADDRESS, 0.0, 1)}


@pytest.mark.parametrize("paper", PAPERS)
def test_what_a_backend_lacks_is_said_before_anything_runs(
    paper: str, models: dict[str, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(interventions, "load", pytest.fail)
    asked = (paper, "--tier", "paper", "--out", str(tmp_path / "build"))
    hub = (*asked, "--model", "owner/model")
    monkeypatch.setattr(nnsight.CONFIG.API, "APIKEY", None)
    assert "--backend ndif: no key for NDIF; get one from https://ndif.us and set NDIF_API_KEY" in refused(
        *hub, "--backend", "ndif"
    )
    monkeypatch.setattr(nnsight.CONFIG.API, "APIKEY", "a key")
    monkeypatch.setattr(nnsight.ndif, "_get", deployed("a/b"))
    assert "NDIF does not run owner/model now; it runs a/b; name one of these with --model" in refused(
        *hub, "--backend", "ndif"
    )
    folder = models["gpt2"]
    assert f"{folder} is a folder here, and NDIF runs models of the Hugging Face hub; name one by its id" in refused(
        *asked, "--model", str(folder), "--backend", "ndif"
    )
    said = refused(*hub, "--backend", "http://127.0.0.1:9")
    assert "--backend http://127.0.0.1:9: nothing answers there (" in said
    assert "start it there by `nnsight-serve owner/model --host 0.0.0.0 --port PORT`" in said
    assert not (tmp_path / "build").exists()

"""A model by the name of who computes its forward passes: our engine, nnsight here, NDIF, or an nnsight server.

    "engine"              `EngineRunner`, the model in memory; what everything else is compared with
    "nnsight"             `NNsightRunner`, the model in memory
    "ndif"                `NNsightRunner`, on NDIF; here are config, tokenizer and the shapes of the modules alone
    "http://HOST:PORT"    `NNsightRunner`, by `nnsight-serve MODEL` at that address; the same, and vLLM for its modules

What the method asks of a model goes through its runner. One thing needs weights at hand, `rebuild`, whose gradients go
through the final norm and the unembedding; these two alone are brought here (`Backed.readout`), as is for a server what
decodes vectors.

`check` says before a run what would stop it: a package, a key, a server, a model that is not served.
"""

from __future__ import annotations

import contextlib
import http.client
import importlib.util
import io
import urllib.error
import urllib.request
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

import interventions
from function_vectors.engine import EngineRunner
from function_vectors.errors import BackendError
from interventions import Model, Tokenizer

if TYPE_CHECKING:
    from torch import nn

    from function_vectors.runners import Runner

ENGINE, NNSIGHT, NDIF = "engine", "nnsight", "ndif"
ANSWER_WITHIN = 10.0  # seconds for a server to say that it is there


@dataclass(frozen=True)
class Backed:
    """A model and its runner; `model.network` has no weights where somebody else computes."""

    model: Model
    runner: Runner

    @property
    def tokenizer(self) -> Tokenizer:
        """Raises ValueError if the model has none."""
        if self.model.tokenizer is None:
            raise ValueError(
                f"{self.model.name}: no tokenizer, so no task can be shown to it; put its files in the folder"
            )
        return self.model.tokenizer

    @cached_property
    def readout(self) -> nn.Module:
        """The network with weights in its final norm and unembedding at least: what `rebuild` takes.

        Raises:
            ValueError: the weights that came are not those of the model.
        """
        network: nn.Module = self.model.network
        if not any(parameter.is_meta for parameter in network.parameters()):
            return network
        from function_vectors.nnsight_runner import NNsightRunner

        assert isinstance(self.runner, NNsightRunner)
        brought: nn.Module = self.runner.readout
        return brought


def load(
    backend: str, path_or_id: str | Path, *, device: str = "cpu", dtype: str = "float32", batch_size: int = 16
) -> Backed:
    """A model on a backend.

    Args:
        device, dtype: of a model that is loaded here; elsewhere it is as it is served.

    Raises:
        ModelError: the model, or its config, cannot be loaded.
        BackendError: nnsight or vLLM is not installed; a folder that is meant for NDIF.
    """
    if backend in (ENGINE, NNSIGHT):
        model = interventions.load(path_or_id, device=device, dtype=getattr(torch, dtype))
        if backend == ENGINE:
            return Backed(model, EngineRunner(model.network, batch_size=batch_size))
    from interventions.skeletons import load_skeleton

    _require("nnsight", backend)
    from function_vectors.nnsight_runner import NNsightRunner

    if backend == NNSIGHT:
        return Backed(model, NNsightRunner(model.nnsight, batch_size=batch_size))
    model = load_skeleton(path_or_id)
    if backend == NDIF:
        return Backed(model, NNsightRunner(_on_ndif(str(path_or_id), model), batch_size=batch_size, remote=True))
    return Backed(model, NNsightRunner(_on_server(str(path_or_id), backend), batch_size=batch_size, serve=backend))


def check(backend: str, path_or_id: str | Path) -> None:
    """Refuse a backend that would not work for a model, without loading it.

    NDIF is asked whether it runs the model, a server whether it is there (it does not tell which model it has).

    Raises:
        BackendError: one line with what is missing and what to do.
    """
    if backend == ENGINE:
        return
    _require("nnsight", backend)
    if backend == NDIF:
        _check_ndif(str(path_or_id))
    elif backend != NNSIGHT:
        _check_server(backend, str(path_or_id))
        _require("vllm", backend)


def _require(package: str, backend: str) -> None:
    if importlib.util.find_spec(package) is None:
        needed = {
            "nnsight": "pip install 'reprise-function-vectors[nnsight]'",
            "vllm": "pip install the server's version of vllm (it builds the model's modules and needs no GPU here)",
        }
        raise BackendError(f"--backend {backend}: {package} is not installed; {needed[package]}")


def _check_ndif(location: str) -> None:
    import nnsight

    _refuse_folder(location)
    if not nnsight.CONFIG.API.APIKEY:
        raise BackendError(
            "--backend ndif: no key for NDIF; get one from https://ndif.us and set NDIF_API_KEY, or let "
            "`nnsight.login()` store it"
        )
    with contextlib.redirect_stderr(io.StringIO()):  # it would tell the same there, in several lines
        deployed = nnsight.ndif.status(raw=True).get("deployments")
    if deployed is None:
        raise BackendError(f"--backend ndif: {nnsight.CONFIG.API.HOST} does not answer; try again later")
    running = {str(of.get("repo_id")) for of in deployed.values() if of.get("application_state") == "RUNNING"}
    wanted = location.partition("@")[0]
    if wanted.casefold() not in {name.casefold() for name in running}:
        raise BackendError(
            f"--backend ndif: NDIF does not run {wanted} now; it runs {', '.join(sorted(running)) or 'none'}; name one "
            "of these with --model, or ask NDIF for yours"
        )


def _refuse_folder(location: str) -> None:
    if Path(location).is_dir():
        raise BackendError(
            f"--backend ndif: {location} is a folder here, and NDIF runs models of the Hugging Face hub; name one by "
            "its id with --model owner/model"
        )


def _check_server(address: str, location: str) -> None:
    start = f"start it there by `nnsight-serve {location} --host 0.0.0.0 --port PORT`"
    try:
        urllib.request.urlopen(f"{address}/health", timeout=ANSWER_WITHIN).close()
    except urllib.error.HTTPError as error:
        raise BackendError(
            f"--backend {address}: the server there is no nnsight server, or is not ready (GET /health: {error.code}); "
            f"wait for it, or {start}"
        ) from error
    except (OSError, http.client.HTTPException) as error:
        raise BackendError(f"--backend {address}: nothing answers there ({error}); {start}") from error


def _on_ndif(identifier: str, model: Model) -> Any:
    import nnsight

    _refuse_folder(identifier)
    nnsight.CONFIG.APP.REMOTE_LOGGING = False  # a line for every trace, on standard output
    name, _, revision = identifier.partition("@")
    tokenizer = getattr(model.tokenizer, "transformers", None)  # nnsight would fetch it once more
    return nnsight.TransformersModel(name, revision=revision or "main", task="text-generation", tokenizer=tokenizer)


def _on_server(location: str, backend: str) -> Any:
    _require("vllm", backend)
    from nnsight.modeling.vllm import VLLM

    return VLLM(location)

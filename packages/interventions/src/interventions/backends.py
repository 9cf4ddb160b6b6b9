"""A model by the name of who computes its forward passes: the engine, nnsight here, NDIF, or an nnsight server.

    "engine"              `Model`, the network in memory
    "nnsight"             `Traced`, the network in memory and run through nnsight
    "ndif"                `Traced`, run on NDIF; here are config, tokenizer and the shapes of the modules alone
    "http://HOST:PORT"    `Traced`, run by `nnsight-serve MODEL` at that address; the same, and vLLM for its modules

A package that takes part asks whether a model is `Traced`, and then runs its passes in traces of `view`. `check` says
before a run what would stop it: a package, a key, a server, a model that is not served.
"""

from __future__ import annotations

import contextlib
import http.client
import importlib.util
import io
import urllib.error
import urllib.request
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from interventions import loading, skeletons
from interventions.loading import Model, _hub_answers

ENGINE, NNSIGHT, NDIF = "engine", "nnsight", "ndif"
ANSWER_WITHIN = 10.0  # seconds for a server to say that it is there


class BackendError(ValueError):
    """A way to run a model that would not work: a package, a key, a server or a model is missing."""


@dataclass(frozen=True)
class Traced(Model):
    """A model whose passes are traces of `view`; `network` has no weights where somebody else computes.

    `remote` is passed to every trace: True for NDIF, a host, or "local"; so is `serve`, the address of a server.
    """

    view: Any
    remote: bool | str = False
    serve: str | None = None

    @property
    def nnsight(self) -> Any:
        return self.view


def load(backend: str, path_or_id: str | Path, *, device: str = "cpu", dtype: torch.dtype = torch.float32) -> Model:
    """A model on a backend; `Traced` on all but the engine.

    Args:
        device, dtype: of a model that is loaded here; elsewhere it is as it is served.

    Raises:
        ModelError: the model, or its config, cannot be loaded.
        BackendError: nnsight or vLLM is not installed; a folder that is meant for NDIF; capped logits on a server.
    """
    if backend == ENGINE:
        return loading.load(path_or_id, device=device, dtype=dtype)
    _require("nnsight", backend)
    if backend == NNSIGHT:
        model = loading.load(path_or_id, device=device, dtype=dtype)
        return Traced(model.name, model.network, model.tokenizer, model.bos, model.nnsight)
    model = skeletons.load_skeleton(path_or_id)
    _read_generation_config(model, str(path_or_id))
    if backend == NDIF:
        view, remote, serve = _on_ndif(str(path_or_id), model), True, None
    else:
        if getattr(model.network.config.get_text_config(), "final_logit_softcapping", None) is not None:
            raise BackendError(
                f"--backend {backend}: {model.name} caps its logits, and a server gives them behind the cap alone; use "
                "ndif, or the engine"
            )
        view, remote, serve = _on_server(str(path_or_id), backend), False, backend
    return Traced(model.name, model.network, model.tokenizer, model.bos, view, remote, serve)


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
            "nnsight": "pip install 'reprise-interventions[nnsight]'",
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


def _read_generation_config(model: Model, location: str) -> None:
    """Which tokens end a text: a model's generation settings may know more of them than its config."""
    from transformers import GenerationConfig

    local = Path(location).is_dir()
    name, _, revision = (location, "", "") if local else location.partition("@")
    options = {"revision": revision or "main", "local_files_only": local or not _hub_answers()}
    with contextlib.suppress(OSError):  # a model need not have that file
        model.network.generation_config = GenerationConfig.from_pretrained(name, **options)


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

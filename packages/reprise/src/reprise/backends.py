"""`--backend`: by whom a paper's forward passes are computed.

    engine              in this process, by `interventions`' engine; every paper, and the default
    nnsight             in this process, through nnsight
    ndif                on NDIF, through nnsight
    http://HOST:PORT    by an nnsight server

A stage finds it as `Job.backend`, and it counts as input of every stage. This package knows the names alone: a paper
that runs on others than the engine defines in its experiment.py

    CHECK_BACKEND = check       check(backend, location), raises one line if a run on that model could not work

which is called before anything is computed: is the package installed, is there a key, does the server answer?
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

from reprise.errors import UserError

if TYPE_CHECKING:
    from reprise.experiment import Experiment
    from reprise.run import Request

ENGINE = "engine"
HERE = (ENGINE, "nnsight")
NAMES = (*HERE, "ndif")
AS_SERVED = "as served"  # number format and device of a model that is not loaded here


def parse(text: str) -> str:
    """A backend's name, or the address of a server without a slash at its end.

    Raises:
        UserError: it is neither.
    """
    if text in NAMES:
        return text
    try:
        parts = urlsplit(text)
        port = parts.port
    except ValueError:
        parts, port = urlsplit(""), None
    whole = parts.scheme in ("http", "https") and parts.hostname and port
    if not whole or parts.username is not None or parts.path.strip("/") or parts.query or parts.fragment:
        raise UserError(
            f"no backend {text!r}; expected engine, nnsight, ndif, or the address of a server: http://HOST:PORT"
        )
    return f"{parts.scheme}://{parts.netloc}"


def is_here(backend: str) -> bool:
    """Whether the model is loaded in this process, so that `--device` and `--dtype` say how."""
    return backend in HERE


def slug(backend: str) -> str:
    """A backend as part of a file name."""
    return re.sub(r"[^\w.-]+", "-", backend.partition("://")[2] or backend)


def check(request: Request, experiment: Experiment) -> None:
    """Refuse a backend on which a run would not work, before anything is computed.

    Raises:
        UserError: the paper runs on the engine alone, or a device or number format is asked for that somebody else
            decides on; what the paper's own check raises.
    """
    backend = request.backend
    if backend == ENGINE:
        return
    paper = request.paper.slug
    if experiment.check_backend is None:
        raise UserError(
            f"{paper}: runs on the engine alone; leave out --backend {backend} (a paper whose stages read Job.backend "
            "says so by CHECK_BACKEND in its experiment.py)"
        )
    if request.paper.tier(request.tier).trains:
        raise UserError(f"{paper}: tier {request.tier!r} trains its networks itself; leave out --backend {backend}")
    if not is_here(backend) and (request.device, request.dtype) != ("cpu", "float32"):
        raise UserError(
            f"--device {request.device} --dtype {request.dtype}: with --backend {backend} the model is not loaded "
            "here, so that its server decides on both; leave them out"
        )
    for reference in request.references():
        experiment.check_backend(backend, reference.location)

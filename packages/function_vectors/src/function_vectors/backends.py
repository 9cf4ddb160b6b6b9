"""A model by the name of who computes its forward passes: our engine, nnsight here, NDIF, or an nnsight server.

    "engine"              `EngineRunner`, the model in memory; what everything else is compared with
    "nnsight"             `NNsightRunner`, the model in memory
    "ndif"                `NNsightRunner`, on NDIF; here are config, tokenizer and the shapes of the modules alone
    "http://HOST:PORT"    `NNsightRunner`, by `nnsight-serve MODEL` at that address; the same, and vLLM for its modules

What the method asks of a model goes through its runner. One thing needs weights at hand, `rebuild`, whose gradients go
through the final norm and the unembedding; these two alone are brought here (`Backed.readout`), as is for a server what
decodes vectors.

`check` is that of `interventions.backends`.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING

import torch

import interventions.backends
from function_vectors.engine import EngineRunner
from interventions import Model, Tokenizer
from interventions.backends import Traced, check

if TYPE_CHECKING:
    from torch import nn

    from function_vectors.runners import Runner

__all__ = ["Backed", "check", "load"]


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
        BackendError: as `interventions.backends.load`.
    """
    model = interventions.backends.load(backend, path_or_id, device=device, dtype=getattr(torch, dtype))
    if not isinstance(model, Traced):
        return Backed(model, EngineRunner(model.network, batch_size=batch_size))
    from function_vectors.nnsight_runner import NNsightRunner

    runner = NNsightRunner(model.view, batch_size=batch_size, remote=model.remote, serve=model.serve)
    return Backed(model, runner)

"""One traced forward pass: what is read and written in it, at the last tokens of its rows.

The body of a trace is packed as its source and the variables that it names, and may run elsewhere. So it names tensors,
numbers, tuples and nnsight's own modules alone, and brings back answers rather than logits.

nnsight 0.8 serves values in the order in which the model computes them: within a layer z before the layer's output.
A write is made in place, on the tensor that the model goes on with. On a padded batch activations are [row, pos, width]
and on a vLLM engine, which has no padding and one row here, [pos, width]: `[..., -1, :]` is the last token of both.
"""

from __future__ import annotations

import inspect
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import reduce
from typing import Any, Literal, NamedTuple

import torch
from jaxtyping import Float, Int
from torch import Tensor

from interventions import Prompts
from interventions.hooks import Modules


class ZEdit(NamedTuple):
    """At the last token of rows `first` to `last`, columns `start` to `stop` of the joined z become `values`."""

    first: int
    last: int
    start: int
    stop: int
    values: Tensor


class RowEdit(NamedTuple):
    """`back` tokens from the end of rows `first` to `last`: the stream plus `values`, or `values` in its place."""

    back: int
    first: int
    last: int
    values: Tensor
    replace: bool


@dataclass(frozen=True)
class Seen:
    """What a trace brought back, on the CPU.

    `best` is the token of highest logit (among the candidates where there are some), `probability` that of the token
    asked about (NaN where none was); `kept` has the last token's z or stream of every layer, float32.
    """

    best: Int[Tensor, " row"]
    probability: Float[Tensor, " row"]
    kept: Float[Tensor, "row layer width"] | None


@dataclass(frozen=True)
class Tracer:
    """An nnsight model, the modules that are read and written, and where it runs."""

    model: Any
    modules: Modules
    remote: bool | str
    serve: str | None
    layers: list[Any] = field(init=False)
    projections: list[Any] = field(init=False)

    def __post_init__(self) -> None:
        row = self.modules.architecture
        layers = list(reached(self.model, row.layers))
        object.__setattr__(self, "layers", layers)
        object.__setattr__(self, "projections", [reached(layer, row.output_projection) for layer in layers])

    @torch.no_grad()
    def run(
        self,
        prompts: Prompts,
        *,
        keep: Literal["z", "stream"] | None = None,
        tokens: Int[Tensor, " row"] | None = None,
        candidates: Int[Tensor, " choice"] | None = None,
        z_edits: Mapping[int, Sequence[ZEdit]] | None = None,
        row_edits: Mapping[int, Sequence[RowEdit]] | None = None,
    ) -> Seen:
        """One forward pass; edits by layer.

        Args:
            tokens: whose probability comes back, one a row.
            candidates: among which `best` is looked for, instead of all tokens.
        """
        inputs, options = self._call(prompts)
        model, layers, projections, n = self.model, self.layers, self.projections, len(prompts)
        served = self.serve is not None
        at_z: dict[int, Any] = {at: [tuple(edit) for edit in edits] for at, edits in (z_edits or {}).items()}
        at_rows: dict[int, Any] = {at: [tuple(edit) for edit in edits] for at, edits in (row_edits or {}).items()}
        asked = torch.zeros(n, dtype=torch.long) if tokens is None else tokens
        with model.trace(inputs, **options):
            kept: Any = []
            kept.save()
            for at in range(len(layers)):
                if keep == "z" or at in at_z:
                    z = projections[at].input[..., -1, :].reshape(n, -1)
                    for first, last, start, stop, values in at_z.get(at, ()):
                        z[first:last, start:stop] = values.to(z)
                    if keep == "z":
                        kept.append(z.float().cpu().clone())
                if keep == "stream" or at in at_rows:
                    output = layers[at].output
                    stream = output[0] if isinstance(output, tuple) else output
                    beside = None  # what a vLLM layer leaves to be added by the next one
                    if isinstance(output, tuple) and len(output) == 2 and isinstance(output[1], torch.Tensor):
                        beside = output[1] if output[1].shape == stream.shape else None
                    for back, first, last, values, replace in at_rows.get(at, ()):
                        row = stream[..., -back, :].reshape(n, -1)[first:last]
                        rest = None if beside is None else beside[..., -back, :].reshape(n, -1)[first:last]
                        if replace:
                            row[:] = values.to(row) if rest is None else values.to(row) - rest
                        else:
                            row += values.to(row)
                    if keep == "stream":
                        whole = stream if beside is None else stream + beside
                        kept.append(whole[..., -1, :].reshape(n, -1).float().cpu().clone())
            logits = (model.logits if served else model.output.logits[:, -1]).reshape(n, -1).float()
            among = logits if candidates is None else logits[:, candidates.to(logits.device)]
            best = among.argmax(dim=-1).cpu().save()
            chosen = logits.gather(1, asked.to(logits.device)[:, None])[:, 0]
            probability = (chosen - logits.logsumexp(dim=-1)).exp().cpu().save()
        return Seen(
            best=best if candidates is None else candidates.cpu()[best],
            probability=torch.full((n,), torch.nan) if tokens is None else probability,
            kept=torch.stack(list(kept), dim=1) if keep else None,
        )

    @torch.no_grad()
    def call(self, modules: Sequence[Any], inputs: Float[Tensor, "call row width"]) -> Float[Tensor, "call row out"]:
        """What some modules of the model make of inputs of one's own, in its number format."""
        first, options = self._call(Prompts(torch.tensor([[0]])))
        model = self.model
        with model.trace(first, **options):
            kept: Any = []
            kept.save()
            for module, x in zip(modules, inputs, strict=True):
                output = module(x.to(next(module.parameters())))
                kept.append((output[0] if isinstance(output, tuple) else output).float().cpu())
        return torch.stack(list(kept))

    @torch.no_grad()
    def parameters(self, modules: Sequence[Any]) -> list[dict[str, Tensor]]:
        """The parameters of some modules by their names, on the CPU in their own number format."""
        first, options = self._call(Prompts(torch.tensor([[0]])))
        model = self.model
        with model.trace(first, **options):
            kept: Any = []
            kept.save()
            for module in modules:
                of_module = {}
                for name, parameter in module.named_parameters():
                    of_module[name] = parameter.detach().cpu().clone()
                kept.append(of_module)
        return [dict(of_module) for of_module in kept]

    def _call(self, prompts: Prompts) -> tuple[Any, dict[str, Any]]:
        """The trace's input and its other arguments."""
        if self.serve is not None:
            real = prompts.tokens[0] if prompts.valid is None else prompts.tokens[0][prompts.valid[0]]
            return real.tolist(), {"serve": self.serve, "temperature": 0.0, "max_tokens": 1}
        options: dict[str, Any] = {"use_cache": False, "logits_to_keep": 1}
        if self.remote:
            options["remote"] = self.remote
        if prompts.valid is not None:
            options["attention_mask"] = prompts.valid.long()
            network: Any = self.modules.network
            if "position_ids" in inspect.signature(network.base_model.forward).parameters:
                options["position_ids"] = prompts.position_ids
        return prompts.tokens, options


def reached(root: Any, path: str) -> Any:
    """The nnsight module at a dotted path."""
    return reduce(getattr, path.split("."), root)

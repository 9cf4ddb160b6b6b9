"""The method's operations through nnsight: for models that do not fit here, on NDIF or against an nnsight server.

    NNsightRunner(interventions.load(folder).nnsight)                             here
    NNsightRunner(TransformersModel("EleutherAI/gpt-j-6b"), remote=True)          every trace runs on NDIF
    NNsightRunner(VLLM("EleutherAI/gpt-j-6b"), serve="http://host:8000")          every trace runs on that server

Every cell of a sweep is a row of a traced forward pass: a copy of the prompts in which one head's z, or the stream of
one layer, is written over (`nnsight_traces`). `copies` of them share a trace, and answers come back, not logits. The
numbers are those of `engine.EngineRunner`, at the cost of a forward pass for each cell.

A vLLM engine takes one prompt a request: with `serve` each trace has one row. Its unembedding cannot be called, so that
vectors are decoded here, by the final norm and the unembedding that `readout` brings. That way follows what nnsight
0.8.1's VLLM wrapper says of itself; it was never run against a server. `remote="local"` sends every trace through the
packing of a remote one.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any, Literal

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from function_vectors.nnsight_traces import RowEdit, Tracer, ZEdit, reached
from function_vectors.runners import StreamEdit, batches, check_edits, check_generation, check_layers
from interventions import Prompts, SweepResult
from interventions.hooks import Modules
from interventions.network import unembed
from interventions.skeletons import filled, skeleton_of


@dataclass(frozen=True)
class NNsightRunner:
    """An nnsight model; a `function_vectors.runners.Runner`.

    Args:
        model: such as `interventions.Model.nnsight`, or nnsight's TransformersModel or VLLM; in evaluation mode.
        batch_size: prompts at a time.
        copies: cells of a sweep at a time; a trace has up to copies x batch_size rows.
        remote: passed to every trace: True for NDIF, a host, or "local".
        serve: passed to every trace: the address of an nnsight server.

    Raises:
        ModelError: on first use, an architecture that `interventions` has no row for.
        ValueError: on first use, a model that would run here in training mode.
    """

    model: Any
    batch_size: int = 16
    copies: int = 8
    remote: bool | str = False
    serve: str | None = None

    @cached_property
    def _tracer(self) -> Tracer:
        here = not self.remote and self.serve is None and getattr(self.model, "dispatched", True)
        if here and self.model._module.training:
            raise ValueError("the nnsight model is in training mode: expected no dropout; call .eval() on the network")
        return Tracer(self.model, Modules(self.model._module), self.remote, self.serve)

    @property
    def _modules(self) -> Modules:
        return self._tracer.modules

    @property
    def n_layers(self) -> int:
        return len(self._modules)

    @property
    def n_heads(self) -> int:
        return self._modules.n_heads

    @property
    def norm_behind_attention(self) -> bool:
        return self._modules.architecture.attention_out != self._modules.architecture.attention

    def last_z(self, prompts: Prompts) -> Float[Tensor, "prompt layer head d_head"]:
        found = self._kept(prompts, "z")
        return found.view(*found.shape[:2], self.n_heads, -1)

    def last_stream(self, prompts: Prompts) -> Float[Tensor, "prompt layer d_model"]:
        return self._kept(prompts, "stream")

    def projected(self, inputs: Float[Tensor, "layer row width"]) -> Float[Tensor, "layer row d_model"]:
        return self._tracer.call(self._tracer.projections, inputs)

    def normed(self, outputs: Float[Tensor, "layer row d_model"]) -> Float[Tensor, "layer row d_model"]:
        path = self._modules.architecture.attention_out
        return self._tracer.call([reached(layer, path) for layer in self._tracer.layers], outputs)

    @cached_property
    def readout(self) -> nn.Module:
        """The network with the weights of its final norm and unembedding, in float32, brought here; others are absent.

        Raises:
            ValueError: what came is of another shape, as of a part of an unembedding that is split over devices.
        """
        network = skeleton_of(self._modules.network.config)
        paths = (self._modules.architecture.final_norm, _path_of_unembedding(network))
        weights = self._tracer.parameters([reached(self.model, path) for path in paths])
        return filled(network, dict(zip(paths, weights, strict=True)))

    def decoded(self, vectors: Float[Tensor, "row d_model"]) -> Float[Tensor, "row d_vocab"]:
        if self.serve is not None:
            modules = Modules(self.readout)
            with torch.no_grad():
                return unembed(modules, modules.final_norm(vectors.float()))
        network: Any = self._modules.network
        x = vectors[None]
        for path in (self._modules.architecture.final_norm, _path_of_unembedding(network)):
            x = self._tracer.call([reached(self.model, path)], x)
        cap = getattr(network.config, "final_logit_softcapping", None)
        return x[0] if cap is None else torch.tanh(x[0] / cap) * cap

    def with_head_replaced(
        self, prompts: Prompts, tokens: Int[Tensor, " prompt"], z: Float[Tensor, "layer head d_head"]
    ) -> SweepResult:
        n_layers, n_heads, d_head = z.shape
        values, clean = torch.empty(len(prompts), n_layers * n_heads), torch.empty(len(prompts))
        for rows in self._batches(prompts):
            some, right = prompts.rows(rows), tokens[rows]
            clean[rows] = self._tracer.run(some, tokens=right).probability
            for cells in self._chunks(n_layers * n_heads):
                edits: dict[int, list[ZEdit]] = {}
                for copy, (layer, head) in enumerate(divmod(cell, n_heads) for cell in range(cells.start, cells.stop)):
                    first, start = copy * len(some), head * d_head
                    edit = ZEdit(first, first + len(some), start, start + d_head, z[layer, head])
                    edits.setdefault(layer, []).append(edit)
                n = cells.stop - cells.start
                seen = self._tracer.run(_repeated(some, n), tokens=right.repeat(n), z_edits=edits)
                values[rows, cells] = seen.probability.view(n, -1).mT
        return SweepResult(
            values=values.view(-1, n_layers, n_heads),
            clean=clean,
            axes=("layer", "head"),
            coordinates={"layer": tuple(range(n_layers)), "head": tuple(range(n_heads))},
            component="z",
            metric="probability",
        )

    def predictions(self, prompts: Prompts, candidates: Int[Tensor, " choice"] | None = None) -> Int[Tensor, " prompt"]:
        parts = [self._tracer.run(prompts.rows(rows), candidates=candidates) for rows in self._batches(prompts)]
        return torch.cat([seen.best for seen in parts])

    def predictions_and_z(
        self, prompts: Prompts
    ) -> tuple[Int[Tensor, " prompt"], Float[Tensor, "prompt layer head d_head"]]:
        return self.predictions(prompts), self.last_z(prompts)

    def predictions_by_layer(
        self,
        prompts: Prompts,
        edit: StreamEdit,
        layers: Sequence[int],
        candidates: Int[Tensor, " choice"] | None = None,
    ) -> Int[Tensor, "prompt layer"]:
        check_layers(layers, self.n_layers)
        edit.check(len(prompts), self.n_layers)
        found = torch.empty(len(prompts), len(layers), dtype=torch.long)
        for rows in self._batches(prompts):
            some = prompts.rows(rows)
            for cells in self._chunks(len(layers)):
                edits = {}
                for copy, layer in enumerate(layers[cells]):
                    first = copy * len(some)
                    edits[layer] = [RowEdit(1, first, first + len(some), edit.at(layer, rows), edit.replace)]
                n = cells.stop - cells.start
                seen = self._tracer.run(_repeated(some, n), candidates=candidates, row_edits=edits)
                found[rows, cells] = seen.best.view(n, -1).mT
        return found

    def predictions_by_edit(
        self,
        prompts: Prompts,
        edits: Sequence[StreamEdit],
        layers: Sequence[int],
        candidates: Int[Tensor, " choice"] | None = None,
    ) -> Int[Tensor, "prompt edit layer"]:
        check_edits(edits, layers, len(prompts), self.n_layers)
        return torch.stack([self.predictions_by_layer(prompts, edit, layers, candidates) for edit in edits], dim=1)

    def generated(
        self,
        prompts: Prompts,
        n_tokens: int,
        *,
        edit: StreamEdit | None = None,
        layer: int = 0,
        every_step: bool = False,
    ) -> Int[Tensor, "prompt token"]:
        check_generation(edit, layer, n_tokens, every_step, self.n_layers)
        if edit is not None:
            edit.check(len(prompts), self.n_layers)
        found = []
        for rows in self._batches(prompts):
            some = prompts.rows(rows)
            for step in range(n_tokens):
                # The whole text is run again for each token; its last `step` tokens are new.
                backs = range(1, step + 2) if every_step else [step + 1]
                at = [] if edit is None else [(back, edit.at(layer, rows), edit.replace) for back in backs]
                edits = {layer: [RowEdit(back, 0, len(some), values, replace) for back, values, replace in at]}
                some = _extended(some, self._tracer.run(some, row_edits=edits).best)
            found.append(some.tokens[:, -n_tokens:].cpu())
        return torch.cat(found)

    def _kept(self, prompts: Prompts, what: Literal["z", "stream"]) -> Float[Tensor, "prompt layer width"]:
        parts = [self._tracer.run(prompts.rows(rows), keep=what).kept for rows in self._batches(prompts)]
        return torch.cat([part for part in parts if part is not None])

    def _batches(self, prompts: Prompts) -> Iterator[slice]:
        return batches(len(prompts), self.batch_size if self.serve is None else 1)

    def _chunks(self, n: int) -> Iterator[slice]:
        return batches(n, self.copies if self.serve is None else 1)


def _path_of_unembedding(network: Any) -> str:
    head = network.get_output_embeddings()
    return str(next(path for path, module in network.named_modules() if module is head))


def _repeated(prompts: Prompts, copies: int) -> Prompts:
    """All prompts, then all of them again."""
    valid = None if prompts.valid is None else prompts.valid.repeat(copies, 1)
    return Prompts(prompts.tokens.repeat(copies, 1), valid)


def _extended(prompts: Prompts, new: Int[Tensor, " prompt"]) -> Prompts:
    """The prompts with one more token each."""
    tokens = torch.cat([prompts.tokens, new[:, None].to(prompts.tokens)], dim=1)
    if prompts.valid is None:
        return Prompts(tokens)
    return Prompts(tokens, torch.cat([prompts.valid, torch.ones_like(new[:, None], dtype=torch.bool)], dim=1))

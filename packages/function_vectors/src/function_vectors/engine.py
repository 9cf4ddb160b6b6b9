"""The method's operations by the engine of `interventions`: all heads, and all layers, in about one pass.

Replacing one head's z, or editing the stream of one layer, at the last token changes one row of the prompt: every cell
is a branch of that one row over the shared prompt (`interventions.branching`), so that a sweep over all heads costs
about one forward pass, and is exact. With `batch_size` prompts at a time, of similar lengths, memory does not grow with
their number, and few rows are padding.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from function_vectors.batching import in_order, of_like_length
from function_vectors.runners import StreamEdit, batches, check_edits, check_generation
from interventions import (
    Add,
    Edit,
    Given,
    LastPass,
    Metric,
    Prompts,
    Site,
    SweepResult,
    edited,
    probability,
    sweep,
)
from interventions.hooks import Modules
from interventions.network import final_hidden, inference, unembed


@dataclass(frozen=True)
class EngineRunner:
    """A Hugging Face network (or `interventions`' attention-only one) in memory; a `function_vectors.runners.Runner`.

    Args:
        batch_size: prompts at a time.
        budget: bytes that the branches of one pass may take, about; None for what `interventions.sweep` chooses.

    Raises:
        ModelError: on first use, an architecture that `interventions` has no row for.
    """

    network: nn.Module
    batch_size: int = 16
    budget: int | None = None

    @cached_property
    def _modules(self) -> Modules:
        return Modules(self.network)

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
        return self._at_last_token(prompts, "z")

    def last_stream(self, prompts: Prompts) -> Float[Tensor, "prompt layer d_model"]:
        return self._at_last_token(prompts, "resid_post")

    def projected(self, inputs: Float[Tensor, "layer row width"]) -> Float[Tensor, "layer row d_model"]:
        return torch.stack([_in_float32(self._modules.output_projection(at), x) for at, x in enumerate(inputs)])

    def normed(self, outputs: Float[Tensor, "layer row d_model"]) -> Float[Tensor, "layer row d_model"]:
        path = self._modules.architecture.attention_out
        norms = [layer.get_submodule(path) for layer in self._modules.layers]
        return torch.stack([_in_float32(norm, x) for norm, x in zip(norms, outputs, strict=True)])

    def decoded(self, vectors: Float[Tensor, "row d_model"]) -> Float[Tensor, "row d_vocab"]:
        with inference(self.network):
            weight = next(self._modules.final_norm.parameters())
            return unembed(self._modules, self._modules.final_norm(vectors.to(weight))).cpu()

    def with_head_replaced(
        self, prompts: Prompts, tokens: Int[Tensor, " prompt"], z: Float[Tensor, "layer head d_head"]
    ) -> SweepResult:
        probability(tokens).check(len(prompts))
        given = Given({layer: values[None, None] for layer, values in enumerate(z)})
        parts = [
            sweep(
                self.network,
                some,
                given,
                probability(tokens[places]),
                component="z",
                over=("layer", "head"),
                budget=self.budget,
            )
            for places, some in of_like_length(prompts, self.batch_size)
        ]
        return replace(
            parts[0],
            values=in_order(prompts, [part.values for part in parts]),
            clean=in_order(prompts, [part.clean for part in parts]),
        )

    def predictions(self, prompts: Prompts, candidates: Int[Tensor, " choice"] | None = None) -> Int[Tensor, " prompt"]:
        found = []
        with inference(self.network):
            for _, some in of_like_length(prompts, self.batch_size):
                last = final_hidden(self._modules, some)[:, -1]
                found.append(_best(unembed(self._modules, last), candidates))
        return in_order(prompts, found)

    def predictions_and_z(
        self, prompts: Prompts
    ) -> tuple[Int[Tensor, " prompt"], Float[Tensor, "prompt layer head d_head"]]:
        best, z, seen = list[Tensor](), list[Tensor](), list[Tensor]()

        def see(x: Tensor) -> None:
            seen.append(x[:, -1].to("cpu", torch.float32, copy=True))

        with inference(self.network):
            for _, some in of_like_length(prompts, self.batch_size):
                seen.clear()
                hidden = final_hidden(self._modules, some, {("z", layer): see for layer in range(self.n_layers)})
                best.append(_best(unembed(self._modules, hidden[:, -1]), None))
                z.append(torch.stack(seen, dim=1))
        return in_order(prompts, best), in_order(prompts, z)

    def predictions_by_layer(
        self,
        prompts: Prompts,
        edit: StreamEdit,
        layers: Sequence[int],
        candidates: Int[Tensor, " choice"] | None = None,
    ) -> Int[Tensor, "prompt layer"]:
        return self.predictions_by_edit(prompts, [edit], layers, candidates)[:, 0]

    def predictions_by_edit(
        self,
        prompts: Prompts,
        edits: Sequence[StreamEdit],
        layers: Sequence[int],
        candidates: Int[Tensor, " choice"] | None = None,
    ) -> Int[Tensor, "prompt edit layer"]:
        check_edits(edits, layers, len(prompts), self.n_layers)
        # Token ids are exact in float32 up to 2^24.
        metric = Metric("prediction", None, lambda logits, _: _best(logits, candidates).float())
        found = []
        for places, some in of_like_length(prompts, self.batch_size):
            last_pass, clean = LastPass(self.network), self._clean(some, edits)
            values = [
                sweep(
                    self.network,
                    some,
                    _as_edit(edit, places, layers, clean),
                    metric,
                    component="resid_post",
                    over=("layer",),
                    layers=layers,
                    budget=self.budget,
                    recordings=last_pass,
                ).values.long()
                for edit in edits
            ]
            found.append(torch.stack(values, dim=1))
        return in_order(prompts, found)

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
        longest = getattr(self.network.config, "max_position_embeddings", None)
        if isinstance(longest, int) and prompts.length + n_tokens - 1 > longest:
            raise ValueError(
                f"{n_tokens} tokens behind prompts of {prompts.length}: expected at most {longest} positions, as the "
                f"model has; generate fewer tokens, or use fewer shots"
            )
        found = []
        if edit is not None:
            edit.check(len(prompts), self.n_layers)
        site = Site("resid_post", layer, position=-1)
        with inference(self.network):
            for rows in batches(len(prompts), self.batch_size):
                edits = {} if edit is None else {site: _on_rows(edit.at(layer, rows), edit.replace)}
                found.append(self._greedy(prompts.rows(rows), n_tokens, edits, every_step))
        return torch.cat(found)

    def _at_last_token(self, prompts: Prompts, component: str) -> Float[Tensor, "prompt layer ..."]:
        found: list[Tensor] = []
        seen: list[Tensor] = []

        def see(x: Tensor) -> None:
            seen.append(x[:, -1].to("cpu", torch.float32, copy=True))
            if len(seen) == self.n_layers:
                raise _Enough

        with inference(self.network):
            for _, some in of_like_length(prompts, self.batch_size):
                seen.clear()
                with suppress(_Enough):
                    final_hidden(self._modules, some, {(component, layer): see for layer in range(self.n_layers)})
                found.append(torch.stack(seen, dim=1))
        return in_order(prompts, found)

    def _clean(self, prompts: Prompts, edits: Sequence[StreamEdit]) -> Float[Tensor, "prompt layer d_model"] | None:
        """The stream, in the network's own precision, where an edit adds to it what differs by layer or prompt."""
        if all(edit.replace or edit.values.shape[:2] == (1, 1) for edit in edits):
            return None
        return self.last_stream(prompts).to(next(self.network.parameters()).dtype)

    def _greedy(
        self, prompts: Prompts, n_tokens: int, edits: Mapping[Site, Callable[[Tensor], Tensor]], every_step: bool
    ) -> Int[Tensor, "prompt token"]:
        """The tokens of highest logits, one after the other, with the network's own cache."""
        network: Any = self.network
        prompts = prompts.to(next(network.parameters()).device)
        tokens, positions = prompts.tokens, prompts.position_ids.expand_as(prompts.tokens)
        mask = torch.ones_like(tokens) if prompts.valid is None else prompts.valid.long()
        placed = "position_ids" in inspect.signature(network.base_model.forward).parameters
        cache, new = None, []
        for step in range(n_tokens):
            options = {"attention_mask": mask, "past_key_values": cache, "use_cache": True}
            options |= {"position_ids": positions} if placed else {}
            with edited(network, edits if every_step or not step else {}):
                output = network.base_model(tokens, **options)
            cache = output.past_key_values
            tokens = _best(unembed(self._modules, output[0][:, -1]), None)[:, None].to(mask.device)
            new.append(tokens.cpu())
            mask, positions = torch.cat([mask, torch.ones_like(tokens)], dim=1), positions[:, -1:] + 1
        return torch.cat(new, dim=1)


class _Enough(Exception):  # noqa: N818 (what happened, not that it is an error)
    """Ends a pass of which nothing further is asked."""


def _as_edit(
    edit: StreamEdit,
    places: Int[Tensor, " row"],
    layers: Sequence[int],
    clean: Float[Tensor, "row layer d_model"] | None,
) -> Edit:
    """An edit of some of the prompts as `sweep` takes it."""
    if not edit.replace and edit.values.shape[:2] == (1, 1):
        return Add(edit.values[0, 0])
    mine = edit if len(edit.values) == 1 else replace(edit, values=edit.values[places])
    if edit.replace:
        return Given({layer: mine.at(layer)[:, None] for layer in layers})
    # A sum that differs from layer to layer is given whole, as Add makes it.
    assert clean is not None
    return Given({layer: (clean[:, layer] + mine.at(layer).to(clean.dtype))[:, None] for layer in layers})


def _best(logits: Float[Tensor, "*rows d_vocab"], candidates: Int[Tensor, " choice"] | None) -> Int[Tensor, "*rows"]:
    if candidates is None:
        return logits.argmax(dim=-1).cpu()
    return candidates.cpu()[logits[..., candidates.to(logits.device)].argmax(dim=-1).cpu()]


def _on_rows(values: Float[Tensor, "prompt_or_1 d_model"], replace: bool) -> Callable[[Tensor], Tensor]:
    return lambda x: values.to(x).expand_as(x) if replace else x + values.to(x)


def _in_float32(module: nn.Module, inputs: Float[Tensor, "row width"]) -> Float[Tensor, "row d_model"]:
    """The module with its weights raised to float32: of half-precision weights no more is lost than they lost."""
    weights = {name: parameter.detach().float() for name, parameter in module.named_parameters()}
    device = next(iter(weights.values())).device
    with torch.no_grad():
        output: Tensor = torch.func.functional_call(module, weights, (inputs.to(device, torch.float32),))
    return output.cpu()

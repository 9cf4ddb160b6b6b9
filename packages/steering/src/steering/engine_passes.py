"""Passes of a network in memory, steered by hooks; logits exist for a block of the vocabulary at a time."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import torch
from jaxtyping import Bool, Float, Float64, Int
from torch import Tensor

from interventions import Model, Prompts, as_prompts
from interventions.hooks import Modules
from interventions.network import final_hidden, inference, log_normaliser, unembed, unembed_columns
from steering.logit_bias import logit_bias
from steering.passes import At, Drawn, Rows
from steering.sampling import Sampling
from steering.starts import Start
from steering.steering import Steer, steered
from steering.vectors import Component

BUDGET = 2**26  # bytes of logits at a time


class _Enough(Exception):  # noqa: N818 (what happened, not that it is an error)
    """Ends a pass behind the last layer that is read."""


@dataclass(frozen=True)
class EnginePasses:
    """`passes.Passes` of a model whose network is in memory."""

    model: Model

    @cached_property
    def modules(self) -> Modules:
        return Modules(self.model.network)

    def streams(
        self, rows: Rows, component: Component, layers: Sequence[int], read: At
    ) -> Float[Tensor, "row layer *pos d_model"]:
        prompts = as_prompts(rows)
        seen: dict[int, Tensor] = {}

        def keeping(layer: int) -> Callable[[Tensor], None]:
            def keep(x: Tensor) -> None:
                seen[layer] = self._at(x, prompts, read)
                if layer == max(layers):
                    raise _Enough

            return keep

        try:
            with inference(self.model.network):
                final_hidden(self.modules, prompts, {(component, layer): keeping(layer) for layer in layers})
        except _Enough:
            pass
        return torch.stack([seen[layer] for layer in layers], dim=1).cpu()

    def _at(self, x: Tensor, prompts: Prompts, read: At) -> Tensor:
        if read is None:
            return x.float()
        if isinstance(read, int):
            return x[:, read].float()
        weights = own_tokens(self.model, prompts).to(x.device, torch.float32)
        return torch.einsum("bp,bpd->bd", weights, x.float()) / weights.sum(dim=1, keepdim=True)

    def behind(
        self, rows: Rows, asked: Int[Tensor, "row asked"], steers: Sequence[Steer]
    ) -> Float[Tensor, "row asked"]:
        return self.behind_each(rows, asked, [steers])[0]

    def behind_each(
        self, rows: Rows, asked: Int[Tensor, "row asked"], conditions: Sequence[Sequence[Steer]]
    ) -> list[Float[Tensor, "row asked"]]:
        prompts, found = as_prompts(rows), list[Tensor]()
        with inference(self.model.network):
            start = Start.of(self.modules, prompts, conditions) if len(conditions) > 1 else None
            for steers in conditions:
                with steered(self.model, *steers):
                    hidden = final_hidden(self.modules, prompts) if start is None else start.rest()
                last = hidden[:, -1:]
                logits = unembed_columns(self.modules, last, asked.to(last.device))[:, 0]
                found.append((logits - log_normaliser(self.modules, last, budget=BUDGET)).cpu())
        return found

    def likeliest(
        self, rows: Rows, asked: Int[Tensor, " row"], steers: Sequence[Steer]
    ) -> tuple[Int[Tensor, " row"], Float[Tensor, " row"]]:
        with inference(self.model.network), steered(self.model, *steers):
            last = final_hidden(self.modules, as_prompts(rows))[:, -1]
            logits = unembed(self.modules, last).cpu()
        return logits.argmax(dim=-1), logits.log_softmax(dim=-1).gather(1, asked[:, None])[:, 0]

    def losses(self, rows: Rows, counts: Sequence[int], steers: Sequence[Steer]) -> list[Float[Tensor, " _"]]:
        with inference(self.model.network), steered(self.model, *steers):
            hidden = final_hidden(self.modules, as_prompts(rows))
            predicting = torch.cat([hidden[row, -count - 1 : -1] for row, count in enumerate(counts)])[:, None]
            targets = torch.tensor(
                [token for row, count in zip(rows, counts, strict=True) for token in row[len(row) - count :]],
                dtype=torch.long,
            )
            logits = unembed_columns(self.modules, predicting, targets[:, None].to(hidden.device))[:, 0, 0]
            losses = log_normaliser(self.modules, predicting, budget=BUDGET)[:, 0] - logits
            return list(torch.split(losses.cpu(), list(counts)))

    def drawn(
        self,
        prompts: Prompts,
        places: Int[Tensor, " row"],
        n: int,
        sampling: Sampling,
        steers: Sequence[Steer],
        bias: Float[Tensor, " d_vocab"] | None,
        ends: frozenset[int],
    ) -> Drawn:
        network: Any = self.model.network
        device = next(network.parameters()).device
        batch = prompts.to(device)
        takes = inspect.signature(network.forward).parameters
        options: dict[str, Any] = {"use_cache": True}
        if "logits_to_keep" in takes:
            options["logits_to_keep"] = 1
        mask = None
        if batch.valid is not None:
            mask = torch.ones(len(batch), batch.length + n, dtype=torch.long, device=device)
            mask[:, : batch.length] = batch.valid
        positions = batch.position_ids if "position_ids" in takes else None
        numbers = torch.stack([sampling.uniform(place, n) for place in places.tolist()]).float().to(device)
        tokens, cache = batch.tokens, None
        with ExitStack() as inside:
            inside.enter_context(inference(network))
            inside.enter_context(steered(self.model, *steers))
            if bias is not None:
                inside.enter_context(logit_bias(network, bias))
            for step in range(n):
                if mask is not None:
                    options["attention_mask"] = mask[:, : batch.length + step]
                if positions is not None:
                    options["position_ids"] = positions
                    positions = positions[:, -1:] + 1
                output = network(tokens, past_key_values=cache, **options)
                cache = output.past_key_values
                new, finite = sampling.tokens(output.logits[:, -1], numbers[:, step])
                tokens = new[:, None]
                yield new, finite

    def sums(
        self, prompts: Rows, new: Rows, steers: Sequence[Steer]
    ) -> tuple[Float64[Tensor, " width"], Float64[Tensor, " width"]]:
        with inference(self.model.network):
            with steered(self.model, *steers):
                changed = self._summed(prompts, new)
            return changed, self._summed(prompts, new)

    def as_logits(self, found: Float64[Tensor, " width"]) -> Float[Tensor, " d_vocab"]:
        network: Any = self.model.network
        weight: Tensor = network.get_output_embeddings().weight
        return (weight.detach().float() @ found.to(weight.device, torch.float32)).cpu()

    def _summed(self, prompts: Rows, new: Rows) -> Float64[Tensor, " d_model"]:
        """Sum of the normed streams that predict the new tokens.

        One call for the prompts and one for what follows, as in generation: so a vector knows which is which.
        """
        network: Any = self.model.network
        device = next(network.parameters()).device
        start, follows, read = prompts_and_new(prompts, new)
        start, follows, read = start.to(device), follows.to(device), read.to(device)
        valid = torch.ones_like(start.tokens, dtype=torch.bool) if start.valid is None else start.valid
        takes_places = "position_ids" in inspect.signature(network.base_model.forward).parameters

        def run(tokens: Tensor, mask: Tensor, places: Tensor, cache: Any) -> Any:
            options: dict[str, Any] = {"position_ids": places} if takes_places else {}
            return network.base_model(
                tokens, attention_mask=mask.long(), past_key_values=cache, use_cache=True, **options
            )

        output = run(start.tokens, valid, start.position_ids.expand(len(new), -1), None)
        found: Tensor = output[0][:, -1].float().sum(dim=0)
        if follows.shape[1]:
            places = valid.sum(dim=1)[:, None] + torch.arange(follows.shape[1], device=device)
            rest = run(follows, torch.cat([valid, read], dim=1), places, output.past_key_values)
            found = found + rest[0][read].float().sum(dim=0)
        return found.cpu().double()


def own_tokens(model: Model, prompts: Prompts) -> Bool[Tensor, "row pos"]:
    """Where the tokens of texts are, without padding and BOS."""
    own = prompts.position_ids >= int(model.bos is not None)
    own = own if prompts.valid is None else own & prompts.valid
    return own.expand(len(prompts), -1)


def prompts_and_new(prompts: Rows, new: Rows) -> tuple[Prompts, Int[Tensor, "row step"], Bool[Tensor, "row step"]]:
    """Prompts, what is read behind them (all new tokens but the last), padded on the right, and where it is real."""
    longest = max(map(len, new))
    follows = torch.tensor([[*row, *[0] * (longest - len(row))] for row in new])[:, :-1]
    counts = torch.tensor([len(row) - 1 for row in new])
    return as_prompts(prompts), follows, torch.arange(longest - 1) < counts[:, None]

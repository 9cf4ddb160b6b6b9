"""One trace of a model: what vectors do in it, which streams come back, and what is asked of its logits.

    trace.passed(prompts, places, ...)      one pass: streams, log-probabilities of given tokens, a sum of logits
    trace.generated(prompts, plan, ...)     a generation with a cache, whose tokens are drawn in the trace: one request

A body is packed as its source and the variables that it names, and may run where this package is not installed: it
names torch, tensors, numbers, tuples and nnsight's own modules alone, and brings back answers rather than logits.
nnsight 0.8 serves values in the order in which the model computes them. A write is made in place, on the tensor that
the model goes on with.

A drawn token is forced upon transformers' greedy generation: all other logits of that step are made minus infinity.
"""

from __future__ import annotations

import inspect
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property, reduce
from typing import Any, NamedTuple

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from interventions import Prompts
from interventions.backends import Traced
from interventions.hooks import Modules
from steering.sampling import Sampling
from steering.trace_plans import Place

Pick = bool | int | Tensor
"""What of a stream [row, pos, d_model] comes back: all, a position, or a weighted mean by weights [row, pos]."""


class Passed(NamedTuple):
    """What a pass gave, on the CPU in float32; parts that were not asked for are None."""

    streams: Float[Tensor, "row place *pos d_model"] | None
    log_p: Float[Tensor, "row pos asked"] | None
    best: Int[Tensor, "row pos"] | None
    total: Float[Tensor, " d_vocab"] | None


@dataclass(frozen=True)
class Trace:
    """A traced model and its modules."""

    model: Traced

    @cached_property
    def modules(self) -> Modules:
        return Modules(self.model.network)

    @cached_property
    def layers(self) -> list[Any]:
        return list(reached(self.model.view, self.modules.architecture.layers))

    @cached_property
    def head(self) -> Any:
        """The unembedding, before what some architectures make of its logits."""
        network: Any = self.model.network
        module = network.get_output_embeddings()
        return reached(self.model.view, next(path for path, of in network.named_modules() if of is module))

    @torch.no_grad()
    def passed(
        self,
        prompts: Prompts,
        places: Sequence[Place],
        *,
        read: Sequence[tuple[int, bool]] = (),
        pick: Pick = False,
        asked: Int[Tensor, "row pos asked"] | None = None,
        added: Bool[Tensor, "row pos"] | None = None,
    ) -> Passed:
        """One pass without a cache.

        Args:
            read: streams that come back, by layer and whether in front of it, in the order of computation.
            asked: tokens behind each of the last positions, whose log-probabilities come back.
            added: at which of the last positions logits (as the unembedding gives them) are added up.
        """
        options = self._options(prompts, 1 if asked is None else asked.shape[1], added)
        steps = steps_of(places, read, pick)
        view, layers, head, n = self.model.view, self.layers, self.head, len(prompts)
        with view.trace(prompts.tokens, **options):
            found: Any = []
            found.save()
            for layer, in_front, edits, kept in steps:
                output = layers[layer].input if in_front else layers[layer].output
                stream = output[0] if isinstance(output, tuple) else output
                for where, a, b, u, keep_norm in edits:
                    half = stream.dtype in (torch.float16, torch.bfloat16)
                    h = stream.float() if half and (b or keep_norm) else stream
                    new = h + a.to(h)
                    if b:
                        unit = u.to(h)
                        new = new + b * (h * unit).sum(dim=-1, keepdim=True) * unit
                    if keep_norm:
                        new = new * (h.norm(dim=-1, keepdim=True) / new.norm(dim=-1, keepdim=True).clamp(min=1e-30))
                    new = new.to(stream)
                    stream[:] = new if where is True else torch.where(where.to(stream.device), new, stream)
                if kept is True:
                    found.append(stream.float().cpu().clone())
                elif isinstance(kept, torch.Tensor):
                    weights = kept.to(stream.device, torch.float32)
                    mean = torch.einsum("bp,bpd->bd", weights, stream.float()) / weights.sum(dim=1, keepdim=True)
                    found.append(mean.cpu())
                elif kept is not False:
                    found.append(stream[:, kept].float().cpu().clone())
            if added is not None:
                unembedded = head.output
                total = torch.zeros(unembedded.shape[-1], dtype=torch.float64)
                for row in range(n):
                    total = total + unembedded[row][added[row].to(unembedded.device)].float().sum(dim=0).cpu().double()
                found.append(total)
            if asked is not None:
                logits = view.output.logits.float()
                chosen = logits.gather(-1, asked.to(logits.device)) - logits.logsumexp(dim=-1, keepdim=True)
                found.append(chosen.cpu())
                found.append(logits.argmax(dim=-1).cpu())
        parts = list(found)
        best, log_p = (parts.pop(), parts.pop()) if asked is not None else (None, None)
        summed = parts.pop() if added is not None else None
        return Passed(torch.stack(parts, dim=1) if parts else None, log_p, best, summed)

    @torch.no_grad()
    def generated(
        self,
        prompts: Prompts,
        plan: Sequence[Sequence[Place]],
        sampling: Sampling,
        numbers: Float[Tensor, "row step"],
        bias: Float[Tensor, " d_vocab"] | None,
    ) -> tuple[Int[Tensor, "row step"], Bool[Tensor, "row step"]]:
        """A token for every call of the plan, the first of which holds the prompts, and whether its logits are numbers.

        Args:
            numbers: by which tokens are drawn, see `sampling`.
            bias: added to what the unembedding gives.
        """
        never = int(self.model.network.config.get_text_config().vocab_size)  # a trace that ends early loses its result
        mask = torch.ones_like(prompts.tokens) if prompts.valid is None else prompts.valid.long()
        options: dict[str, Any] = {"max_new_tokens": len(plan), "do_sample": False, "num_beams": 1}
        options |= {"attention_mask": mask, "eos_token_id": never, "pad_token_id": 0}
        if self.model.remote:
            options["remote"] = self.model.remote
        temperature, top_k, top_p = sampling.temperature, sampling.top_k, sampling.top_p
        view, layers, head, n_calls = self.model.view, self.layers, self.head, len(plan)
        with view.generate(prompts.tokens, **options) as tracer:
            found: Any = []
            found.save()
            for call in tracer.iter[:n_calls]:
                for layer, in_front, edits in plan[call]:
                    output = layers[layer].input if in_front else layers[layer].output
                    stream = output[0] if isinstance(output, tuple) else output
                    for where, a, b, u, keep_norm in edits:
                        half = stream.dtype in (torch.float16, torch.bfloat16)
                        h = stream.float() if half and (b or keep_norm) else stream
                        new = h + a.to(h)
                        if b:
                            unit = u.to(h)
                            new = new + b * (h * unit).sum(dim=-1, keepdim=True) * unit
                        if keep_norm:
                            new = new * (h.norm(dim=-1, keepdim=True) / new.norm(dim=-1, keepdim=True).clamp(min=1e-30))
                        new = new.to(stream)
                        stream[:] = new if where is True else torch.where(where.to(stream.device), new, stream)
                if bias is not None:
                    unembedded = head.output
                    unembedded[:] = (unembedded.float() + bias.to(unembedded.device)).to(unembedded)
                logits = view.output.logits
                scores = logits[:, -1].float()
                finite = scores.max(dim=-1).values.isfinite()
                token = scores.argmax(dim=-1)
                if temperature > 0:
                    scores = scores / temperature
                    if top_k is not None and top_k < scores.shape[-1]:
                        scores = scores.masked_fill(scores < scores.topk(top_k).values[:, -1:], -torch.inf)
                    p = scores.softmax(dim=-1)
                    if top_p is not None and top_p < 1:
                        ordered, ranks = p.sort(dim=-1, descending=True)
                        enough = ordered.cumsum(dim=-1) - ordered >= top_p
                        p = torch.zeros_like(p).scatter(-1, ranks, ordered.masked_fill(enough, 0.0))
                    sums = p.cumsum(dim=-1)
                    whole = sums[:, -1:].contiguous()
                    drawn = torch.searchsorted(sums, numbers[:, call : call + 1].to(sums) * whole, right=True)
                    last = torch.searchsorted(sums, whole)
                    token = drawn.minimum(last).clamp(max=sums.shape[-1] - 1)[:, 0]
                logits[:, -1] = -torch.inf
                logits[:, -1].scatter_(1, token[:, None], 0.0)
                found.append(torch.stack([token, finite.long()]).cpu())
        tokens, finite = torch.stack(list(found), dim=-1)
        return tokens, finite.bool()

    def _options(self, prompts: Prompts, last: int, added: Tensor | None) -> dict[str, Any]:
        network: Any = self.model.network
        keep = last if added is None else added.shape[1]
        options: dict[str, Any] = {"use_cache": False}
        if "logits_to_keep" in inspect.signature(network.forward).parameters:
            options["logits_to_keep"] = keep
        if prompts.valid is not None:
            options["attention_mask"] = prompts.valid.long()
            if "position_ids" in inspect.signature(network.base_model.forward).parameters:
                options["position_ids"] = prompts.position_ids
        if self.model.remote:
            options["remote"] = self.model.remote
        return options


def steps_of(places: Sequence[Place], read: Sequence[tuple[int, bool]], pick: Pick) -> list[tuple[Any, ...]]:
    """Writes and reads in the order of computation; what is read is what was written."""
    edits = {(layer, in_front): edits for layer, in_front, edits in places}
    every = sorted({*edits, *read}, key=lambda place: (place[0], not place[1]))
    return [(*place, edits.get(place, []), pick if place in read else False) for place in every]


def reached(root: Any, path: str) -> Any:
    """The nnsight module at a dotted path."""
    return reduce(getattr, path.split("."), root)

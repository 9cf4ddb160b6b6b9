"""A pass by an nnsight server, which takes one text a request and gives the logits behind its last token alone.

What a vLLM engine computes has no rows, [pos, d_model], and a layer may leave what the next one is to add beside its
output. So what stands in front of a layer is read and written behind the one before it. This follows what nnsight
0.8.1's VLLM wrapper says of itself; it was never run against a server.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from steering.trace_plans import Place
from steering.traces import Pick, Trace, steps_of


@torch.no_grad()
def served(
    trace: Trace,
    tokens: Sequence[int],
    places: Sequence[Place],
    *,
    read: Sequence[tuple[int, bool]] = (),
    pick: Pick = False,
) -> tuple[Float[Tensor, "place *pos d_model"] | None, Float[Tensor, " d_vocab"]]:
    """Streams of one text, and the logits behind it; places are of that text alone (`trace_plans.of_row`)."""
    steps = steps_of(_behind(places), [(layer, in_front and not layer) for layer, in_front in _shifted(read)], pick)
    view, layers, serve = trace.model.view, trace.layers, trace.model.serve
    width = int(trace.model.network.config.get_text_config().hidden_size)
    with view.trace(list(tokens), serve=serve, temperature=0.0, max_tokens=1):
        found: Any = []
        found.save()
        for layer, in_front, edits, kept in steps:
            beside = None
            if in_front:
                given, named = layers[layer].inputs
                wide = [x for x in (*given, *named.values()) if isinstance(x, torch.Tensor)]
                stream = next(x for x in wide if x.is_floating_point() and x.shape[-1] == width)
            else:
                output = layers[layer].output
                stream = output[0] if isinstance(output, tuple) else output
                if isinstance(output, tuple) and len(output) == 2 and isinstance(output[1], torch.Tensor):
                    beside = output[1] if output[1].shape == stream.shape else None
            for where, a, b, u, keep_norm in edits:
                h = stream if beside is None else stream + beside
                whole = h.float() if b or keep_norm else h
                new = whole + a.to(whole)
                if b:
                    unit = u.to(whole)
                    new = new + b * (whole * unit).sum(dim=-1, keepdim=True) * unit
                if keep_norm:
                    norm = whole.norm(dim=-1, keepdim=True)
                    new = new * (norm / new.norm(dim=-1, keepdim=True).clamp(min=1e-30))
                new = new.to(stream) if beside is None else new.to(stream) - beside
                stream[:] = new if where is True else torch.where(where.to(stream.device), new, stream)
            if kept is not False:
                seen = (stream if beside is None else stream + beside).float().cpu().clone()
                found.append(seen.reshape(-1, seen.shape[-1]))
        found.append(view.logits.float().cpu().reshape(-1))
    *streams, logits = list(found)
    return _picked(streams, pick) if read else None, logits


def _shifted(read: Sequence[tuple[int, bool]]) -> list[tuple[int, bool]]:
    return [(layer - 1, False) if in_front and layer else (layer, in_front) for layer, in_front in read]


def _behind(places: Sequence[Place]) -> list[Place]:
    found: dict[tuple[int, bool], list[Any]] = {}
    for layer, in_front, edits in places:
        found.setdefault(_shifted([(layer, in_front)])[0], []).extend(edits)
    return [(layer, in_front, edits) for (layer, in_front), edits in found.items()]


def _picked(streams: Sequence[Tensor], pick: Pick) -> Tensor:
    found = torch.stack(list(streams))
    if isinstance(pick, Tensor):
        return torch.einsum("p,lpd->ld", pick[0].float(), found) / pick.float().sum()
    return found if pick is True else found[:, pick]

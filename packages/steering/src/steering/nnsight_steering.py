"""The same vectors in an nnsight trace: here, or in a model that NDIF hosts.

    nnsight_logits(model, prompts, [Steer(vector, 4.0)])                         an interventions.Model, here
    nnsight_logits(TransformersModel("owner/name"), tokens, steers, remote=True)       on NDIF, in one request
    nnsight_generate(model, prompts, steers, max_new_tokens=20)                  greedy, in one request as well

The logits and tokens are those of `steered` and `generate`, equal but for rounding. Where every vector acts, in the
prompt and in each later token, is found out beforehand by the same functions; the body of the trace is packed as source
and tensors, names torch and the model alone, and holds the four operations in one form (`trace_plans`).

A write is made in place, on the tensor that the model goes on with; nothing of it is left behind the trace.
"""

from __future__ import annotations

import inspect
from collections.abc import Sequence
from functools import reduce
from importlib import import_module
from pathlib import Path
from typing import Any

import torch
from jaxtyping import Float, Int
from torch import Tensor

from interventions import Model, Prompts, as_prompts
from interventions.hooks import Modules
from steering.errors import SteeringError
from steering.generation import _ends
from steering.steering import Steer, check_fits
from steering.texts import encode_texts
from steering.trace_plans import calls_of, one_by_one

Given = Sequence[str] | Prompts | Int[Tensor, "prompt pos"] | Sequence[Sequence[int]]
"""Texts (of an `interventions.Model` alone), or tokens; padded on the left where they are of unequal length."""


@torch.no_grad()
def nnsight_logits(
    model: Any, prompts: Given, steers: Sequence[Steer], *, remote: bool | str = False, last_only: bool = False
) -> Float[Tensor, "prompt pos d_vocab"]:
    """Logits of a steered forward pass; on the CPU, float32.

    Args:
        model: an `interventions.Model`, or nnsight's TransformersModel or NNsight around a causal model.
        steers: acting as in `steered`; a mask's columns are those of the prompts as padded on the left.
        remote: passed to the trace: True for NDIF, a host, or "local" for a dry run of the remote way here.
        last_only: of the last position of every prompt, so that pos is 1.

    Raises:
        SteeringError: before anything runs, as `steered`; a model in training mode, or one that the remote way does not
            take; NDIF without a key.
        ModelError: an architecture that `interventions` has no row for, or nnsight is not installed.
    """
    found: Tensor = _run(model, prompts, steers, remote, 0, {"logits_to_keep": 1} if last_only else {})[0]
    return found


@torch.no_grad()
def nnsight_generate(
    model: Any, prompts: Given, steers: Sequence[Steer], *, max_new_tokens: int, remote: bool | str = False
) -> tuple[tuple[int, ...], ...]:
    """Greedy completions, as tokens: those of `generate(...).new_tokens`, which end before the end-of-text token.

    They come from transformers' `generate` with a cache and the model's own generation settings, but for sampling and
    beams. Rows are written to their full length and cut afterwards.

    Args:
        model, steers, remote: as of `nnsight_logits`, but a plain NNsight cannot trace a generation.

    Raises:
        SteeringError: as `nnsight_logits`; fewer than 1 new token.
        ModelError: as `nnsight_logits`.
    """
    if max_new_tokens < 1:
        raise SteeringError(f"max_new_tokens={max_new_tokens}: expected at least 1 token")
    found, network = _run(model, prompts, steers, remote, max_new_tokens, {})
    ends = _ends(network)
    rows: list[list[int]] = found[:, -max_new_tokens:].tolist()
    return tuple(tuple(row[: next((at for at, token in enumerate(row) if token in ends), None)]) for row in rows)


def _run(
    model: Any, prompts: Given, steers: Sequence[Steer], remote: bool | str, n: int, more: dict[str, Any]
) -> tuple[Tensor, Any]:
    """Logits where n is 0, otherwise the tokens of prompts and n new ones each; and the network."""
    view = model.nnsight if isinstance(model, Model) else model
    network = view._module
    _check(view, network, remote, n)
    for steer in steers:
        check_fits(steer, network)
    given = _encoded(model, prompts)
    modules = Modules(network)
    layers: Any = list(reduce(getattr, modules.architecture.layers.split("."), view))
    plan = one_by_one(steers, calls_of(given, max(n, 1)))
    options = {**more, **(_generation(network, given, n) if n else _pass(network, given))}
    if remote:
        options["remote"] = remote
    n_calls, generating = len(plan), n > 0
    with (view.generate if n else view.trace)(given.tokens, **options) as tracer:
        for call in tracer.iter[:n_calls]:
            for layer, in_front, edits in plan[call]:
                if in_front:
                    stream = layers[layer].input
                else:
                    output = layers[layer].output
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
        found = tracer.result.cpu().save() if generating else view.output.logits.float().cpu().save()
    return found, network


def _pass(network: Any, prompts: Prompts) -> dict[str, Any]:
    options: dict[str, Any] = {"use_cache": False}
    if prompts.valid is not None:
        options["attention_mask"] = prompts.valid.long()
        if "position_ids" in inspect.signature(network.base_model.forward).parameters:
            options["position_ids"] = prompts.position_ids
    return options


def _generation(network: Any, prompts: Prompts, n: int) -> dict[str, Any]:
    """Greedy, n tokens: an end-of-text token that no vocabulary has, as a trace that ends early loses its result."""
    never = int(network.config.get_text_config().vocab_size)
    # Without a mask transformers takes every pad_token_id in the prompts for padding.
    mask = torch.ones_like(prompts.tokens) if prompts.valid is None else prompts.valid.long()
    options: dict[str, Any] = {"max_new_tokens": n, "do_sample": False, "num_beams": 1, "attention_mask": mask}
    return {**options, "eos_token_id": never, "pad_token_id": 0}


def _encoded(model: Any, prompts: Given) -> Prompts:
    tokens: Any = prompts
    texts = [] if isinstance(prompts, (Prompts, Tensor)) else [each for each in prompts if isinstance(each, str)]
    if not texts:
        try:
            return as_prompts(tokens)
        except ValueError as error:
            raise SteeringError(str(error)) from error
    if not isinstance(model, Model):
        raise SteeringError(
            f"texts for {type(model).__name__}: expected tokens; encode them, or pass an interventions.Model"
        )
    return encode_texts(model, texts, allow_empty=True)


def _check(view: Any, network: Any, remote: bool | str, n: int) -> None:
    """Refuse what nnsight would run in another way than it is asked to, or not at all."""
    if remote is True and not import_module("nnsight").CONFIG.API.APIKEY:
        raise SteeringError(
            "remote=True: nnsight has no NDIF key: set NDIF_API_KEY, or CONFIG.set_default_api_key(...) of nnsight once"
        )
    if (remote or n) and not hasattr(view, "to_model_key"):
        what = "remotely" if remote else "while it generates"
        raise SteeringError(
            f"{type(view).__name__} cannot be traced {what}: expected nnsight's TransformersModel; load the model with "
            f"its tokenizer, or wrap it as one"
        )
    folder = str(getattr(view, "repo_id", "") or "")
    if remote and remote != "local" and (not folder or Path(folder).is_dir()):
        raise SteeringError(
            f"remote={remote!r}: the model is on this machine alone: expected one that is hosted, such as "
            f"nnsight.TransformersModel('owner/name'); leave remote out to run it here"
        )
    if not remote and getattr(view, "dispatched", True) and network.training:
        raise SteeringError("the nnsight model is in training mode: expected no dropout; call .eval() on the network")

"""Path ablation: take an earlier head's output out of what one input of a later head reads, and out of nothing else.

    x' = x - sum_{senders s} (z_s - z'_s) W_O_s,    q' = Norm(x') W_Q + b_Q    (or k', v')    of the receivers alone

with z' = 0, a mean, or another sequence's z, as in `circuits.ablation`. Everything else, the other heads and the other
two inputs of the receivers included, reads x. (Wang et al. 2022, "Interpretability in the Wild", section 3.1, "path
patching"; the split into query, key and value is that of Elhage et al. 2021, "Three Kinds of Composition".)

What is removed is the direct path through the residual stream: what senders do to heads and MLPs of the layers between
still reaches the receivers through those. Nothing is linearised: x' is normalised by its own divisor, not by that of x.
x is the stream of the pass at hand, so that an effect on a receiver reaches later receivers; since all senders are
before all receivers, what is taken away is what the senders write in that pass. Values are exact where queries share
keys and values too: the receivers' z is recomputed with their own v'. A shared key cannot be edited for one query head,
so there the patterns of the other heads of its group are set to what they are with earlier layers' edits in place.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from functools import partial
from typing import Any, Literal

import torch
from jaxtyping import Float, Int
from torch import Tensor

from circuits.ablation import Ablation, ResampleAblation, _check_donors, _replacements
from circuits.bridge import Bridge, Hook, chunks, hook_name, record
from circuits.detectors import DETECTORS, head_scores_by_sequence
from circuits.head_outputs import Head, check_heads, head_outputs, layers_of, per_head
from circuits.losses import next_token_log_probs
from circuits.patterns import PatternReducer
from circuits.tokens import check_tokens
from circuits.weights import Weights, read_weights


@contextmanager
def path_ablated(
    model: Bridge,
    tokens: Int[Tensor, "batch pos"],
    senders: Sequence[Head],
    receivers: Sequence[Head],
    into: Literal["q", "k", "v"],
    how: Ablation,
    *,
    weights: Weights | None = None,
) -> Iterator[None]:
    """Every forward pass over `tokens` inside this context lacks the path from `senders` to `into` of `receivers`.

    On entry the senders' outputs are recorded, for all of `tokens` at once. Contexts nest, e.g. for queries and keys;
    where heads share keys, the one into "k" goes innermost: it fixes the patterns of the other heads of its groups.

    Args:
        weights: `read_weights(model)`, to read them once for several contexts.

    Raises:
        ValueError: a head does not exist; a sender is not before every receiver; the mean or the donors have the wrong
            shape; from `check_tokens` and `read_weights`; a pass has other tokens (raised by the pass).
    """
    check_tokens(model, tokens)
    _check_ends(model, senders, receivers)
    _check_donors(tokens, how)
    weights = read_weights(model) if weights is None else weights
    tokens = tokens.to(model.cfg.device)
    removed = _written(model, tokens, senders, how, weights)
    with ExitStack() as entered:
        for layer in layers_of(receivers):
            heads = sorted({head for at, head in receivers if at == layer})
            hooks = _receiving(model, tokens, layer, heads, into, removed, weights)
            entered.enter_context(model.hooks(fwd_hooks=hooks))
        yield


def path_ablated_log_probs(
    model: Bridge,
    tokens: Int[Tensor, "batch pos"],
    senders: Sequence[Head],
    receivers: Sequence[Head],
    into: Literal["q", "k", "v"],
    how: Ablation,
    *,
    weights: Weights | None = None,
    batch_size: int = 8,
) -> Float[Tensor, "batch pos-1"]:
    """`next_token_log_probs` (nats) without the path; on the device of `tokens`. Raises as `path_ablated`."""
    check_tokens(model, tokens, shortest=2)
    _check_donors(tokens, how)
    weights = read_weights(model) if weights is None else weights
    parts = []
    for rows in chunks(len(tokens), batch_size):
        with path_ablated(model, tokens[rows], senders, receivers, into, _of_rows(how, rows), weights=weights):
            parts.append(next_token_log_probs(model, tokens[rows], batch_size=batch_size))
    return torch.cat(parts)


def path_ablated_head_scores(
    model: Bridge,
    tokens: Int[Tensor, "batch pos"],
    senders: Sequence[Head],
    receivers: Sequence[Head],
    into: Literal["q", "k", "v"],
    how: Ablation,
    *,
    weights: Weights | None = None,
    detectors: Mapping[str, PatternReducer] = DETECTORS,
    batch_size: int = 8,
) -> dict[str, Float[Tensor, "batch layer head"]]:
    """`head_scores_by_sequence` without the path. Raises as there and as `path_ablated`."""
    check_tokens(model, tokens, shortest=2)
    _check_donors(tokens, how)
    weights = read_weights(model) if weights is None else weights
    parts = []
    for rows in chunks(len(tokens), batch_size):
        with path_ablated(model, tokens[rows], senders, receivers, into, _of_rows(how, rows), weights=weights):
            parts.append(head_scores_by_sequence(model, tokens[rows], detectors=detectors, batch_size=batch_size))
    return {name: torch.cat([part[name] for part in parts]) for name in detectors}


def _check_ends(model: Bridge, senders: Sequence[Head], receivers: Sequence[Head]) -> None:
    check_heads(model, [*senders, *receivers])
    for sender in senders:
        for receiver in receivers:
            if sender[0] >= receiver[0]:
                raise ValueError(
                    f"sender {sender} is not before receiver {receiver}: expected every sender in an earlier layer "
                    f"than every receiver; split the receivers into several calls, or nest them"
                )


def _of_rows(how: Ablation, rows: slice) -> Ablation:
    return ResampleAblation(how.donors[rows]) if isinstance(how, ResampleAblation) else how


def _written(
    model: Bridge, tokens: Int[Tensor, "batch pos"], senders: Sequence[Head], how: Ablation, weights: Weights
) -> Float[Tensor, "batch pos d_model"]:
    """sum_s (z_s - z'_s) W_O_s."""
    layers = layers_of(senders)
    z, replacements = head_outputs(model, tokens, layers), _replacements(model, how, layers, slice(None))
    total = weights.W_O.new_zeros(*tokens.shape, weights.W_O.shape[-1])
    for layer in layers:
        heads = sorted({head for at, head in senders if at == layer})
        lost = z[layer].float() - replacements[layer].to(z[layer]).float()
        total += torch.einsum("bphd,hdm->bpm", lost[:, :, heads], weights.W_O[layer, heads])
    return total


def _receiving(
    model: Bridge,
    tokens: Int[Tensor, "batch pos"],
    layer: int,
    heads: list[int],
    into: Literal["q", "k", "v"],
    removed: Float[Tensor, "batch pos d_model"],
    weights: Weights,
) -> list[tuple[str, Hook]]:
    """Hooks on one layer that make its `heads` read x - removed through `into`."""
    W, b = getattr(weights, f"W_{into.upper()}")[layer, heads], getattr(weights, f"b_{into.upper()}")[layer, heads]
    now: dict[str, Tensor] = {}  # of the pass at hand

    def keep(value: Tensor, hook: Any, *, name: str) -> None:
        now[name] = value

    def read(x: Float[Tensor, "batch pos d_model"], hook: Any) -> None:
        if not torch.equal(now["tokens"], tokens):
            raise ValueError(
                f"the pass has other tokens (shape {tuple(now['tokens'].shape)}): expected those that path_ablated was "
                f"entered with (shape {tuple(tokens.shape)}), whose sender outputs it removes; enter it anew"
            )
        x = x.float() - removed
        now["new"] = torch.einsum("bpm,hmd->bphd", x / weights.scale(x), W) + b

    def project(old: Float[Tensor, "batch pos heads d_head"], hook: Any, *, columns: list[int]) -> Tensor:
        edited = old.clone()
        edited[:, :, columns] = now["new"].to(old)
        return edited

    def restore(pattern: Float[Tensor, "batch head pos pos"], hook: Any, *, others: list[int], old: Tensor) -> Tensor:
        edited = pattern.clone()
        edited[:, others] = old
        return edited

    def move(z: Float[Tensor, "batch pos ..."], hook: Any) -> Tensor:
        edited = per_head(z, weights.n_heads).clone()
        moved = torch.einsum("bhqk,bkhd->bqhd", now["pattern"][:, heads].float(), now["new"])
        edited[:, :, heads] = moved.to(z)
        return edited.reshape(z.shape)

    at = partial(hook_name, model, layer)
    hooks: list[tuple[str, Hook]] = [
        ("embed.hook_in", partial(keep, name="tokens")),
        (f"blocks.{layer}.hook_resid_pre", read),
    ]
    if into == "q":
        return [*hooks, (at("hook_q"), partial(project, columns=heads))]
    if into == "v":
        return [*hooks, (at("hook_pattern"), partial(keep, name="pattern")), (at("hook_z"), move)]
    group = weights.n_heads // (getattr(model.cfg, "n_key_value_heads", None) or weights.n_heads)
    columns = [head // group for head in heads]
    hooks.append((at("hook_k"), partial(project, columns=columns)))
    others = [head for head in range(weights.n_heads) if head // group in columns and head not in heads]
    if others:
        pattern = record(model, tokens, [at("hook_pattern")])[at("hook_pattern")]
        hooks.append((at("hook_pattern"), partial(restore, others=others, old=pattern[:, others].clone())))
    return hooks

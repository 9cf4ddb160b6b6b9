"""Ablation of attention heads: replace a head's output before W_O and see what the model loses.

    z_{l,h} <- 0                                        zero
    z_{l,h} <- mean over reference tokens of z_{l,h}    mean (over sequences and positions)
    z_{l,h} <- z_{l,h} of another sequence              resample (same position, model not ablated)

    score_{l,h} = mean loss with head (l, h) ablated - mean loss        in nats; the higher, the more the head matters

(Olsson et al. 2022, "In-context Learning and Induction Heads", Argument 3, ablates heads to zero; Wang et al. 2022,
section 2.2, to means; Chan et al. 2022, "Causal Scrubbing", resamples.) Replacing z takes effect through W_O alone: the
output bias of the layer stays. Everything is exact: one forward pass a head, nothing linearised.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

import torch
from jaxtyping import Float, Int
from torch import Tensor

from circuits.bridge import Bridge, chunks
from circuits.head_outputs import Head, check_heads, head_outputs, layers_of, replacing
from circuits.losses import next_token_log_probs
from circuits.tokens import check_tokens


@dataclass(frozen=True)
class ZeroAblation:
    """z <- 0."""


@dataclass(frozen=True)
class MeanAblation:
    """z <- `z`, the same at every position of every sequence; see `mean_ablation`."""

    z: Float[Tensor, "layer head d_head"]


@dataclass(frozen=True)
class ResampleAblation:
    """z of sequence i <- z of the unablated model on `donors`[i], position by position; see `resample_ablation`."""

    donors: Int[Tensor, "batch pos"]


Ablation = ZeroAblation | MeanAblation | ResampleAblation


def mean_ablation(model: Bridge, reference: Int[Tensor, "batch pos"], *, batch_size: int = 8) -> MeanAblation:
    """The mean of every head's z over all sequences and positions of `reference`; float32, on the model's device.

    Raises:
        ValueError: from `check_tokens`.
    """
    check_tokens(model, reference)
    layers = range(model.cfg.n_layers)
    total = torch.zeros(len(layers), model.cfg.n_heads, model.cfg.d_head, device=model.cfg.device)
    for rows in chunks(len(reference), batch_size):
        z = head_outputs(model, reference[rows], layers)
        total += torch.stack([z[layer].float().sum(dim=(0, 1)) for layer in layers])
    return MeanAblation(total / reference.numel())


def resample_ablation(tokens: Int[Tensor, "batch pos"], *, seed: int) -> ResampleAblation:
    """Every sequence of `tokens` gets z of another one of them, drawn by `derangement`.

    Raises:
        ValueError: there is one sequence only.
    """
    return ResampleAblation(tokens[derangement(len(tokens), seed=seed).to(tokens.device)])


def derangement(n: int, *, seed: int) -> Int[Tensor, " n"]:
    """A uniformly random permutation of 0..n-1 without fixed points (permutations are drawn until one has none).

    Raises:
        ValueError: n is below 2: there is no such permutation.
    """
    if n < 2:
        raise ValueError(f"n={n}: expected at least 2 sequences, so that each can get another one's activations")
    generator = torch.Generator().manual_seed(seed)
    while True:
        permutation = torch.randperm(n, generator=generator)
        if not (permutation == torch.arange(n)).any():
            return permutation


@contextmanager
def ablate_heads(model: Bridge, heads: Sequence[Head], how: Ablation) -> Iterator[None]:
    """Every forward pass of the model inside this context has `heads` ablated; afterwards the model is as before.

    With `ResampleAblation` the donors are run on entry, all at once, and passes must have the shape of the donors.

    Raises:
        ValueError: a head or layer does not exist; the mean has the wrong shape; a pass has another shape than the
            donors.
    """
    check_heads(model, heads)
    with replacing(model, heads, _replacements(model, how, layers_of(heads), slice(None))):
        yield


def ablated_log_probs(
    model: Bridge, tokens: Int[Tensor, "batch pos"], heads: Sequence[Head], how: Ablation, *, batch_size: int = 8
) -> Float[Tensor, "batch pos-1"]:
    """`next_token_log_probs` (nats) with all of `heads` ablated together.

    Raises:
        ValueError: from `check_tokens` and `ablate_heads`; the donors have another shape than `tokens`.
    """
    check_heads(model, heads)
    _check_donors(tokens, how)
    parts = []
    for rows in chunks(len(tokens), batch_size):
        with replacing(model, heads, _replacements(model, how, layers_of(heads), rows)):
            parts.append(next_token_log_probs(model, tokens[rows], batch_size=batch_size))
    return torch.cat(parts)


def ablation_scores_by_sequence(
    model: Bridge,
    tokens: Int[Tensor, "batch pos"],
    how: Ablation,
    *,
    targets: slice = slice(None),
    batch_size: int = 8,
) -> Float[Tensor, "batch layer head"]:
    """Increase of each sequence's mean loss (nats) when one head is ablated, for every head in turn.

    Costs layers x heads + 1 forward passes (with `ResampleAblation`, + 2).

    Args:
        targets: columns of `next_token_log_probs` that the mean is over, e.g. the second copy of a repeated segment.

    Raises:
        ValueError: from `check_tokens`; no column is left; the mean or the donors have the wrong shape.
    """
    check_tokens(model, tokens, shortest=2)
    _check_donors(tokens, how)
    n_layers, n_heads = model.cfg.n_layers, model.cfg.n_heads
    if not range(tokens.shape[1] - 1)[targets]:
        raise ValueError(f"{targets} leaves none of {tokens.shape[1] - 1} columns: expected at least one target")
    scores = torch.empty(len(tokens), n_layers, n_heads, device=tokens.device)
    for rows in chunks(len(tokens), batch_size):
        clean = next_token_log_probs(model, tokens[rows], batch_size=batch_size)
        replacements = _replacements(model, how, range(n_layers), rows)
        for layer in range(n_layers):
            for head in range(n_heads):
                with replacing(model, [(layer, head)], replacements):
                    ablated = next_token_log_probs(model, tokens[rows], batch_size=batch_size)
                scores[rows, layer, head] = (clean - ablated)[:, targets].mean(dim=1)
    return scores


def ablation_scores(
    model: Bridge,
    tokens: Int[Tensor, "batch pos"],
    how: Ablation,
    *,
    targets: slice = slice(None),
    batch_size: int = 8,
) -> Float[Tensor, "layer head"]:
    """Mean over sequences of `ablation_scores_by_sequence`. Raises as there."""
    return ablation_scores_by_sequence(model, tokens, how, targets=targets, batch_size=batch_size).mean(dim=0)


def _check_donors(tokens: Int[Tensor, "batch pos"], how: Ablation) -> None:
    if isinstance(how, ResampleAblation) and how.donors.shape != tokens.shape:
        raise ValueError(
            f"donors have shape {tuple(how.donors.shape)}: expected {tuple(tokens.shape)}, that of the tokens; give "
            f"each sequence one donor of its length"
        )


def _replacements(
    model: Bridge, how: Ablation, layers: Sequence[int], rows: slice
) -> Mapping[int, Float[Tensor, "*batch_pos head d_head"]]:
    """What replaces z in each of `layers`, for the sequences `rows`: [head, d_head], or [batch, pos, head, d_head]."""
    shape = (model.cfg.n_layers, model.cfg.n_heads, model.cfg.d_head)
    match how:
        case ZeroAblation():
            return {layer: torch.zeros(shape[1:], device=model.cfg.device) for layer in layers}
        case MeanAblation(z):
            if z.shape != shape:
                raise ValueError(
                    f"mean z has shape {tuple(z.shape)}: expected {shape}, [layer, head, d_head] of this model; "
                    f"compute it with mean_ablation on the same model"
                )
            return {layer: z[layer] for layer in layers}
        case ResampleAblation(donors):
            check_tokens(model, donors)
            return head_outputs(model, donors[rows], layers)

"""Metrics: from the logits at the last token to one number for every prompt and branch.

    logit_difference   logit(correct) - logit(wrong)               logit    log_probability   log p(token), nats
    kl_to_clean        KL(clean || edited), nats                   rank     0 for the highest logit

A metric that needs some tokens' logits alone says so by `columns`: then no others are computed. The rest see all
logits, of a chunk of branches at a time, so that rows x vocabulary never exist at once.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from jaxtyping import Float, Int
from torch import Tensor

from interventions.hooks import Modules
from interventions.network import unembed, unembed_columns

Logits = Float[Tensor, "batch branch d_vocab"]


@dataclass(frozen=True)
class Metric:
    """`measure` maps logits [batch, branch, column] to [batch, branch].

    Args:
        name: for tables and axes.
        columns: tokens whose logits are needed, for each prompt; None for all.
        measure: sees float32 logits and, for metrics of all tokens, the clean run's [batch, 1, d_vocab].
    """

    name: str
    columns: Int[Tensor, "batch column"] | None
    measure: Callable[[Tensor, Tensor | None], Tensor]


def logit_difference(correct: Int[Tensor, " batch"], wrong: Int[Tensor, " batch"]) -> Metric:
    """logit(correct) - logit(wrong) of each prompt."""
    columns = torch.stack([correct, wrong], dim=1)
    return Metric("logit difference", columns, lambda logits, clean: logits[..., 0] - logits[..., 1])


def token_logit(tokens: Int[Tensor, " batch"]) -> Metric:
    """logit(token) of each prompt."""
    return Metric("logit", tokens[:, None], lambda logits, clean: logits[..., 0])


def log_probability(tokens: Int[Tensor, " batch"]) -> Metric:
    """log p(token) of each prompt, nats."""
    return Metric("log-probability", None, lambda logits, clean: _log_probability(logits, tokens))


def probability(tokens: Int[Tensor, " batch"]) -> Metric:
    """p(token) of each prompt."""
    return Metric("probability", None, lambda logits, clean: _log_probability(logits, tokens).exp())


def rank(tokens: Int[Tensor, " batch"]) -> Metric:
    """Number of tokens with a higher logit: 0 where the token is the model's first choice."""

    def measure(logits: Tensor, clean: Tensor | None) -> Tensor:
        return (logits > _column(logits, tokens)).sum(dim=-1).float()

    return Metric("rank", None, measure)


def kl_to_clean() -> Metric:
    """KL(clean || edited) = sum p_clean (log p_clean - log p_edited), nats."""

    def measure(logits: Tensor, clean: Tensor | None) -> Tensor:
        assert clean is not None
        reference = clean.log_softmax(dim=-1)
        return (reference.exp() * (reference - logits.log_softmax(dim=-1))).sum(dim=-1)

    return Metric("KL to the clean run", None, measure)


def custom(name: str, measure: Callable[[Tensor], Tensor]) -> Metric:
    """A metric of one's own: from all logits [batch, branch, d_vocab] to [batch, branch]."""
    return Metric(name, None, lambda logits, clean: measure(logits))


def evaluate(
    metric: Metric,
    modules: Modules,
    hidden: Float[Tensor, "batch branch d_model"],
    clean: Float[Tensor, "batch d_model"],
    rows: slice,
    *,
    budget: int,
) -> Float[Tensor, "batch branch"]:
    """The metric of every branch, from the stream behind the final norm; float32, on the CPU.

    Args:
        rows: which of the metric's prompts these are.
        budget: bytes that logits may take at once.

    Raises:
        ValueError: the metric is for another number of prompts, or returns another shape.
    """
    if metric.columns is not None:
        columns = metric.columns[rows].to(hidden.device)
        return _checked(metric, metric.measure(unembed_columns(modules, hidden, columns), None), hidden)
    reference = unembed(modules, clean[:, None])
    at_once = max(1, budget // (4 * reference[:, 0].numel()))
    n = hidden.shape[1]
    chunks = [slice(first, min(first + at_once, n)) for first in range(0, n, at_once)]
    parts = [metric.measure(unembed(modules, hidden[:, chunk]), reference) for chunk in chunks]
    return _checked(metric, torch.cat(parts, dim=1), hidden)


def _checked(metric: Metric, values: Tensor, hidden: Tensor) -> Tensor:
    if values.shape != hidden.shape[:2]:
        raise ValueError(
            f"metric {metric.name!r} returned shape {tuple(values.shape)}: expected {tuple(hidden.shape[:2])}, "
            f"[prompt, branch]; reduce the last dimension of the logits alone"
        )
    return values.float().cpu()


def _column(logits: Tensor, tokens: Int[Tensor, " batch"]) -> Tensor:
    index = tokens.to(logits.device)[:, None, None].expand(-1, logits.shape[1], 1)
    return logits.gather(-1, index)


def _log_probability(logits: Tensor, tokens: Int[Tensor, " batch"]) -> Tensor:
    return _column(logits, tokens)[..., 0] - logits.logsumexp(dim=-1)

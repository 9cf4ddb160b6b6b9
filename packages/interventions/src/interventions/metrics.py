"""Metrics: from the logits at the last token to one number for every prompt and branch.

    logit_difference   logit(correct) - logit(wrong)               logit    log_probability   log p(token), nats
    kl_to_clean        KL(clean || edited), nats                   rank     0 for the highest logit

A metric that needs some tokens' logits alone says so by `columns`: then no others are kept, and none is computed unless
it is `normalised`, which takes log sum exp of all logits, a block of the vocabulary at a time. The rest see all logits,
of a chunk of branches at a time, so that rows x vocabulary never exist at once.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from jaxtyping import Float, Int
from torch import Tensor

from interventions.hooks import Modules
from interventions.network import log_normaliser, unembed, unembed_columns

Logits = Float[Tensor, "batch branch d_vocab"]


@dataclass(frozen=True)
class Metric:
    """`measure` maps logits [batch, branch, column] to [batch, branch].

    Args:
        name: for tables and axes.
        columns: tokens whose logits are needed, for each prompt; None for all.
        measure: sees float32 logits and a `Context`, both of the prompts that are being run.
        tokens: a token for each prompt, which `measure` is given.
        normalised: `measure` sees log-probabilities of `columns` instead of their logits.
    """

    name: str
    columns: Int[Tensor, "batch column"] | None
    measure: Callable[[Tensor, Context], Tensor]
    tokens: Int[Tensor, " batch"] | None = None
    normalised: bool = False

    def check(self, n: int) -> None:
        """Refuse a metric that is for another number of prompts.

        Raises:
            ValueError: saying for how many.
        """
        for given in (self.columns, self.tokens):
            if given is not None and len(given) != n:
                raise ValueError(
                    f"metric {self.name!r} has tokens for {len(given)} prompts: expected {n}, one for each prompt"
                )


@dataclass(frozen=True)
class Context:
    """What a metric of all tokens may ask for besides the logits: the clean run's logits and the metric's tokens."""

    clean: Float[Tensor, "batch 1 d_vocab"] | None = None
    tokens: Int[Tensor, " batch"] | None = None


def logit_difference(correct: Int[Tensor, " batch"], wrong: Int[Tensor, " batch"]) -> Metric:
    """logit(correct) - logit(wrong) of each prompt.

    Raises:
        ValueError: not as many correct tokens as wrong ones.
    """
    if correct.shape != wrong.shape:
        raise ValueError(f"{len(correct)} correct and {len(wrong)} wrong tokens: expected one of each for every prompt")
    columns = torch.stack([correct, wrong], dim=1)
    return Metric("logit difference", columns, lambda logits, _: logits[..., 0] - logits[..., 1])


def token_logit(tokens: Int[Tensor, " batch"]) -> Metric:
    """logit(token) of each prompt."""
    return Metric("logit", tokens[:, None], lambda logits, _: logits[..., 0])


def log_probability(tokens: Int[Tensor, " batch"]) -> Metric:
    """log p(token) of each prompt, nats."""
    return Metric("log-probability", tokens[:, None], lambda log_p, _: log_p[..., 0], normalised=True)


def probability(tokens: Int[Tensor, " batch"]) -> Metric:
    """p(token) of each prompt."""
    return Metric("probability", tokens[:, None], lambda log_p, _: log_p[..., 0].exp(), normalised=True)


def rank(tokens: Int[Tensor, " batch"]) -> Metric:
    """Number of tokens with a higher logit: 0 where the token is the model's first choice."""

    def measure(logits: Tensor, context: Context) -> Tensor:
        return (logits > _column(logits, context)).sum(dim=-1).float()

    return Metric("rank", None, measure, tokens)


def kl_to_clean() -> Metric:
    """KL(clean || edited) = sum p_clean (log p_clean - log p_edited), nats."""

    def measure(logits: Tensor, context: Context) -> Tensor:
        assert context.clean is not None
        reference = context.clean.log_softmax(dim=-1)
        return (reference.exp() * (reference - logits.log_softmax(dim=-1))).sum(dim=-1)

    return Metric("KL to the clean run", None, measure)


def custom(name: str, measure: Callable[[Tensor], Tensor]) -> Metric:
    """A metric of one's own: from all logits [batch, branch, d_vocab] to [batch, branch].

    It sees the prompts of one batch at a time. One that needs tokens of its own for each prompt is written as a
    `Metric` with `tokens`, which it is given for the same prompts.
    """
    return Metric(name, None, lambda logits, _: measure(logits))


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
        ValueError: the metric returns another shape.
    """
    if metric.columns is not None:
        logits = unembed_columns(modules, hidden, metric.columns[rows].to(hidden.device))
        if metric.normalised:
            logits = logits - log_normaliser(modules, hidden, budget=budget)[..., None]
        return _checked(metric, metric.measure(logits, Context()), hidden)
    reference = unembed(modules, clean[:, None])
    tokens = None if metric.tokens is None else metric.tokens[rows].to(hidden.device)
    context = Context(reference, tokens)
    at_once = max(1, budget // (4 * reference[:, 0].numel()))
    n = hidden.shape[1]
    chunks = [slice(first, min(first + at_once, n)) for first in range(0, n, at_once)]
    parts = [
        _checked(metric, metric.measure(unembed(modules, hidden[:, chunk]), context), hidden[:, chunk])
        for chunk in chunks
    ]
    return torch.cat(parts, dim=1)


def _checked(metric: Metric, values: Tensor, hidden: Tensor) -> Tensor:
    if values.shape != hidden.shape[:2]:
        raise ValueError(
            f"metric {metric.name!r} returned shape {tuple(values.shape)}: expected {tuple(hidden.shape[:2])}, "
            f"[prompt, branch]; reduce the last dimension of the logits alone"
        )
    return values.float().cpu()


def _column(logits: Tensor, context: Context) -> Tensor:
    assert context.tokens is not None
    return logits.gather(-1, context.tokens[:, None, None].expand(-1, logits.shape[1], 1))

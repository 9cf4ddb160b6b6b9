"""Metrics against their definitions on full logits in float64, in chunks and in batches."""

from __future__ import annotations

import inspect
from typing import Any

import pytest
import torch
from torch import Tensor

from interventions.edits import Add, Replace
from interventions.hooks import Modules
from interventions.metrics import (
    Metric,
    custom,
    evaluate,
    kl_to_clean,
    log_probability,
    logit_difference,
    probability,
    rank,
    token_logit,
)
from interventions.network import inference, unembed
from interventions.prompts import as_prompts
from interventions.sweeps import sweep

from .conftest import random_network

CORRECT, WRONG = torch.tensor([3, 5, 7]), torch.tensor([4, 9, 1])
HIDDEN = torch.randn(3, 5, 32, generator=torch.Generator().manual_seed(0))
CLEAN = torch.randn(3, 32, generator=torch.Generator().manual_seed(1))


def expected(name: str, logits: Tensor, clean: Tensor) -> Tensor:
    """Of logits [prompt, branch, token], one number after another."""
    out = torch.zeros(logits.shape[:2], dtype=torch.float64)
    for i in range(logits.shape[0]):
        q = clean[i].exp() / clean[i].exp().sum()
        for j in range(logits.shape[1]):
            row = logits[i, j]
            p = row.exp() / row.exp().sum()
            c, w = int(CORRECT[i]), int(WRONG[i])
            out[i, j] = {
                "logit difference": row[c] - row[w],
                "logit": row[c],
                "log-probability": p[c].log(),
                "probability": p[c],
                "rank": torch.tensor(row.argsort(descending=True).tolist().index(c)),
                "KL to the clean run": sum(a * (a / b).log() for a, b in zip(q, p, strict=True)),
                "entropy": -(p * p.log()).sum(),
            }[name]
    return out


def entropy(logits: Tensor) -> Tensor:
    return -(logits.softmax(-1) * logits.log_softmax(-1)).sum(-1)


METRICS = [
    logit_difference(CORRECT, WRONG),
    token_logit(CORRECT),
    log_probability(CORRECT),
    probability(CORRECT),
    rank(CORRECT),
    kl_to_clean(),
    custom("entropy", entropy),
]


@pytest.mark.parametrize("metric", METRICS, ids=lambda metric: metric.name)
@pytest.mark.parametrize("name", ["gpt2", "gemma2", "phi"])  # plain; soft-capped logits; an unembedding with bias
@pytest.mark.parametrize("budget", [1, 10**9])
def test_metrics_are_what_they_are_defined_to_be(metric: Metric, name: str, budget: int) -> None:
    modules = Modules(random_network(name))
    with inference(modules.network):
        logits, clean = unembed(modules, HIDDEN).double(), unembed(modules, CLEAN[:, None])[:, 0].double()
        got = evaluate(metric, modules, HIDDEN, CLEAN, slice(0, 3), budget=budget)
        last = evaluate(metric, modules, HIDDEN[2:], CLEAN[2:], slice(2, 3), budget=budget)
    assert got.dtype == torch.float32
    torch.testing.assert_close(got.double(), expected(metric.name, logits, clean), atol=2e-5, rtol=1e-5)
    torch.testing.assert_close(last, got[2:], atol=1e-5, rtol=1e-5)


def test_logits_are_those_of_the_model() -> None:
    for name in ("gpt2", "gemma2", "phi"):
        network = random_network(name)
        prompts = as_prompts([[1, 2, 3, 4]] * 3)
        with torch.no_grad():
            logits = network(prompts.tokens).logits[:, -1].double()
        for metric in METRICS:
            clean = sweep(network, prompts, Add(torch.zeros(32)), metric, component="attn_out", over=("layer",)).clean
            want = expected(metric.name, logits[:, None], logits)[:, 0]
            torch.testing.assert_close(clean.double(), want, atol=5e-5, rtol=1e-4)


def test_chunks_hold_no_more_logits_than_the_budget() -> None:
    modules = Modules(random_network("gpt2"))
    seen: list[int] = []

    def keep(logits: Tensor) -> Tensor:
        seen.append(logits.shape[1])
        return logits[..., 0]

    with inference(modules.network):
        evaluate(custom("first", keep), modules, HIDDEN, CLEAN, slice(0, 3), budget=2 * 3 * 37 * 4)
    assert seen == [2, 2, 1]


@pytest.mark.parametrize(
    ("metric", "message"),
    [
        (logit_difference(CORRECT[:2], WRONG[:2]), "'logit difference' has tokens for 2 prompts: expected 3"),
        (log_probability(CORRECT[:1]), "'log-probability' has tokens for 1 prompts: expected 3"),
    ],
)
def test_a_metric_for_other_prompts_is_refused_before_anything_runs(
    metric: Metric, message: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    network = random_network("gpt2")
    monkeypatch.setattr("interventions.network.final_hidden", pytest.fail)
    prompts = as_prompts([[1, 2], [3, 4], [5, 6]])
    with pytest.raises(ValueError, match=message):
        sweep(network, prompts, Replace(prompts), metric, component="z", over=("layer",))


def test_a_metric_of_the_wrong_shape_is_refused_before_any_cell(monkeypatch: pytest.MonkeyPatch) -> None:
    network: Any = random_network("gpt2")
    monkeypatch.setattr("interventions.sweeps.run_branches", pytest.fail)
    prompts = as_prompts([[1, 2], [3, 4], [5, 6]])
    with pytest.raises(ValueError, match=r"'mean' returned shape \(3,\): expected \(3, 1\), \[prompt, branch\]"):
        sweep(
            network,
            prompts,
            Replace(as_prompts([[7, 8]])),
            custom("mean", lambda logits: logits.mean(dim=(1, 2))),
            component="z",
            over=("layer",),
        )
    with pytest.raises(ValueError, match="2 correct and 3 wrong tokens"):
        inspect.unwrap(logit_difference)(torch.tensor([1, 2]), WRONG)

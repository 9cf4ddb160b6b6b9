"""Skip-trigrams against a loop over all triples of dense tables, and their effect in a shipped model."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
import torch
from torch import Tensor

from circuits.head_circuits import full_ov_circuit, full_qk_circuit, normalised_embedding
from circuits.losses import next_token_log_probs
from circuits.skip_trigrams import SkipTrigram, top_skip_trigrams
from circuits.weights import Weights, read_weights

from .conftest import Case, gpt2, hugging_face_case


def by_loop(weights: Weights, head: tuple[int, int], allowed: list[int], E: Tensor | None = None) -> list[SkipTrigram]:
    """The strongest triple of each source, over all destinations and outputs, strongest first."""
    qk = full_qk_circuit(weights, head, embedding=E).AB[allowed][:, allowed].double()
    ov = full_ov_circuit(weights, head, embedding=E).AB[allowed][:, allowed].double()
    qk, ov = (table - table.mean(dim=1, keepdim=True) for table in (qk, ov))
    qk, ov = (table / table.square().mean().sqrt() for table in (qk, ov))
    best = []
    for source in range(len(allowed)):
        triples = [
            (float(qk[destination, source] * ov[source, output]), destination, output)
            for destination in range(len(allowed))
            for output in range(len(allowed))
            if qk[destination, source] > 0 and ov[source, output] > 0
        ]
        if triples:
            strength, destination, output = max(triples)
            entries = float(qk[destination, source]), float(ov[source, output])
            best.append((strength, SkipTrigram(allowed[source], allowed[destination], allowed[output], *entries)))
    return [trigram for _, trigram in sorted(best, key=lambda pair: -pair[0])]


def same(ours: list[SkipTrigram], theirs: list[SkipTrigram]) -> None:
    assert len(ours) == len(theirs)
    for one, other in zip(ours, theirs, strict=True):
        assert (one.source, one.destination, one.output) == (other.source, other.destination, other.output)
        assert one.qk == pytest.approx(other.qk, rel=1e-3)
        assert one.ov == pytest.approx(other.ov, rel=1e-3)


@pytest.mark.parametrize("chunk", [3, 8, 2048])
def test_the_strongest_of_all_triples(native: Case, chunk: int) -> None:
    weights = read_weights(native.bridge)
    for head in [(0, 0), (2, 1)]:
        expected = by_loop(weights, head, list(range(29)))
        same(top_skip_trigrams(weights, head, n=29, chunk=chunk), expected)
        same(top_skip_trigrams(weights, head, n=3, chunk=chunk), expected[:3])
        assert len(expected) > 20
        assert len({trigram.destination for trigram in expected}) > 3


def test_gpt2() -> None:
    weights = read_weights(hugging_face_case(gpt2()).bridge)
    same(top_skip_trigrams(weights, (0, 2), n=29), by_loop(weights, (0, 2), list(range(29))))


def test_allowed_tokens_and_another_embedding(native: Case) -> None:
    weights = read_weights(native.bridge)
    allowed = [20, 3, 11, 4, 28, 7]
    same(top_skip_trigrams(weights, (1, 1), tokens=torch.tensor(allowed)), by_loop(weights, (1, 1), allowed))
    E = normalised_embedding(weights)
    same(top_skip_trigrams(weights, (1, 1), n=5, embedding=E), by_loop(weights, (1, 1), list(range(29)), E)[:5])


@torch.no_grad()
def test_the_source_makes_a_shipped_model_predict_the_output(shipped: Any) -> None:
    """Random text that ends in the destination, with the source in it or not: log-probability of the output."""
    model = shipped("attn-only-1l")
    weights, generator = read_weights(model), torch.Generator().manual_seed(0)
    gains = []
    for head in range(0, 12, 3):
        for trigram in top_skip_trigrams(weights, (0, head), n=4, tokens=torch.arange(1, 1024)):
            without = torch.randint(1, 1024, (8, 20), generator=generator)
            without[:, 0], without[:, -2], without[:, -1] = 0, trigram.destination, trigram.output
            with_source = without.clone()
            with_source[:, 9] = trigram.source
            gains.append(next_token_log_probs(model, with_source) - next_token_log_probs(model, without))
    gain = torch.stack(gains)[..., -1].mean(dim=1)
    assert gain.mean() > 1
    assert (gain > 0).float().mean() > 0.9


def test_bad_input(case: Case, native: Case) -> None:
    weights = read_weights(native.bridge)
    for bad, message in [
        ({"n": 0}, "n=0: expected at least 1 skip-trigram"),
        ({"tokens": torch.tensor([1, 29])}, "tokens hold 29: expected 0 to 28"),
        ({"tokens": torch.tensor([3])}, "1 tokens, 1 of them different: expected at least 2, each given once"),
        ({"tokens": torch.tensor([3, 4, 3])}, "3 tokens, 2 of them different: expected at least 2, each given once"),
    ]:
        with pytest.raises(ValueError, match=message):
            top_skip_trigrams(weights, (0, 0), **bad)  # type: ignore[arg-type]
    with pytest.raises(ValueError, match=r"head \(3, 0\) does not exist"):
        top_skip_trigrams(weights, (3, 0))
    with pytest.raises(ValueError, match=r"the OV circuit of head \(0, 1\) is the same for all tokens"):
        top_skip_trigrams(replace(weights, W_O=torch.zeros_like(weights.W_O)), (0, 1))
    if case.bridge.cfg.positional_embedding_type == "rotary":
        with pytest.raises(ValueError, match="the model has rotary positions"):
            top_skip_trigrams(read_weights(case.bridge), (0, 0))

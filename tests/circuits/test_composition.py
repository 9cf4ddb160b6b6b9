"""Composition scores against dense float64 matrices, TransformerLens and the geometry of random directions."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor

from circuits.composition import composition_baseline, composition_scores, random_composition_scores
from circuits.weights import Weights, read_weights

from .conftest import Case, native_case


def dense_score(earlier: Tensor, later: Tensor) -> float:
    return float((earlier @ later).norm() / (earlier.norm() * later.norm()))


def check(weights: Weights, heads: range) -> None:
    """All pairs of `heads` of all layers, with every d_model x d_model matrix written out."""
    scores = composition_scores(weights)
    W_Q, W_K, W_V, W_O = (getattr(weights, name).double() for name in ("W_Q", "W_K", "W_V", "W_O"))
    for later in range(weights.n_layers):
        for earlier in range(weights.n_layers):
            for one in heads:
                for other in heads:
                    at = earlier, one, later, other
                    if earlier >= later:
                        assert all(getattr(scores, name)[at].isnan() for name in "qkv")
                        continue
                    W_OV = W_V[earlier, one] @ W_O[earlier, one]
                    W_QK = W_Q[later, other] @ W_K[later, other].T
                    assert float(scores.q[at]) == pytest.approx(dense_score(W_OV, W_QK), rel=1e-5)
                    assert float(scores.k[at]) == pytest.approx(dense_score(W_OV, W_QK.T), rel=1e-5)
                    later_OV = W_V[later, other] @ W_O[later, other]
                    assert float(scores.v[at]) == pytest.approx(dense_score(W_OV, later_OV), rel=1e-5)


def test_scores_are_those_of_the_dense_matrices(case: Case) -> None:
    weights = read_weights(case.bridge)
    check(weights, range(weights.n_heads))


def test_shipped_models(shipped: Any) -> None:
    check(read_weights(shipped("attn-only-3l")), range(0, 12, 5))


def test_previous_token_head_composes_with_the_keys_of_the_induction_heads(shipped: Any) -> None:
    weights = read_weights(shipped("attn-only-2l"))
    scores, baseline = composition_scores(weights), composition_baseline(weights, seed=0)
    for induction_head in (11, 5):
        k = float(scores.k[0, 6, 1, induction_head])
        assert k == scores.k[0, :, 1, induction_head].max()
        assert k > baseline.mean + 20 * baseline.std
        assert k > 1.5 * max(float(scores.q[0, 6, 1, induction_head]), float(scores.v[0, 6, 1, induction_head]))


@torch.no_grad()
def test_transformer_lens_agrees_on_weights_that_are_folded_already() -> None:
    bridge = native_case(n_layers=3).bridge
    for block in bridge.blocks:
        block.ln1.weight.fill_(1)
        for projection in (block.attn.q, block.attn.k, block.attn.v):
            projection.weight.sub_(projection.weight.mean(dim=1, keepdim=True))
        block.attn.o.weight.sub_(block.attn.o.weight.mean(dim=0, keepdim=True))
    scores = composition_scores(read_weights(bridge))
    for name in "qkv":
        theirs = bridge.all_composition_scores(name.upper()).scores
        ours = getattr(scores, name).nan_to_num()
        assert theirs[0, :, 1].min() > 0.05
        torch.testing.assert_close(ours, theirs, rtol=1e-4, atol=1e-6)


def test_heads_that_write_nothing_a_later_head_reads_score_zero_and_all_of_it_one(native: Case) -> None:
    weights = read_weights(native.bridge)
    d_head = weights.d_head
    basis = torch.eye(weights.W_E.shape[1])
    for W, at in ((weights.W_V, 0), (weights.W_Q, 0), (weights.W_K, d_head)):
        W[:] = basis[:, at : at + d_head]
    weights.W_O[:] = basis[:d_head]
    scores = composition_scores(weights)
    torch.testing.assert_close(scores.k[0, :, 1], torch.zeros(3, 3))
    # two projections on the same d_head directions: the norm of their product is that of each
    torch.testing.assert_close(scores.q[0, :, 1], torch.full((3, 3), d_head**-0.5))
    torch.testing.assert_close(scores.v[0, :, 1], torch.full((3, 3), d_head**-0.5))


@pytest.mark.parametrize(("d_model", "d_head"), [(48, 4), (192, 16), (768, 64)])
def test_random_scores_lie_at_one_over_the_root_of_d_model(d_model: int, d_head: int) -> None:
    scores = random_composition_scores(d_model, d_head, 60, seed=0)
    assert scores.shape == (60,)
    assert float(scores.square().mean().sqrt()) == pytest.approx(d_model**-0.5, rel=0.05)
    assert torch.equal(scores, random_composition_scores(d_model, d_head, 60, seed=0))
    assert not torch.equal(scores, random_composition_scores(d_model, d_head, 60, seed=1))


def test_random_scores_are_those_of_dense_matrices() -> None:
    generator = torch.Generator().manual_seed(5)
    W_V, W_O, A, B = (torch.randn(shape, generator=generator) for shape in ((20, 3), (3, 20)) * 2)
    expected = dense_score(W_V @ W_O, A @ B)
    assert float(random_composition_scores(20, 3, 1, seed=5)) == pytest.approx(expected, rel=1e-5)


def test_baseline_has_the_shapes_of_the_model(native: Case) -> None:
    scores = random_composition_scores(12, 4, 30, seed=3)
    baseline = composition_baseline(read_weights(native.bridge), n=30, seed=3)
    assert tuple(baseline) == pytest.approx((float(scores.mean()), float(scores.std())))


def test_too_few_are_refused(native: Case) -> None:
    with pytest.raises(ValueError, match="d_model=12, d_head=4, n=0: expected at least 1 of each"):
        random_composition_scores(12, 4, 0, seed=0)
    with pytest.raises(ValueError, match="n=1: expected at least 2 random pairs"):
        composition_baseline(read_weights(native.bridge), n=1, seed=0)

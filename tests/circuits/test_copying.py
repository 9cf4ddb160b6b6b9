"""Copying against dense tables: ranks by sorting, eigenvalues of the d_vocab x d_vocab matrix in float64."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
import torch
from torch import Tensor

from circuits.copying import (
    copying_accuracy,
    copying_accuracy_of_sum,
    copying_ranks,
    copying_scores,
    ov_eigenvalues,
    positive_eigenvalue_share,
)
from circuits.head_circuits import normalised_embedding
from circuits.head_outputs import Head
from circuits.weights import Weights, read_weights

from .conftest import D_HEAD, Case

INDUCTION = [(1, 0), (1, 2), (1, 3), (1, 4), (1, 5), (1, 7), (1, 11)]


@torch.no_grad()
def dense(model: Any, heads: list[Head], E: Tensor | None = None) -> Tensor:
    """The sum of full OV circuits from the raw weights of the bridge, in float64."""
    x = (model.W_E if E is None else E).detach().double()
    total = torch.zeros(len(x), model.cfg.d_vocab, dtype=torch.float64)
    for layer, head in heads:
        group = model.cfg.n_heads // model.W_V.shape[1]
        y = fold(x, model.blocks[layer].ln1) @ model.W_V[layer, head // group].double()
        total += fold(y @ model.W_O[layer, head].double(), model.ln_final) @ model.W_U.double()
    return total


def fold(x: Tensor, norm: Any) -> Tensor:
    centred: Tensor = (x if norm.uses_rms_norm else x - x.mean(-1, keepdim=True)) * norm.weight.double()
    return centred


def ranks(table: Tensor) -> Tensor:
    """The place of the diagonal entry in its sorted row."""
    order = table.argsort(dim=1, descending=True)
    return (order == torch.arange(len(table))[:, None]).nonzero()[:, 1]


def check_accuracy(model: Any, heads: list[Head]) -> None:
    weights = read_weights(model)
    shares = copying_accuracy(weights, k=(1, 3))
    for layer in range(weights.n_layers):
        for head in range(weights.n_heads):
            rank = ranks(dense(model, [(layer, head)]))
            expected = torch.tensor([(rank < 1).double().mean(), (rank < 3).double().mean()])
            torch.testing.assert_close(shares[layer, head], expected.float())
    rank = ranks(dense(model, heads))
    tokens = torch.tensor([5, 0, 28, 7])
    assert copying_ranks(weights, heads, tokens).tolist() == rank[tokens].tolist()
    torch.testing.assert_close(copying_accuracy_of_sum(weights, heads, k=(4,)), (rank < 4).float().mean()[None])
    restricted = copying_accuracy_of_sum(weights, heads, k=(4,), tokens=tokens)
    torch.testing.assert_close(restricted, (rank[tokens] < 4).float().mean()[None])


def test_accuracy_is_the_share_of_a_dense_table(case: Case) -> None:
    check_accuracy(case.bridge, [(0, 1), (1, 2)])


def test_scores_are_those_of_the_dense_eigenvalues(case: Case) -> None:
    weights = read_weights(case.bridge)
    eigenvalues, scores, shares = ov_eigenvalues(weights), copying_scores(weights), positive_eigenvalue_share(weights)
    for layer in range(weights.n_layers):
        for head in range(weights.n_heads):
            theirs = torch.linalg.eigvals(dense(case.bridge, [(layer, head)]))
            theirs = theirs[theirs.abs().argsort(descending=True)[:D_HEAD]]
            for one in eigenvalues[layer, head].to(theirs):
                assert (one - theirs).abs().min() < 1e-4 * theirs.abs().max()
            assert eigenvalues[layer, head].sum().real == pytest.approx(float(theirs.sum().real), rel=1e-3, abs=1e-2)
            assert float(scores[layer, head]) == pytest.approx(float(theirs.real.sum() / theirs.abs().sum()), abs=1e-3)
            assert float(shares[layer, head]) == pytest.approx(float((theirs.real > 0).double().mean()))


def test_accuracy_in_a_shipped_model(shipped: Any) -> None:
    model = shipped("attn-only-2l")
    weights = read_weights(model)
    shares = copying_accuracy(weights)
    assert shares.shape == (2, 12, 2)
    for head in [(0, 6), (1, 11)]:
        rank = ranks(dense(model, [head]))
        expected = torch.tensor([(rank < 1).float().mean(), (rank < 5).float().mean()])
        torch.testing.assert_close(shares[head], expected, atol=2e-3, rtol=0)  # ties of rounding
    together = copying_accuracy_of_sum(weights, INDUCTION)
    assert together[0] > shares[1, :, 0].max()
    assert together[0] > 0.5  # chance is 1 / 1024


def test_induction_heads_of_a_shipped_model_have_positive_eigenvalues(shipped: Any) -> None:
    scores = copying_scores(read_weights(shipped("attn-only-2l")))
    assert min(scores[head] for head in INDUCTION) > 0.5


def identity_head(sign: float) -> Weights:
    """One head that copies all of d_vocab = d_model = d_head = 6 tokens, or lowers each."""
    eye = torch.eye(6)
    zeros = torch.zeros(1, 1, 6)
    return Weights(
        W_E=eye,
        W_pos=None,
        W_Q=eye[None, None],
        W_K=eye[None, None],
        W_V=eye[None, None],
        W_O=sign * eye[None, None],
        W_U=eye,
        b_Q=zeros,
        b_K=zeros,
        b_V=zeros,
        b_O=zeros[0],
        b_U=zeros[0, 0],
        rotary=False,
        centred=False,
        eps=0.0,
    )


def test_a_head_that_copies_and_one_that_does_the_opposite() -> None:
    copies, opposes = identity_head(1.0), identity_head(-1.0)
    assert copying_accuracy(copies, k=(1, 6)).tolist() == [[[1.0, 1.0]]]
    assert copying_accuracy(opposes, k=(1, 5, 6)).tolist() == [[[0.0, 0.0, 1.0]]]
    assert float(copying_scores(copies)) == 1
    assert float(copying_scores(opposes)) == -1
    assert float(positive_eigenvalue_share(copies)) == 1
    assert float(positive_eigenvalue_share(opposes)) == 0
    assert copying_scores(replace(copies, W_O=torch.zeros_like(copies.W_O))).isnan().all()


def test_another_embedding(native: Case) -> None:
    weights = read_weights(native.bridge)
    E = torch.randn(29, 12, generator=torch.Generator().manual_seed(1))
    table = dense(native.bridge, [(1, 0)], E)
    torch.testing.assert_close(
        copying_accuracy(weights, k=(3,), embedding=E)[1, 0], (ranks(table) < 3).float().mean()[None]
    )
    assert copying_ranks(weights, (1, 0), torch.arange(29), embedding=E).tolist() == ranks(table).tolist()
    assert ov_eigenvalues(weights, embedding=E)[1, 0].sum().real == pytest.approx(float(table.trace()), rel=1e-3)
    rescaled = normalised_embedding(weights)
    assert torch.equal(copying_accuracy(weights, embedding=rescaled), copying_accuracy(weights))
    assert not torch.allclose(copying_scores(weights, embedding=rescaled), copying_scores(weights))


def test_bad_input(native: Case) -> None:
    weights = read_weights(native.bridge)
    padded = replace(weights, W_U=torch.ones(12, 32), b_U=torch.ones(32))
    for function in (copying_accuracy, copying_scores):
        with pytest.raises(ValueError, match="29 tokens are embedded and 32 have logits: expected as many of both"):
            function(padded)
    with pytest.raises(ValueError, match="29 tokens are embedded and 32 have logits"):
        copying_ranks(padded, (0, 0), torch.tensor([1]))
    with pytest.raises(ValueError, match=r"k=\(30,\): expected at least one number, each 1 to 29"):
        copying_accuracy(weights, k=(30,))
    with pytest.raises(ValueError, match="rows hold 29: expected 0 to 28"):
        copying_ranks(weights, (0, 0), torch.tensor([29]))
    with pytest.raises(ValueError, match="tokens are empty: expected at least one source token"):
        copying_accuracy(weights, tokens=torch.tensor([], dtype=torch.int64))
    with pytest.raises(ValueError, match=r"head \(4, 0\) does not exist"):
        copying_accuracy_of_sum(weights, (4, 0))

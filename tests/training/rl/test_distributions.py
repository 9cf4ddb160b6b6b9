"""Log-probability, entropy and divergence against `torch.distributions`, in PyTorch's form and in numpy's."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor
from torch.distributions import Categorical as TheirCategorical
from torch.distributions import Independent, Normal, kl_divergence

from training.rl.distributions import Categorical, DiagonalGaussian, MultiCategorical
from training.rl.heads import CategoricalHead, GaussianHead

G = torch.Generator().manual_seed(0)
ROWS = 7


def normal(*shape: int) -> Tensor:
    return torch.randn(*shape, generator=G)


def test_categorical() -> None:
    logits, other = normal(ROWS, 5), normal(ROWS, 5)
    actions = torch.randint(5, (ROWS, 1), generator=G)
    ours = Categorical(logits.log_softmax(1))
    theirs: Any = TheirCategorical(logits=logits)
    assert torch.allclose(ours.log_prob(actions.float()), theirs.log_prob(actions[:, 0]))
    assert torch.allclose(ours.entropy(), theirs.entropy())
    old = Categorical(other.log_softmax(1))
    expected = kl_divergence(TheirCategorical(logits=other), theirs)
    assert torch.allclose(old.kl(ours), expected, atol=1e-6)
    assert torch.allclose(ours.like(old.flat()).kl(ours), expected, atol=1e-6)


def test_several_categoricals_add_up() -> None:
    sizes, logits, other = (2, 4, 3), normal(ROWS, 9), normal(ROWS, 9)
    actions = torch.stack([torch.randint(size, (ROWS,), generator=G) for size in sizes], dim=1)
    policy, old = (
        MultiCategorical(tuple(Categorical(part.log_softmax(1)) for part in torch.split(x, list(sizes), 1)))
        for x in (logits, other)
    )
    theirs: list[Any] = [TheirCategorical(logits=part) for part in torch.split(logits, list(sizes), 1)]
    theirs_old = [TheirCategorical(logits=part) for part in torch.split(other, list(sizes), 1)]
    log_prob = sum(d.log_prob(actions[:, i]) for i, d in enumerate(theirs))
    assert torch.allclose(policy.log_prob(actions.float()), torch.as_tensor(log_prob))
    assert torch.allclose(policy.entropy(), torch.as_tensor(sum(d.entropy() for d in theirs)))
    kl = torch.as_tensor(sum(kl_divergence(a, b) for a, b in zip(theirs_old, theirs, strict=True)))
    assert torch.allclose(policy.like(old.flat()).kl(policy), kl, atol=1e-6)
    head = CategoricalHead(logits.numpy(), sizes)
    assert torch.allclose(torch.from_numpy(head.log_prob(actions.float().numpy())), policy.log_prob(actions.float()))
    assert head.entropy() == pytest.approx(policy.entropy().mean().item(), rel=1e-6)
    assert head.kl(old.flat().numpy()) == pytest.approx(kl.mean().item(), rel=1e-5)


@pytest.mark.parametrize("rows", [1, ROWS])
def test_diagonal_gaussian(rows: int) -> None:
    mean, log_std, actions = normal(ROWS, 3), 0.5 * normal(rows, 3), normal(ROWS, 3)
    old_mean, old_log_std = normal(ROWS, 3), 0.5 * normal(ROWS, 3)
    ours, old = DiagonalGaussian(mean, log_std), DiagonalGaussian(old_mean, old_log_std)
    theirs: Any = Independent(Normal(mean, log_std.expand_as(mean).exp()), 1)
    theirs_old = Independent(Normal(old_mean, old_log_std.exp()), 1)
    kl = kl_divergence(theirs_old, theirs)
    assert torch.allclose(ours.log_prob(actions), theirs.log_prob(actions), atol=1e-5)
    assert torch.allclose(ours.entropy().expand(ROWS), theirs.entropy(), atol=1e-6)
    assert torch.allclose(ours.like(old.flat()).kl(ours), kl, rtol=1e-5)
    if rows == 1:
        head = GaussianHead(mean.numpy(), log_std.numpy())
        assert torch.allclose(torch.from_numpy(head.log_prob(actions.numpy())), theirs.log_prob(actions), atol=1e-5)
        assert head.entropy() == pytest.approx(theirs.entropy().mean().item(), rel=1e-6)
        assert head.kl(old.flat().numpy()) == pytest.approx(kl.mean().item(), rel=1e-5)

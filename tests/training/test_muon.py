"""Muon against the rule of `torch.optim.Muon`, written out matrix by matrix in float32."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

from training import Muon
from training.muon import orthogonalise

SHAPES = ((6, 10), (10, 6), (6, 10), (5, 5))


def newton_schulz(matrix: Tensor) -> Tensor:
    """The loop of `torch.optim.Muon` for one matrix, without its cast to bfloat16."""
    a, b, c = 3.4445, -4.7750, 2.0315
    x = matrix.clone()
    if matrix.shape[0] > matrix.shape[1]:
        x = x.T
    x = x / x.norm().clamp(min=1e-7)
    for _ in range(5):
        gram = x @ x.T
        x = torch.addmm(x, torch.addmm(gram, gram, gram, beta=b, alpha=c), x, beta=a)
    return x.T if matrix.shape[0] > matrix.shape[1] else x


def parameters(seed: int) -> list[nn.Parameter]:
    generator = torch.Generator().manual_seed(seed)
    return [nn.Parameter(torch.randn(shape, generator=generator)) for shape in SHAPES]


def test_three_steps_equal_the_rule_written_out() -> None:
    lr, momentum, weight_decay = 0.03, 0.9, 0.1
    ours, expected = parameters(0), [parameter.detach().clone() for parameter in parameters(0)]
    optimizer = Muon(ours, lr=lr, momentum=momentum, weight_decay=weight_decay)
    buffers = [torch.zeros(shape) for shape in SHAPES]
    generator = torch.Generator().manual_seed(1)
    for _ in range(3):
        gradients = [torch.randn(shape, generator=generator) for shape in SHAPES]
        for parameter, gradient in zip(ours, gradients, strict=True):
            parameter.grad = gradient.clone()
        optimizer.step()
        for i, ((rows, columns), gradient) in enumerate(zip(SHAPES, gradients, strict=True)):
            buffers[i] = momentum * buffers[i] + (1 - momentum) * gradient
            update = newton_schulz((1 - momentum) * gradient + momentum * buffers[i])
            expected[i] = expected[i] * (1 - lr * weight_decay) - lr * max(1.0, rows / columns) ** 0.5 * update
    for parameter, value in zip(ours, expected, strict=True):
        torch.testing.assert_close(parameter.detach(), value, rtol=1e-4, atol=2e-6)


def test_agrees_with_torch_up_to_its_bfloat16() -> None:
    ours, theirs = parameters(2), parameters(2)
    before = [parameter.detach().clone() for parameter in ours]
    optimizers = (Muon(ours, lr=1.0), torch.optim.Muon(theirs, lr=1.0, weight_decay=0.0))
    generator = torch.Generator().manual_seed(3)
    for mine, reference in zip(ours, theirs, strict=True):
        mine.grad = torch.randn(mine.shape, generator=generator)
        reference.grad = mine.grad.clone()
    for optimizer in optimizers:
        optimizer.step()
    for start, mine, reference in zip(before, ours, theirs, strict=True):
        distance = (mine - reference).norm() / (reference - start).norm()
        assert distance.item() < 0.03


@pytest.mark.parametrize("shape", [(8, 32), (32, 8), (16, 16)])
def test_orthogonalise_keeps_the_singular_vectors_and_levels_the_values(shape: tuple[int, int]) -> None:
    generator = torch.Generator().manual_seed(4)
    n = min(shape)
    left, _ = torch.linalg.qr(torch.randn(3, shape[0], n, generator=generator))
    right, _ = torch.linalg.qr(torch.randn(3, shape[1], n, generator=generator))
    singular = torch.logspace(0, -1, n).expand(3, n)
    result = orthogonalise(left * singular[:, None] @ right.mT)
    in_basis = left.mT @ result @ right
    diagonal = in_basis.diagonal(dim1=1, dim2=2)
    assert diagonal.min() > 0.65
    assert diagonal.max() < 1.25
    torch.testing.assert_close(in_basis, torch.diag_embed(diagonal), rtol=0, atol=1e-4)


def test_orthogonalise_treats_each_matrix_alone() -> None:
    matrices = torch.randn(4, 3, 7, generator=torch.Generator().manual_seed(5))
    matrices[1] *= 1e4
    alone = torch.stack([orthogonalise(matrix[None])[0] for matrix in matrices])
    torch.testing.assert_close(orthogonalise(matrices), alone)


def test_zero_gradient_moves_nothing_but_the_decay() -> None:
    (parameter, *_) = parameters(6)
    start = parameter.detach().clone()
    optimizer = Muon([parameter], lr=0.1, weight_decay=0.5)
    parameter.grad = torch.zeros_like(parameter)
    optimizer.step()
    torch.testing.assert_close(parameter.detach(), start * 0.95)


def test_parameter_without_gradient_is_left_alone() -> None:
    with_gradient, without = parameters(7)[:2]
    start = without.detach().clone()
    with_gradient.grad = torch.ones_like(with_gradient)
    Muon([with_gradient, without], lr=0.1, weight_decay=0.5).step()
    assert torch.equal(without.detach(), start)


def test_closure_may_compute_gradients() -> None:
    (parameter, *_) = parameters(8)
    start = parameter.detach().clone()
    optimizer = Muon([parameter], lr=0.1)

    def closure() -> float:
        value = parameter.square().sum()
        value.backward()  # type: ignore[no-untyped-call]
        return value.item()

    assert optimizer.step(closure) == pytest.approx(start.square().sum().item())
    assert not torch.equal(parameter.detach(), start)


def test_a_vector_is_refused() -> None:
    with pytest.raises(
        ValueError, match=r"^Muon: expected matrices, got a parameter of shape \(3,\); give it to AdamW$"
    ):
        Muon([nn.Parameter(torch.zeros(3))], lr=0.1)

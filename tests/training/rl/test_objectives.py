"""The objectives of the paper against loops over single numbers."""

from __future__ import annotations

import pytest
import torch

from training.rl import AdaptiveKL, Clip, FixedKL, Unpenalised
from training.rl.objectives import Objective, first_coefficient, next_coefficient, policy_loss, value_loss

RATIOS = [0.5, 0.79, 0.85, 1.0, 1.15, 1.25, 2.0, 1.3, 0.7]
ADVANTAGES = [1.0, -1.0, 2.0, 0.5, -0.3, 1.5, -2.0, 0.0, 0.4]


def clipped(ratio: float, advantage: float, epsilon: float) -> float:
    """As Figure 1 of the paper draws it."""
    if advantage > 0:
        return min(ratio, 1 + epsilon) * advantage
    return max(ratio, 1 - epsilon) * advantage


@pytest.mark.parametrize("epsilon", [0.1, 0.2, 0.3])
def test_clipped_surrogate(epsilon: float) -> None:
    ratio = torch.tensor(RATIOS, requires_grad=True)
    loss = policy_loss(Clip(epsilon), ratio, torch.tensor(ADVANTAGES), epsilon)
    terms = [clipped(r, a, epsilon) for r, a in zip(RATIOS, ADVANTAGES, strict=True)]
    assert loss.item() == pytest.approx(-sum(terms) / len(terms))
    loss.backward()  # type: ignore[no-untyped-call]
    assert ratio.grad is not None
    h = 1e-4
    for r, a, gradient in zip(RATIOS, ADVANTAGES, ratio.grad.tolist(), strict=True):
        slope = (clipped(r + h, a, epsilon) - clipped(r - h, a, epsilon)) / (2 * h)
        assert gradient == pytest.approx(-slope / len(RATIOS), abs=1e-5)


@pytest.mark.parametrize("objective", [Unpenalised(), FixedKL(3.0), AdaptiveKL()])
def test_surrogate_without_clipping(objective: Objective) -> None:
    loss = policy_loss(objective, torch.tensor(RATIOS), torch.tensor(ADVANTAGES), 0.2)
    assert loss.item() == pytest.approx(-sum(r * a for r, a in zip(RATIOS, ADVANTAGES, strict=True)) / len(RATIOS))


def test_the_penalty_follows_the_papers_rule() -> None:
    adaptive = AdaptiveKL(target=0.03, beta=1.0)
    assert first_coefficient(adaptive) == 1.0
    assert next_coefficient(adaptive, 4.0, 0.03 / 1.5 - 1e-6) == 2.0
    assert next_coefficient(adaptive, 4.0, 0.03 / 1.5 + 1e-6) == 4.0
    assert next_coefficient(adaptive, 4.0, 0.03 * 1.5 - 1e-6) == 4.0
    assert next_coefficient(adaptive, 4.0, 0.03 * 1.5 + 1e-6) == 8.0
    assert first_coefficient(FixedKL(3.0)) == next_coefficient(FixedKL(3.0), 3.0, 9.9) == 3.0
    assert first_coefficient(Clip()) == first_coefficient(Unpenalised()) == 0.0


@pytest.mark.parametrize("clip", [None, 0.2])
def test_value_loss(clip: float | None) -> None:
    values, targets, old = [1.0, 2.0, -1.0, 0.5], [1.5, 0.0, -3.0, 0.4], [0.9, 2.5, -0.5, 0.45]
    expected = 0.0
    for value, target, before in zip(values, targets, old, strict=True):
        error = (value - target) ** 2
        if clip is not None:
            held = min(max(value, before - clip), before + clip)
            error = max(error, (held - target) ** 2)
        expected += 0.5 * error / len(values)
    found = value_loss(torch.tensor(values), torch.tensor(targets), torch.tensor(old), clip=clip)
    assert found.item() == pytest.approx(expected)

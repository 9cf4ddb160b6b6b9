from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
import torch
from torch import Tensor

from circuits import in_context_learning_score, next_token_log_probs

if TYPE_CHECKING:
    from tests.circuits.conftest import Case


@pytest.mark.parametrize("batch_size", [2, 64])
def test_log_probs_equal_those_picked_from_the_full_log_softmax(case: Case, tokens: Tensor, batch_size: int) -> None:
    log_probs = next_token_log_probs(case.bridge, tokens, batch_size=batch_size)
    torch.testing.assert_close(log_probs, case.run(tokens, None).log_probs, atol=2e-5, rtol=1e-5)


def test_int32_tokens_give_the_same_log_probs(case: Case, tokens: Tensor) -> None:
    assert torch.equal(next_token_log_probs(case.bridge, tokens.int()), next_token_log_probs(case.bridge, tokens))


def test_no_forward_pass_exceeds_the_batch_size(case: Case, tokens: Tensor) -> None:
    sizes = []
    with case.bridge.hooks(fwd_hooks=[("unembed.hook_out", lambda logits, hook: sizes.append(len(logits)))]):
        next_token_log_probs(case.bridge, tokens, batch_size=2)
    assert sizes == [2, 2, 1]


def test_one_position_has_no_next_token(native: Case, tokens: Tensor) -> None:
    with pytest.raises(ValueError, match=r"tokens have 1 positions: expected 2 to 24 \(the context\); use longer"):
        next_token_log_probs(native.bridge, tokens[:, :1])


def test_in_context_learning_score_is_late_loss_minus_early_loss() -> None:
    losses = torch.arange(1.0, 601.0).log()[None] * torch.tensor([[1.0], [-2.0]])  # at position p: +- log p
    score = in_context_learning_score(-losses)
    torch.testing.assert_close(score, torch.tensor([1.0, -2.0]) * torch.tensor(10.0).log())


def test_width_averages_around_the_positions() -> None:
    losses = torch.randn(4, 20, generator=torch.Generator().manual_seed(0))
    score = in_context_learning_score(-losses, early=2, late=19, width=3)
    expected = [
        sum(float(row[p - 1]) for p in (18, 19, 20)) / 3 - sum(float(row[p - 1]) for p in (1, 2, 3)) / 3
        for row in losses
    ]
    torch.testing.assert_close(score, torch.tensor(expected))


@pytest.mark.parametrize(
    ("early", "late", "width", "message"),
    [
        (50, 500, 1, "late=500 with width=1 needs positions 500 to 500: expected them within 1 to 20"),
        (2, 20, 3, "late=20 with width=3 needs positions 19 to 21: expected them within 1 to 20"),
        (1, 10, 3, "early=1 with width=3 needs positions 0 to 2: expected them within 1 to 20"),
        (5, 5, 1, "early=5, late=5: expected early before late"),
        (5, 15, 2, "width is 2: expected an odd number"),
    ],
)
def test_windows_outside_the_sequence_are_refused(early: int, late: int, width: int, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        in_context_learning_score(torch.zeros(2, 20), early=early, late=late, width=width)

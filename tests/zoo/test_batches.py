"""Training batches, against a slow construction row by row."""

from __future__ import annotations

import torch
from torch import Tensor

from zoo.batches import batch_at, repeat_segments, windows
from zoo.corpus import BOS_ID

N_CTX = 40


def counting(length: int) -> Tensor:
    """Tokens that say where they stand, none of them BOS."""
    return torch.arange(1, length + 1)


def test_windows_are_contiguous_led_by_bos_and_leave_the_corpus_alone() -> None:
    tokens = counting(100)
    batch = windows(tokens, 500, N_CTX, torch.Generator().manual_seed(0))
    assert batch.shape == (500, N_CTX)
    assert bool((batch[:, 0] == BOS_ID).all())
    assert bool((batch[:, 2:] - batch[:, 1:-1] == 1).all())
    assert set(batch[:, 1].tolist()) == set(range(2, 62))  # starts 0 to 59: the last possible start is never drawn
    assert torch.equal(tokens, counting(100))


def test_a_share_of_one_repeats_a_segment_from_the_start_of_every_row() -> None:
    batch = windows(counting(1_000), 400, N_CTX, torch.Generator().manual_seed(1))
    before = batch.clone()
    repeated = repeat_segments(batch, 1.0, torch.Generator().manual_seed(2))
    assert torch.equal(batch, before)
    periods = set()
    for old, new in zip(before.tolist(), repeated.tolist(), strict=True):
        period = new.index(new[1], 2) - 1
        periods.add(period)
        segment = old[1 : 1 + period]
        assert new == [BOS_ID, *(segment * 3)[: N_CTX - 1]]
    assert periods == set(range(16, N_CTX // 2))  # 16 or more, and always repeated in full at least once


def test_a_share_of_zero_changes_nothing() -> None:
    batch = windows(counting(1_000), 50, N_CTX, torch.Generator().manual_seed(3))
    assert torch.equal(repeat_segments(batch, 0.0, torch.Generator().manual_seed(4)), batch)


def test_rows_that_are_not_chosen_are_untouched_and_the_share_is_kept() -> None:
    batch = windows(counting(1_000), 4_000, N_CTX, torch.Generator().manual_seed(5))
    result = repeat_segments(batch, 0.15, torch.Generator().manual_seed(6))
    changed = (result != batch).any(dim=1)
    repeats = torch.tensor([row[1] in row[2:] for row in result.tolist()])
    assert torch.equal(changed, repeats)
    assert abs(changed.double().mean().item() - 0.15) < 4 * (0.15 * 0.85 / 4_000) ** 0.5


def test_a_batch_depends_on_seed_and_step_alone() -> None:
    tokens = counting(5_000)

    def batch(step: int, seed: int) -> Tensor:
        return batch_at(step, tokens=tokens, n=6, n_ctx=N_CTX, repeats=0.5, seed=seed)

    torch.manual_seed(0)
    first = batch(3, 1)
    torch.manual_seed(1)
    batch(9, 9)
    assert torch.equal(batch(3, 1), first)
    different = [batch(4, 1), batch(3, 2), batch(1, 3), batch(0, 1)]
    assert not any(torch.equal(other, first) for other in different)

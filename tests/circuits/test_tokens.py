from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
import torch
from torch import Tensor

from circuits import check_tokens, repeated_random_tokens
from circuits.tokens import segment_length

if TYPE_CHECKING:
    from tests.circuits.conftest import Case


@pytest.mark.parametrize("bos", [None, 7])
def test_a_segment_of_distinct_tokens_stands_twice(bos: int | None) -> None:
    tokens = repeated_random_tokens(6, 9, 12, seed=0, bos=bos, excluded=[0, 11])
    if bos is not None:
        assert (tokens[:, 0] == bos).all()
        tokens = tokens[:, 1:]
    assert tokens.shape == (6, 18)
    for row in tokens.tolist():
        assert row[:9] == row[9:]
        assert len(set(row)) == 9
        assert {0, 11, bos}.isdisjoint(row)


def test_every_token_is_equally_frequent() -> None:
    tokens = repeated_random_tokens(4000, 5, 10, seed=1)
    counts = torch.bincount(tokens.flatten(), minlength=10) / 2
    assert ((counts - 2000).abs() < 5 * (4000 * 0.25) ** 0.5).all()  # binomial with n = 4000, p = 1/2, 5 sigma
    assert len({tuple(row) for row in tokens.tolist()}) > 3500


def test_the_seed_decides() -> None:
    tokens = repeated_random_tokens(3, 8, 50, seed=5)
    assert torch.equal(tokens, repeated_random_tokens(3, 8, 50, seed=5))
    assert not torch.equal(tokens, repeated_random_tokens(3, 8, 50, seed=6))


def test_too_long_a_segment_is_refused() -> None:
    with pytest.raises(ValueError, match=r"length=9 exceeds the 8 tokens that may be drawn from d_vocab=10.*shorten"):
        repeated_random_tokens(1, 9, 10, seed=0, bos=0, excluded=[0, 1])


@pytest.mark.parametrize(("bos", "length"), [(None, 5), (3, 5)])
def test_segment_length_is_found_with_and_without_bos(bos: int | None, length: int) -> None:
    assert segment_length(repeated_random_tokens(4, length, 20, seed=0, bos=bos)) == length


def test_tokens_without_repetition_are_refused() -> None:
    tokens = repeated_random_tokens(4, 5, 20, seed=0)
    tokens[2, 7] = (tokens[2, 7] + 1) % 20
    with pytest.raises(ValueError, match=r"tokens\[2\] is not a repetition: expected no BOS .* segment of 5 tokens"):
        segment_length(tokens)
    with pytest.raises(ValueError, match=r"tokens\[0\] is not a repetition: expected one BOS .* segment of 4 tokens"):
        segment_length(tokens[:, :9])
    with pytest.raises(ValueError, match="tokens have 3 positions: expected a segment of at least 2"):
        segment_length(tokens[:, :3])


@pytest.mark.parametrize(
    ("tokens", "message"),
    [
        (torch.tensor([[0, 28], [1, 29]]), r"tokens\[1, 1\] is 29: expected 0 to 28 \(the vocabulary\); use the token"),
        (torch.tensor([[0, -1]]), r"tokens\[0, 1\] is -1: expected 0 to 28"),
        (
            torch.zeros(1, 25, dtype=torch.int64),
            r"tokens have 25 positions: expected 1 to 24 \(the context\); truncate",
        ),
        (torch.zeros(5, dtype=torch.int64), r"tokens have shape \(5,\): expected \[batch, pos\].* tokens\[None\]"),
        (torch.zeros(0, 5, dtype=torch.int64), r"tokens have shape \(0, 5\): expected"),
        (torch.zeros(1, 5), r"tokens are torch.float32: expected integers; convert"),
        (torch.zeros(1, 5, dtype=torch.bool), r"tokens are torch.bool: expected integers"),
    ],
)
def test_tokens_that_the_model_cannot_take_are_refused(case: Case, tokens: Tensor, message: str) -> None:
    with pytest.raises(ValueError, match=message) as raised:
        check_tokens(case.bridge, tokens)
    assert "\n" not in str(raised.value)


def test_tokens_at_the_limits_are_accepted(case: Case) -> None:
    check_tokens(case.bridge, torch.tensor([[0, 28] * 12], dtype=torch.int32))


def test_more_copies_of_the_segment() -> None:
    tokens = repeated_random_tokens(3, 25, 100, seed=0, copies=4, bos=0)
    assert tokens.shape == (3, 101)
    for copy in range(1, 4):
        assert torch.equal(tokens[:, 1:26], tokens[:, 1 + 25 * copy : 26 + 25 * copy])


def test_a_single_copy_is_refused() -> None:
    with pytest.raises(ValueError, match="copies=1"):
        repeated_random_tokens(1, 5, 100, seed=0, copies=1)

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

import pytest
import torch
from torch import Tensor

from circuits import (
    DETECTORS,
    current_token_scores,
    duplicate_token_scores,
    first_token_scores,
    head_scores,
    head_scores_by_sequence,
    induction_scores,
    prefix_matching_scores,
    previous_token_scores,
    repeated_random_tokens,
)

if TYPE_CHECKING:
    from tests.circuits.conftest import Case

ONE_BY_ONE: dict[str, Callable[..., Tensor]] = {
    "current_token": current_token_scores,
    "previous_token": previous_token_scores,
    "first_token": first_token_scores,
    "duplicate_token": duplicate_token_scores,
    "prefix_matching": prefix_matching_scores,
    "induction": induction_scores,
}


def targets(name: str, tokens: list[int], query: int) -> list[int] | None:
    """The target keys of a query by the definitions in words; None for a query that does not count."""
    earlier = [j for j in range(query) if tokens[j] == tokens[query]]
    length, bos = len(tokens) // 2, len(tokens) % 2
    return {
        "current_token": [query],
        "previous_token": [query - 1] if query else None,
        "first_token": [0] if query else None,
        "duplicate_token": earlier or None,
        "prefix_matching": [j + 1 for j in earlier] or None,
        "induction": [query - length + 1] if query >= bos + length else None,
    }[name]


def naive_score(name: str, pattern: Tensor, tokens: list[int]) -> float:
    """Score of one head on one sequence, query by query."""
    keys = [(query, targets(name, tokens, query)) for query in range(len(tokens))]
    sums = [sum(float(pattern[query, key]) for key in found) for query, found in keys if found is not None]
    return sum(sums) / len(sums) if sums else float("nan")


def naive_scores(name: str, patterns: Tensor, tokens: Tensor) -> Tensor:
    """[batch, layer, head] from patterns [layer, batch, head, query, key]."""
    n_layers, batch, n_heads = patterns.shape[:3]
    return torch.tensor(
        [
            [
                [naive_score(name, patterns[layer, row, head], tokens[row].tolist()) for head in range(n_heads)]
                for layer in range(n_layers)
            ]
            for row in range(batch)
        ]
    )


@pytest.mark.parametrize("bos", [None, 0])
def test_all_scores_equal_loops_over_the_oracle_s_patterns(case: Case, bos: int | None) -> None:
    tokens = repeated_random_tokens(3, 5, 29, seed=4, bos=bos)
    patterns = case.run(tokens, None).patterns
    by_sequence = head_scores_by_sequence(case.bridge, tokens, batch_size=2)
    means = head_scores(case.bridge, tokens, batch_size=2)
    assert list(by_sequence) == list(means) == list(ONE_BY_ONE) == list(DETECTORS)
    for name, one in ONE_BY_ONE.items():
        expected = naive_scores(name, patterns, tokens)
        torch.testing.assert_close(by_sequence[name], expected, atol=5e-6, rtol=1e-4)
        torch.testing.assert_close(means[name], expected.mean(0), atol=5e-6, rtol=1e-4)
        torch.testing.assert_close(one(case.bridge, tokens, batch_size=2), expected.mean(0), atol=5e-6, rtol=1e-4)


def test_token_matching_scores_hold_for_arbitrary_tokens(case: Case) -> None:
    tokens = torch.randint(0, 4, (4, 11), generator=torch.Generator().manual_seed(0))  # many copies, also adjacent ones
    tokens[1] = torch.arange(11)  # no copies at all
    patterns = case.run(tokens, None).patterns
    for name in ("duplicate_token", "prefix_matching"):
        expected = naive_scores(name, patterns, tokens)
        scores = head_scores_by_sequence(case.bridge, tokens, detectors={name: DETECTORS[name]})[name]
        assert scores[1].isnan().all()
        torch.testing.assert_close(scores, expected, atol=5e-6, rtol=1e-4, equal_nan=True)
        torch.testing.assert_close(
            ONE_BY_ONE[name](case.bridge, tokens), expected[[0, 2, 3]].mean(0), atol=5e-6, rtol=1e-4
        )


@pytest.mark.parametrize("bos", [None, 9])
@pytest.mark.parametrize("name", list(DETECTORS))
def test_a_head_that_does_exactly_one_thing_scores_one(name: str, bos: int | None) -> None:
    """Patterns written by hand: each query attends to its target keys, and to itself where it has none."""
    tokens = repeated_random_tokens(2, 4, 9, seed=0, bos=bos)
    length = tokens.shape[1]
    pattern = torch.zeros(2, 1, length, length)
    for row in range(2):
        for query in range(length):
            keys = targets(name, tokens[row].tolist(), query) or [query]
            pattern[row, 0, query, keys] = 1 / len(keys)
    assert torch.equal(DETECTORS[name](pattern, tokens), torch.ones(2, 1))
    does_as_well = {"prefix_matching", "induction"} if name in {"prefix_matching", "induction"} else {name}
    for other in DETECTORS.keys() - does_as_well:
        assert (DETECTORS[other](pattern, tokens) < 0.9).all(), other


def test_scores_by_hand() -> None:
    """Tokens a b a a b with attention that spreads uniformly over the past: sums over targets are counts / (q + 1)."""
    tokens = torch.tensor([[0, 1, 0, 0, 1]])
    uniform = (torch.ones(5, 5).tril() / torch.arange(1.0, 6.0)[:, None])[None, None]
    expected = {
        "current_token": (1 + 1 / 2 + 1 / 3 + 1 / 4 + 1 / 5) / 5,
        "previous_token": (1 / 2 + 1 / 3 + 1 / 4 + 1 / 5) / 4,
        "first_token": (1 / 2 + 1 / 3 + 1 / 4 + 1 / 5) / 4,
        "duplicate_token": (1 / 3 + 2 / 4 + 1 / 5) / 3,
        "prefix_matching": (1 / 3 + 2 / 4 + 1 / 5) / 3,  # the fourth token's targets are 1 and 3, the latter itself
    }
    for name, value in expected.items():
        torch.testing.assert_close(DETECTORS[name](uniform, tokens), torch.tensor([[value]]))


def test_induction_equals_prefix_matching_on_repeated_random_tokens(case: Case) -> None:
    tokens = repeated_random_tokens(4, 9, 29, seed=1, bos=0)
    scores = head_scores(case.bridge, tokens)
    torch.testing.assert_close(scores["induction"], scores["prefix_matching"])


def test_induction_refuses_tokens_that_do_not_repeat(native: Case, tokens: Tensor) -> None:
    with pytest.raises(ValueError, match=r"tokens\[0\] is not a repetition: .*prefix_matching_scores"):
        induction_scores(native.bridge, tokens)
    with pytest.raises(ValueError, match="is not a repetition"):
        head_scores(native.bridge, tokens)


def test_undefined_scores_are_refused(native: Case) -> None:
    with pytest.raises(ValueError, match=r"prefix_matching is undefined: expected a token that occurs twice .* 2 seq"):
        prefix_matching_scores(native.bridge, torch.arange(20).view(2, 10))
    with pytest.raises(ValueError, match="tokens have 1 positions: expected 2 to 24"):
        previous_token_scores(native.bridge, torch.zeros(2, 1, dtype=torch.int64))

"""Batches of like length: what is run, and that it is put back in order."""

from __future__ import annotations

import pytest
import torch

from function_vectors.batching import in_order, of_like_length
from interventions import Prompts, as_prompts

PROMPTS = [[1, 2, 3, 4, 5, 6, 7], [8, 9], [10, 11, 12], [13, 14, 15, 16, 17, 18, 19], [20, 21]]


def unpadded(prompts: Prompts) -> list[list[int]]:
    if prompts.valid is None:
        return prompts.tokens.tolist()
    rows = zip(prompts.tokens, prompts.valid, strict=True)
    return [[int(token) for token in tokens[valid]] for tokens, valid in rows]


def test_batches_go_by_length_and_leave_out_common_padding() -> None:
    found = list(of_like_length(as_prompts(PROMPTS), 2))
    assert [places.tolist() for places, _ in found] == [[1, 4], [2, 0], [3]]
    assert [some.length for _, some in found] == [2, 7, 7]
    assert [some.valid is None for _, some in found] == [True, False, True]
    for places, some in found:
        assert unpadded(some) == [PROMPTS[place] for place in places.tolist()]


@pytest.mark.parametrize("size", [1, 2, 3, 5, 9])
@pytest.mark.parametrize("rows", [PROMPTS, [[3, 4], [1, 2], [5, 6]]], ids=["ragged", "one length"])
def test_what_was_found_comes_back_in_the_prompts_order(rows: list[list[int]], size: int) -> None:
    prompts = as_prompts(rows)
    found = [torch.tensor([[sum(row)] for row in unpadded(some)]) for _, some in of_like_length(prompts, size)]
    assert max(map(len, found)) <= size
    assert in_order(prompts, found).tolist() == [[sum(row)] for row in rows]


def test_a_batch_of_nothing_is_refused() -> None:
    with pytest.raises(ValueError, match="batch_size=0: expected at least 1 prompt at a time"):
        list(of_like_length(as_prompts(PROMPTS), 0))

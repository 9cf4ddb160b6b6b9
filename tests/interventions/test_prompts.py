"""Prompts from lists and tensors, padding on either side."""

from __future__ import annotations

import inspect
from typing import Any

import pytest
import torch

from interventions.prompts import as_prompts


def test_lists_of_unequal_length_end_together() -> None:
    prompts = as_prompts([[1, 2, 3], [4], [5, 6]])
    assert prompts.tokens.tolist() == [[1, 2, 3], [0, 0, 4], [0, 5, 6]]
    assert prompts.valid is not None
    assert prompts.valid.int().tolist() == [[1, 1, 1], [0, 0, 1], [0, 1, 1]]
    assert prompts.position_ids.tolist() == [[0, 1, 2], [0, 0, 0], [0, 0, 1]]
    assert (len(prompts), prompts.length, prompts.shortest) == (3, 3, 1)


def test_equal_lengths_need_no_mask() -> None:
    prompts = as_prompts([[1, 2], [3, 4]])
    assert prompts.valid is None
    assert prompts.shortest == 2
    assert as_prompts(prompts) is prompts
    assert as_prompts(torch.tensor([[1, 2]]), torch.ones(1, 2, dtype=torch.bool)).valid is None


def test_padding_on_either_side_is_the_same() -> None:
    left = as_prompts(torch.tensor([[9, 9, 4], [1, 2, 3]]), torch.tensor([[0, 0, 1], [1, 1, 1]]))
    right = as_prompts(torch.tensor([[4, 9, 9], [1, 2, 3]]), torch.tensor([[1, 0, 0], [1, 1, 1]]))
    assert torch.equal(left.tokens, right.tokens)
    assert left.valid is not None
    assert right.valid is not None
    assert torch.equal(left.valid, right.valid)


def test_columns_that_are_padding_everywhere_are_dropped() -> None:
    prompts = as_prompts(torch.tensor([[1, 2, 9], [3, 4, 9]]), torch.tensor([[1, 1, 0], [1, 1, 0]]))
    assert prompts.tokens.tolist() == [[1, 2], [3, 4]]
    assert prompts.valid is None


def test_rows_and_order() -> None:
    prompts = as_prompts([[1, 2, 3], [4], [5, 6]])
    assert prompts.rows(slice(1, 3)).tokens.tolist() == [[0, 0, 4], [0, 5, 6]]
    taken = prompts.take(torch.tensor([2, 0, 1]))
    assert taken.tokens.tolist() == [[0, 5, 6], [1, 2, 3], [0, 0, 4]]
    assert taken.valid is not None
    assert taken.valid.sum(dim=1).tolist() == [2, 3, 1]


def test_the_causal_mask_lets_padding_see_itself_alone() -> None:
    mask = as_prompts([[1, 2, 3], [4, 5]]).causal_mask(torch.float32)
    assert (mask == 0).int().tolist() == [
        [[[1, 0, 0], [1, 1, 0], [1, 1, 1]]],
        [[[1, 0, 0], [0, 1, 0], [0, 1, 1]]],
    ]
    assert torch.isfinite(mask).all()


@pytest.mark.parametrize(
    ("tokens", "mask", "message"),
    [
        ([], None, "0 prompts, shortest 0 tokens: expected at least one prompt of at least one token"),
        ([[1], []], None, "2 prompts, shortest 0 tokens"),
        (torch.tensor([[1.0, 2.0]]), None, "expected integers .*; pass prompts of unequal length as lists"),
        (torch.tensor([[1, 2]]), torch.tensor([[1, 0, 0]]), "mask has shape"),
        (torch.tensor([[1, 2, 3]]), torch.tensor([[1, 0, 1]]), "mask of prompt 0 has a hole"),
        (torch.tensor([[1, 2], [1, 2]]), torch.tensor([[1, 1], [0, 0]]), "2 prompts, shortest 0 tokens"),
        (torch.zeros(0, 3, dtype=torch.long), None, "at least one of each"),
    ],
)
def test_what_is_no_prompt_is_refused(tokens: Any, mask: torch.Tensor | None, message: str) -> None:
    unchecked = inspect.unwrap(as_prompts)  # users run without the shape checks of the tests
    with pytest.raises(ValueError, match=message):
        unchecked(tokens, mask)

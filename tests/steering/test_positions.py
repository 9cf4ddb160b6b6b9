"""Which tokens of a call each kind of position means, against rows written out by hand."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor

from interventions.calls import Call
from steering.errors import SteeringError
from steering.positions import AfterPrompt, Everywhere, First, Mask, Positions, PromptOnly

LEFT = torch.tensor([[0, 0, 1, 1, 1], [1, 1, 1, 1, 1]])  # prompts of 3 and 5 tokens
RIGHT = LEFT.flip(1)
CPU = torch.device("cpu")


def prompt_call(mask: Tensor | None) -> Call:
    return Call(2, 5, 0, mask, CPU)


def later_call(first: Call, *, new: int, length: int = 1) -> Call:
    """The call that reads new token number `new` (0 is the first) and the next ones."""
    real = None if first.real is None else torch.cat([first.real.long(), torch.ones(2, new + length).long()], dim=1)
    call = Call(2, length, 5 + new, real, CPU)
    call.prompt, call.first = first.prompt, False
    return call


def places(positions: Positions, call: Call) -> list[list[int]]:
    """The columns of the call in which each row is acted on."""
    found = positions.of(call)
    if isinstance(found, bool):
        return [list(range(call.length)) if found else [] for _ in range(call.batch)]
    rows = found.expand(call.batch, call.length)
    return [row.nonzero().flatten().tolist() for row in rows]


ON_THE_LEFT: list[tuple[Positions, list[list[int]]]] = [
    (Everywhere(), [[0, 1, 2, 3, 4], [0, 1, 2, 3, 4]]),
    (AfterPrompt(), [[4], [4]]),
    (AfterPrompt(2), [[3, 4], [1, 2, 3, 4]]),
    (AfterPrompt(torch.tensor([1, 4])), [[2, 3, 4], [3, 4]]),
    (First(2), [[2, 3], [0, 1]]),
    (First(3), [[2, 3, 4], [0, 1, 2]]),
    (First(3, keep_last=True), [[2, 3], [0, 1, 2]]),
    (PromptOnly(), [[2, 3], [0, 1, 2, 3]]),
    (PromptOnly(keep_last=False), [[2, 3, 4], [0, 1, 2, 3, 4]]),
    (PromptOnly(length=torch.tensor([2, 4])), [[2], [0, 1, 2]]),
]


@pytest.mark.parametrize(("positions", "expected"), ON_THE_LEFT)
def test_positions_in_a_prompt_that_is_padded_on_the_left(positions: Positions, expected: list[list[int]]) -> None:
    assert places(positions, prompt_call(LEFT)) == expected


@pytest.mark.parametrize(("positions", "expected"), ON_THE_LEFT[1:])
def test_padding_on_the_right_moves_the_first_row_by_two(positions: Positions, expected: list[list[int]]) -> None:
    assert places(positions, prompt_call(RIGHT)) == [[place - 2 for place in expected[0]], expected[1]]


ALIKE_IN_ALL_ROWS = [case for case in ON_THE_LEFT if not isinstance(getattr(case[0], "length", None), Tensor)]


@pytest.mark.parametrize(("positions", "expected"), ALIKE_IN_ALL_ROWS)
def test_without_a_mask_both_rows_are_the_longer_one(positions: Positions, expected: list[list[int]]) -> None:
    assert places(positions, prompt_call(None)) == [expected[1], expected[1]]


@pytest.mark.parametrize("mask", [LEFT, RIGHT, None])
def test_positions_in_later_calls(mask: Tensor | None) -> None:
    one = later_call(prompt_call(mask), new=0)
    yes: list[list[int]] = [[0], [0]]
    no: list[list[int]] = [[], []]
    assert places(Everywhere(), one) == yes
    assert places(AfterPrompt(), one) == yes
    assert places(AfterPrompt(2), one) == yes
    assert places(PromptOnly(), one) == places(PromptOnly(False), one) == no
    assert places(First(3), one) == no
    assert places(Mask(torch.ones(2, 5, dtype=torch.bool)), one) == no


def test_the_first_positions_reach_behind_a_short_prompt() -> None:
    first = prompt_call(LEFT)
    # The first row's prompt ends at position 2: new token 0 stands at 3, in the other row at 5.
    assert places(First(4), later_call(first, new=0)) == [[0], []]
    assert places(First(4, keep_last=True), later_call(first, new=0)) == [[0], []]
    assert places(First(6), later_call(first, new=0, length=3)) == [[0, 1, 2], [0]]
    assert places(First(4), later_call(first, new=1)) == [[], []]
    assert First(4).of(later_call(first, new=1)) is not True


def test_a_mask_is_in_the_columns_of_the_prompt() -> None:
    mask = torch.rand(2, 5, generator=torch.Generator().manual_seed(0)) < 0.5
    expected = [row.nonzero().flatten().tolist() for row in mask]
    assert places(Mask(mask), prompt_call(LEFT)) == places(Mask(mask), prompt_call(None)) == expected


@pytest.mark.parametrize(
    "positions",
    [
        AfterPrompt(torch.tensor([1, 4])),
        PromptOnly(length=torch.tensor([3, 4])),
        Mask(torch.rand(2, 5, generator=torch.Generator().manual_seed(1)) < 0.5),
        First(2),
    ],
)
def test_some_rows_have_their_own_positions(positions: Positions) -> None:
    """The second row alone, whose prompt is shorter by one column on the left."""
    mask = torch.tensor([[1, 1, 1, 1, 1], [0, 1, 1, 1, 1]])
    both = places(positions, prompt_call(mask))
    alone = positions.of_rows(torch.tensor([1]), 1)
    assert places(alone, Call(1, 4, 0, None, CPU)) == [[place - 1 for place in both[1] if place]]


@pytest.mark.parametrize(
    ("make", "text"),
    [
        (lambda: First(0), r"First\(n=0\): expected at least 1 position"),
        (lambda: AfterPrompt(0), "length=0: expected the tokens of the prompt, at least 1"),
        (lambda: PromptOnly(length=torch.tensor([2, 0])), "expected the tokens of the prompt, at least 1"),
        (lambda: PromptOnly(length=torch.zeros(0, dtype=torch.long)), "expected the tokens of the prompt, at least 1"),
        (
            lambda: Mask(torch.ones(2, 5, dtype=torch.bool)).of(Call(2, 4, 0, None, CPU)),
            r"shape \(2, 5\) on tokens \(2, 4\)",
        ),
        (lambda: AfterPrompt(torch.tensor([1, 2, 3])).of(prompt_call(LEFT)), "length has 3 rows, the call 2"),
    ],
)
def test_positions_that_mean_nothing_are_refused(make: Any, text: str) -> None:
    with pytest.raises(SteeringError, match=text):
        make()

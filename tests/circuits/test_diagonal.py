"""Diagonals of factored matrices against loops over the dense matrix."""

from __future__ import annotations

from collections.abc import Iterator
from importlib import import_module
from typing import Any

import pytest
import torch
from torch import Tensor

from circuits.diagonal import check_indices, diagonal_in_top, diagonal_ranks, diagonal_share
from circuits.factored import factored

module = import_module("circuits.diagonal")  # a function of that name may be exported by the package


def ranks_by_loop(dense: Tensor) -> list[int]:
    return [
        sum(float(dense[i, j]) > float(dense[i, i]) for j in range(len(dense)) if j != i) for i in range(len(dense))
    ]


def marked(n: int, inner: int, *, seed: int) -> Any:
    """Random, with the diagonal raised: a mixture of ranks. Small integers, so that sums are exact and ties occur."""
    generator = torch.Generator().manual_seed(seed)
    A = torch.randint(-3, 4, (n, inner), generator=generator).float()
    noise = torch.randint(-2, 3, (n, inner), generator=generator).float()
    return factored(A, (A + 2 * noise).T)


@pytest.mark.parametrize("chunk", [3, 7, 64, 2048])
def test_ranks_and_top_are_those_of_a_loop(chunk: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "FIRST_BLOCK", 5)
    m = marked(31, 6, seed=0)
    expected = ranks_by_loop(m.AB)
    assert len(set(expected)) > 8
    assert any((row == row[i]).sum() > 1 for i, row in enumerate(m.AB))  # exact ties
    assert diagonal_ranks(m, chunk=chunk).tolist() == expected
    top = diagonal_in_top(m, (1, 3, 31), chunk=chunk)
    assert top.tolist() == [[rank < 1, rank < 3, True] for rank in expected]
    assert diagonal_share(m) == pytest.approx(sum(rank == 0 for rank in expected) / 31)


def test_a_tie_does_not_count_against_the_diagonal() -> None:
    ones = factored(torch.ones(4, 1), torch.ones(1, 4))
    assert diagonal_ranks(ones).tolist() == [0, 0, 0, 0]
    assert diagonal_share(ones) == 1.0


def test_the_diagonal_entry_is_not_compared_with_itself() -> None:
    """A product of matrices and a sum of products round differently; each row's rival stands far below."""
    A = torch.randn(500, 300, generator=torch.Generator().manual_seed(0))
    m = factored(A, A.T * 1.1)
    assert diagonal_ranks(m).tolist() == [0] * 500


def test_chosen_rows() -> None:
    m = marked(40, 5, seed=1)
    rows = torch.tensor([39, 3, 3, 17])
    everything = diagonal_in_top(m, (2, 9))
    assert 0 < everything.float().mean() < 1
    assert torch.equal(diagonal_in_top(m, (2, 9), rows=rows), everything[rows])
    assert torch.equal(diagonal_ranks(m, rows=rows), diagonal_ranks(m)[rows])
    assert diagonal_share(m, rows=rows) == pytest.approx(float((diagonal_ranks(m)[rows] == 0).float().mean()))
    assert diagonal_in_top(m, rows=torch.tensor([], dtype=torch.int64)).shape == (0, 2)


def test_several_blocks_at_full_size() -> None:
    """More columns than the first blocks hold, against the dense matrix; random, where nearly all rows drop out."""
    generator = torch.Generator().manual_seed(2)
    A, B = ((torch.randn(shape, generator=generator) * 64).round() for shape in ((3000, 8), (8, 3000)))
    m = factored(A, B)
    dense = m.AB
    expected = (dense > dense.diagonal()[:, None]).sum(dim=1)
    top = diagonal_in_top(m, (1, 50))
    assert torch.equal(top, torch.stack([expected < 1, expected < 50], dim=1))
    assert top[:, 1].sum() > 10
    assert torch.equal(diagonal_ranks(m), expected)


def test_decided_rows_are_not_multiplied_again(monkeypatch: pytest.MonkeyPatch) -> None:
    """No row copies: the column that exceeds them all has the largest norm, and is the only one that is visited."""
    n = 400
    B = torch.ones(1, n)
    B[0, 350] = 100
    monkeypatch.setattr(module, "FIRST_BLOCK", 1)
    visited: list[slice] = []
    growing = module._growing

    def seen(n: int, largest: int) -> Iterator[slice]:
        for block in growing(n, largest):
            visited.append(block)
            yield block

    monkeypatch.setattr(module, "_growing", seen)
    rows = torch.arange(100)
    assert not diagonal_in_top(factored(torch.ones(n, 1), B), (1,), rows=rows).any()
    assert visited == [slice(0, 1)]


def test_half_precision_is_upcast() -> None:
    m = marked(30, 4, seed=3)
    half = factored(m.A.to(torch.bfloat16), m.B.to(torch.bfloat16))
    assert torch.equal(diagonal_ranks(half), diagonal_ranks(m))


@pytest.mark.parametrize(
    ("m", "arguments", "message"),
    [
        ((torch.ones(3, 2), torch.ones(2, 4)), {}, r"shape \(3, 4\): expected one square matrix"),
        ((torch.ones(5, 3, 2), torch.ones(5, 2, 3)), {}, r"shape \(5, 3, 3\): expected one square matrix"),
        ((torch.ones(3, 2), torch.ones(2, 3)), {"k": (1, 4)}, r"k=\(1, 4\): .* each 1 to 3, the size of the matrix"),
        ((torch.ones(3, 2), torch.ones(2, 3)), {"k": (0,)}, r"k=\(0,\): expected"),
        ((torch.ones(3, 2), torch.ones(2, 3)), {"k": ()}, r"k=\(\): expected at least one number"),
        ((torch.ones(3, 2), torch.ones(2, 3)), {"k": (1,), "rows": torch.tensor([0, 3])}, "rows hold 3: expected 0 to"),
        (
            (torch.ones(3, 2), torch.ones(2, 3)),
            {"k": (1,), "rows": torch.tensor([-1])},
            "rows hold -1: expected 0 to 2",
        ),
    ],
)
def test_bad_input(m: tuple[Tensor, Tensor], arguments: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        diagonal_in_top(factored(*m), **arguments)


def test_no_rows_have_no_share() -> None:
    with pytest.raises(ValueError, match="rows are empty: expected at least one row"):
        diagonal_share(marked(9, 2, seed=0), rows=torch.tensor([], dtype=torch.int64))


def test_a_mask_is_no_vector_of_indices() -> None:
    with pytest.raises(
        ValueError, match=r"rows are torch\.bool of shape \(3,\): expected a vector of integers; turn a"
    ):
        check_indices("rows", torch.tensor([True, False, True]), 3)
    with pytest.raises(ValueError, match=r"tokens are torch\.float32 of shape \(2,\): expected a vector of integers"):
        check_indices("tokens", torch.ones(2), 3)
    check_indices("rows", torch.tensor([2, 0]), 3)

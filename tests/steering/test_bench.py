"""The benchmark compares like with like: all ways give the same tokens and vectors, here on a narrow network."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from steering import bench
from steering.bench import Case


@pytest.fixture(scope="module")
def case() -> Case:
    small = Case(layers=3, width=24, heads=3, vocabulary=50, prompts=5, new=6, pairs=9, batch=4)
    with torch.no_grad():
        for parameter in small.network.transformer.h.parameters():
            parameter.mul_(8.0 if parameter.ndim == 2 else 1.0)
    return small


def test_extraction_in_batches_gives_the_vector_of_one_text_at_a_time(case: Case) -> None:
    expected = case.one_at_a_time(9)
    torch.testing.assert_close(case.in_batches(9), expected, atol=1e-5, rtol=1e-4)
    assert expected.abs().max() > 0.1
    assert not torch.allclose(case.in_batches(5), expected, atol=1e-3), "fewer pairs are other pairs"


def test_all_ways_to_generate_give_the_same_tokens(case: Case) -> None:
    pytest.importorskip("nnsight")
    plain, steered = case.transformers(), case.hooked()
    assert plain != steered
    assert case.generated(steered=False) == plain
    assert case.generated(steered=True) == steered
    assert case.traced(6) == steered
    assert case.traced(2) == [row[:2] for row in steered]
    assert [len(row) for row in plain] == [6] * 5


def test_the_hand_written_ways_leave_no_hook(case: Case) -> None:
    case.hooked()
    case.one_at_a_time(1)
    assert not any(module._forward_hooks or module._forward_pre_hooks for module in case.network.modules())


def test_texts_are_short_and_pairs_differ_in_their_last_token() -> None:
    case = Case()
    lengths = [len(text.split()) for text in case.texts]
    assert (len(lengths), min(lengths), max(lengths)) == (64, 8, 24)
    assert len(case.contrasts) == 1000
    for pair in case.contrasts[:50]:
        one, other = pair.positive.split(), pair.negative.split()
        assert one[:-1] == other[:-1]
        assert one[-1] != other[-1]


def test_rows_compare_each_way_and_say_what_share_was_timed(case: Case, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(bench, "TIMED_PAIRS", 3)
    monkeypatch.setattr(bench, "TIMED_ALONE", 2)
    rows: list[Any] = list(case.rows())
    alone, plain, ours = "extraction: one text at a time", "generation: transformers, not steered", rows[4][0]
    assert [(row[0], row[1]) for row in rows] == [
        (alone, None),
        ("extraction: the longest batch", alone),
        ("extraction: 1,000 pairs in batches", alone),
        (plain, None),
        ("generation: ours, not steered", plain),
        ("generation: ours, steered", ours),
        ("generation: hook by hand, steered", plain),
        ("generation: nnsight, steered", plain),
    ]
    assert [row[3].get("sampled", 1) for row in rows] == pytest.approx([2 / 9, 2 / 9, 3 / 9, 1, 1, 1, 1, 1 / 6])
    assert rows[2][3]["peak_mib"] > 0

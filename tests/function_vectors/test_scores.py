"""Intervals against the equation that defines them, and against hand-picked places."""

from __future__ import annotations

import pytest
import torch

from function_vectors.scores import Scores
from function_vectors.selection import answered, choose

from .conftest import encoded, lists


@pytest.mark.parametrize("n_right", [0, 1, 7, 12])
@pytest.mark.parametrize(("level", "z"), [(0.95, 1.959964), (0.68, 0.994458)])
def test_ends_of_an_interval_are_the_rates_that_are_z_deviations_away(n_right: int, level: float, z: float) -> None:
    scores = Scores(torch.arange(12) < n_right)
    assert float(scores.accuracy) == pytest.approx(n_right / 12)
    for end in scores.interval(level):
        rate = float(end)
        distance = abs(n_right / 12 - rate)
        assert distance == pytest.approx(z * (rate * (1 - rate) / 12) ** 0.5, abs=1e-5)
    low, high = (float(end) for end in scores.interval(level))
    assert 0 <= low <= n_right / 12 <= high <= 1
    assert high - low > 0.05


def test_scores_over_axes() -> None:
    right = torch.rand(9, 2, 3, generator=torch.Generator().manual_seed(0)) < 0.5
    scores = Scores(right, ("k", "layer"), ((1, 4), (0, 5, 7)))
    assert scores.n == 9
    torch.testing.assert_close(scores.accuracy, right.sum(dim=0) / 9)
    assert torch.equal(scores.take("layer", 5).right, right[:, :, 1])
    assert scores.take("layer", 5).axes == ("k",)
    assert scores.take("k", 4).take("layer", 7).right.tolist() == right[:, 1, 2].tolist()
    low, high = scores.interval()
    single = Scores(right[:, 1, 2]).interval()
    assert (float(low[1, 2]), float(high[1, 2])) == (float(single[0]), float(single[1]))


def test_scores_that_make_no_sense_are_refused() -> None:
    with pytest.raises(ValueError, match=r"right has shape \(3, 2\), axes \(\) have sizes \(\): expected at least one"):
        Scores(torch.ones(3, 2, dtype=torch.bool))
    with pytest.raises(ValueError, match=r"right has shape \(0,\)"):
        Scores(torch.ones(0, dtype=torch.bool))
    scores = Scores(torch.ones(3, 2, dtype=torch.bool), ("layer",), ((0, 5),))
    with pytest.raises(ValueError, match="axis 'k': expected one of layer"):
        scores.take("k", 1)
    with pytest.raises(ValueError, match="layer 1: expected one of 0, 5"):
        scores.take("layer", 1)
    with pytest.raises(ValueError, match=r"level 1\.0: expected a level between 0 and 1"):
        scores.interval(1.0)


def test_the_best_place_is_chosen_and_ties_go_to_fewer_heads_and_earlier_layers() -> None:
    def scores(accuracies: list[list[int]]) -> Scores:
        """Ten prompts, so many of them right."""
        right = torch.arange(10)[:, None, None] < torch.tensor(accuracies)
        return Scores(right, ("k", "layer"), ((4, 2), (3, 1, 6)))

    by_layer = scores([[1, 2, 3], [4, 9, 5]]).take("k", 4)
    for given, k, layer, accuracy in (
        (scores([[1, 2, 3], [4, 9, 5]]), 2, 1, 0.9),
        (scores([[1, 9, 3], [9, 9, 9]]), 2, 1, 0.9),
        (scores([[7, 0, 7], [0, 0, 0]]), 4, 3, 0.7),
        (scores([[7, 0, 7], [0, 0, 7]]), 2, 6, 0.7),
        (by_layer, None, 6, 0.3),
    ):
        choice = choose(given)
        assert (choice.k, choice.layer) == (k, layer)
        assert choice.accuracy == pytest.approx(accuracy)
    with pytest.raises(ValueError, match=r"scores over \(\): expected those of score_by_layer or score_by_k"):
        choose(by_layer.take("layer", 6))


def test_queries_that_were_answered_are_kept_in_their_order() -> None:
    prompts = encoded((7, 4, 6, 5), seed=0, answer_lengths=(1, 2))
    kept = answered(prompts, torch.tensor([True, False, False, True]))
    assert lists(kept) == [lists(prompts)[0], lists(prompts)[3]]
    assert kept.answers == (prompts.answers[0], prompts.answers[3])
    with pytest.raises(ValueError, match="4 verdicts, 0 right, for 4 prompts: expected one for each, and at least one"):
        answered(prompts, torch.zeros(4, dtype=torch.bool))
    with pytest.raises(ValueError, match="2 verdicts, 2 right, for 4 prompts"):
        answered(prompts, torch.ones(2, dtype=torch.bool))

"""The map of induction heads, from results made by hand: each pattern behind the head that it is stored for."""

from __future__ import annotations

import re

import numpy as np
from replications.induction_heads.claims import TWO
from replications.induction_heads.head_map import head_map

from reprise import Result, Results

SCORES = np.array([[[0.1, 0.2], [0.3, 0.8]], [[0.3, 0.2], [0.5, 0.6]]])
EYE = np.stack([np.eye(3), np.tril(np.ones((3, 3))) / np.arange(1, 4)[:, None]])


def results(**by_stage: Result) -> Results:
    return Results("tiny", 0, {stage: {TWO: result} for stage, result in by_stage.items()})


def test_scores_are_means_over_sequences_and_patterns_keep_their_heads() -> None:
    scored = Result({"prefix_matching": SCORES}, {"n_layers": 2})
    shown = Result({"patterns": EYE, "heads": np.array([[0, 1], [1, 1]])}, {"n_layers": 2, "tokens": ["a", "b", "c"]})
    page = head_map(results(repeated=scored, one_prompt=shown))
    assert page is not None
    found = re.findall(r'data-says="([^"]*)" (?:data-pattern="(\d)")?', page.html)
    assert found == [
        ("layer 0, head 0: 0.2", ""),
        ("layer 0, head 1: 0.2", "0"),
        ("layer 1, head 0: 0.4", ""),
        ("layer 1, head 1: 0.7", "1"),
    ]


def test_without_the_two_layer_model_there_is_no_map() -> None:
    other = Result({"prefix_matching": SCORES}, {"n_layers": 1})
    assert head_map(Results("tiny", 0, {"repeated": {"one": other}, "one_prompt": {"one": other}})) is None

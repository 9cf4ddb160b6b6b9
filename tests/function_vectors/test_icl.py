"""Prompts: their text against one put together by hand, and what is drawn for them."""

from __future__ import annotations

import itertools
from collections import Counter
from typing import Any

import pytest

from function_vectors.errors import TaskError
from function_vectors.icl import ICLPrompt, _deranged, icl_prompts
from function_vectors.tasks import Pair, Task
from function_vectors.templates import Template

PAPER = Template("paper", instructions="", before="Q: ", between="\nA:", after="\n\n")
SPOKEN = Template("spoken", instructions="Do as before.\n", before="<", between=">", after=";")


def task_of(size: int, name: str = "numbers", start: int = 0) -> Task:
    return Task(name, tuple(Pair(f"in{i}", f"out{i}") for i in range(start, start + size)))


def drawn(size: int = 12, **changes: Any) -> list[ICLPrompt]:
    options: dict[str, Any] = {"shots": 4, "n": 30, "seed": 0} | changes
    return icl_prompts(task_of(size), options.pop("template", PAPER), **options)


def test_the_text_is_the_demonstrations_and_the_query_without_its_answer() -> None:
    prompt = drawn(size=3, shots=2, n=1)[0]
    (a, b), query = prompt.demonstrations, prompt.query
    assert prompt.text == (f"Q: {a.input}\nA: {a.output}\n\nQ: {b.input}\nA: {b.output}\n\nQ: {query.input}\nA:")
    prompt = drawn(size=2, shots=1, n=1, template=SPOKEN)[0]
    (a,) = prompt.demonstrations
    assert prompt.text == f"Do as before.\n<{a.input}> {a.output};<{prompt.query.input}>"


@pytest.mark.parametrize("shuffled", [False, True])
def test_no_shots_leave_the_query_alone(shuffled: bool) -> None:
    for prompt in drawn(shots=0, shuffled=shuffled):
        assert prompt.demonstrations == ()
        assert prompt.text == f"Q: {prompt.query.input}\nA:"


def test_demonstrations_are_distinct_right_and_never_the_query() -> None:
    for prompt in drawn(size=5, shots=4):
        assert {*prompt.demonstrations, prompt.query} == set(task_of(5).pairs)


def test_prompt_i_depends_on_the_seed_and_i_alone() -> None:
    assert drawn(n=30) == drawn(n=100)[:30]
    assert not set(drawn(size=40, seed=1)) & set(drawn(size=40, seed=2))


def test_more_shots_add_demonstrations_to_the_same_query() -> None:
    for few, many in zip(drawn(shots=2), drawn(shots=7), strict=True):
        assert few.query == many.query
        assert few.demonstrations == many.demonstrations[:2]


def test_every_pair_is_asked_for_about_equally_often() -> None:
    asked = Counter(prompt.query for prompt in drawn(size=12, n=30))
    assert set(asked) == set(task_of(12).pairs)
    assert set(asked.values()) == {2, 3}
    queries = [prompt.query for prompt in drawn(size=12, n=24)]
    assert queries[:12] != queries[12:]


def test_every_pair_is_shown_about_equally_often_in_every_place() -> None:
    shown = Counter((at, pair) for prompt in drawn(size=5, n=1000) for at, pair in enumerate(prompt.demonstrations))
    assert len(shown) == 4 * 5
    assert min(shown.values()) > 150  # expected 200, standard deviation 12
    assert max(shown.values()) < 250


def test_shuffled_labels_change_the_outputs_of_the_demonstrations_and_nothing_else() -> None:
    for clean, shuffled in zip(drawn(), drawn(shuffled=True), strict=True):
        assert shuffled.query == clean.query
        assert [pair.input for pair in shuffled.demonstrations] == [pair.input for pair in clean.demonstrations]
        assert sorted(pair.output for pair in shuffled.demonstrations) == sorted(
            pair.output for pair in clean.demonstrations
        )
        assert not set(shuffled.demonstrations) & set(clean.demonstrations)
        assert all(f"Q: {pair.input}\nA: {pair.output}\n\n" in shuffled.text for pair in shuffled.demonstrations)


@pytest.mark.parametrize("outputs", ["", "a", *map("".join, itertools.combinations_with_replacement("abcd", 5))])
@pytest.mark.parametrize("seed", ["0", "1", "2"])
def test_no_permutation_moves_more_labels(outputs: str, seed: str) -> None:
    pairs = [Pair(str(place), output) for place, output in enumerate(outputs)]
    found = [pair.output for pair in _deranged(pairs, seed)]
    kept = min(sum(map(str.__eq__, order, outputs)) for order in itertools.permutations(outputs))
    assert sorted(found) == sorted(outputs)
    assert sum(map(str.__eq__, found, outputs)) == kept


def test_labels_go_everywhere() -> None:
    pairs = [Pair(name, name) for name in "abcd"]
    goes = Counter((pair.input, pair.output) for seed in range(600) for pair in _deranged(pairs, str(seed)))
    assert len(goes) == 4 * 3
    assert min(goes.values()) > 150  # expected 200, standard deviation 12
    assert max(goes.values()) < 250


def test_demonstrations_can_come_from_another_part_of_the_task() -> None:
    other = task_of(6, start=100)
    for prompt in drawn(shots=6, demonstrations_from=other):
        assert set(prompt.demonstrations) == set(other.pairs)
        assert prompt.query in task_of(12).pairs


def test_a_query_is_not_shown_with_another_answer() -> None:
    other = Task("reversed", tuple(Pair(pair.input, pair.output[::-1]) for pair in task_of(12).pairs))
    for prompt in drawn(shots=11, demonstrations_from=other):
        assert prompt.query.input not in {pair.input for pair in prompt.demonstrations}


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"n": 0}, "n=0, shots=4: expected at least 1 prompt of at least 0 demonstrations"),
        ({"shots": -1}, "shots=-1: expected at least 1 prompt of at least 0 demonstrations"),
        ({"size": 0}, "task numbers: no pairs to ask for; add some"),
        (
            {"size": 10, "shots": 10},
            "task numbers: 10 pairs, expected at least 11 for 10 demonstrations and a query; add pairs or use at most",
        ),
        (
            {"shots": 4, "demonstrations_from": task_of(3, "other", start=100)},
            "task other: 3 pairs, expected at least 4 for 4 demonstrations; add pairs or use at most 3 shots",
        ),
    ],
)
def test_prompts_that_cannot_be_are_refused(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(TaskError, match=message):
        drawn(**changes)

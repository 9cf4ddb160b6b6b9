"""The gate of the replication of Todd et al. 2024: what its claims count, and that no scored query made its vector."""

from __future__ import annotations

import re
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from replications.function_vectors import experiment, extraction_stages, score_stages, setting
from replications.function_vectors.setting import Halves

import zoo
from function_vectors import Encoded, FunctionVector, Gate, Runner, function_vector, gate
from reprise import Result, Results
from reprise.models import ModelReference

from .function_vector_runs import DATA, FAILED, FEW, PASSED, gate_result, job, measured, results, run

NAME = "relations-4l"
STAGES = ("means", "effects", "selection", "exchanged", "gate")
TASKS = ("friend_of", "teacher_of")
FOLDS = (("means", "selection"), ("exchanged", "exchanged"))


def test_margins_count_the_worst_primary_task_and_changes_their_mean() -> None:
    result = gate_result(
        {"a": PASSED, "b": FAILED, "n": FAILED},
        in_context=[1, 1, 1, 1, 0, 0],
        shuffled=[0, 0, 1, 0, 1, 1],
        zero_shot=[0, 0, 0, 0, 1, 1],
        another=[0, 0, 0, 1, 0, 0],
    )
    margin = measured("gate-in-context", results(gate=result))
    assert (margin.estimate, margin.n, margin.over) == (0.5, 2, "queries of b")
    another = measured("gate-another-task", results(gate=result))
    assert (another.estimate, another.n, another.over) == (0.25, 2, "tasks (1 of 2 fail the gate)")
    assert measured("gate-per-task", results(gate=result)).estimate == 0.5


def test_both_folds_count_as_one_task() -> None:
    result = gate_result(
        {"a": PASSED, "b": PASSED, "n": PASSED},
        task=[0, 0, 1, 1, 0, 0, 1, 1, 2, 2],
        fold=[0, 0, 0, 0, 1, 1, 1, 1, 0, 0],
        in_context=[1, 1, 1, 1, 1, 1, 1, 0, 0, 0],
        among_answers=[0, 0, 0, 0, 0, 1, 1, 1, 1, 1],
        zero_shot=[0, 0, 0, 0, 1, 0, 0, 0, 0, 0],
        vector=[[9, 0], [9, 0], [9, 0], [9, 1], [9, 0], [9, 0], [9, 0], [9, 1], [9, 1], [9, 1]],
    )
    margin = measured("gate-answer-set", results(gate=result))
    assert (margin.estimate, margin.n, margin.over) == (0.25, 4, "queries of b")
    last = measured("gate-last-layer", results(gate=result))
    assert (last.estimate, last.n) == ((-1 / 4 + 2 / 4) / 2, 2)


def of_four(**arrays: list[float]) -> Results:
    """Two primary tasks of ten queries, each criterion met with room, but for the arrays that are given."""
    right, wrong = [1.0] * 20, [0.0] * 20
    given: dict[str, Any] = {
        "in_context": right,
        "shuffled": wrong,
        "among_answers": wrong,
        "zero_shot": wrong,
        "random_heads": wrong,
        "another": wrong,
        "vector": wrong,
        **arrays,
    }
    two_axes = ("random_heads", "vector")
    shaped = {name: [[x] for x in values] if name in two_axes else values for name, values in given.items()}
    task = np.repeat([0, 1], 10)
    return results(gate=gate_result({"a": PASSED, "b": FAILED, "n": FAILED}, task=task, **shaped))


def test_the_gate_is_passed_by_the_tasks_together() -> None:
    assert measured("gate-passed", of_four()).estimate == 1
    assert measured("gate-passed", of_four()).over == "tasks"
    # Three of ten on one task is too much for that task, and .15 for both; downwards on the other it is made up for.
    three = [1.0] * 3 + [0.0] * 7
    assert measured("gate-passed", of_four(another=[*three, *[0.0] * 10])).estimate == pytest.approx(0.8)
    balanced = of_four(another=[*three, *[0.0] * 10], zero_shot=[*[0.0] * 10, *three])
    assert measured("gate-another-task", balanced).estimate == 0
    # Random heads and the last layer now are .15 below the baseline.
    assert measured("gate-passed", balanced).estimate == pytest.approx(0.6)
    # The margins have to be there on each task: .9 on average, .3 and .4 on the worst.
    for name in ("shuffled", "among_answers"):
        for wrong, estimate in ((7, 0.8), (6, 1.0)):
            on_one = {name: [*[0.0] * 10, *[1.0] * wrong, *[0.0] * (10 - wrong)]}
            assert measured("gate-passed", of_four(**on_one)).estimate == pytest.approx(estimate)


def test_the_interval_of_the_gate_is_over_tasks() -> None:
    two = [1.0] * 2 + [0.0] * 8
    on_one = measured("gate-passed", of_four(random_heads=[*two, *[0.0] * 10]))
    assert (on_one.estimate, on_one.low, on_one.high, on_one.n) == (1, pytest.approx(0.8), 1, 2)
    on_both = measured("gate-passed", of_four(random_heads=[*two, *two]))
    assert (on_both.low, on_both.high) == (pytest.approx(0.8), pytest.approx(0.8))


@pytest.fixture
def two_tasks(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder of two tasks of forty pairs."""
    monkeypatch.setitem(setting.TRIALS, "tiny", FEW)
    for task in TASKS:
        shutil.copy(DATA / "town" / f"{task}.json", tmp_path)
    return tmp_path


REFERENCE = ModelReference(NAME, "shipped", str(zoo.folder(NAME)), "2" * 64)


def test_no_query_that_is_scored_was_seen_when_its_vector_was_made(
    two_tasks: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Neither as a query nor as a demonstration, in any prompt that was run to make or to choose the vector."""
    monkeypatch.setitem(setting.TRIALS, "tiny", replace(FEW, scored=100, means=20, effects=20))  # all of both halves
    at_first = setting.settle(job(REFERENCE, "tiny", data=two_tasks))
    everybody = {pair.input for pair in at_first.tasks["friend_of"].whole.pairs}
    half = {pair.input for pair in at_first.tasks["friend_of"].chosen_on.pairs}
    seen: dict[str, set[str]] = {name: set() for name in STAGES}
    gates: list[tuple[FunctionVector, set[str], list[str]]] = []
    now = ""

    def inputs(encoded: Encoded) -> list[str]:
        text = " ".join(at_first.prompts.tokenizer.decode(row.tolist()) for row in encoded.prompts.tokens)
        return re.findall(r"Q: (\w+)", text)

    def recording(function: Callable[..., Any]) -> Callable[..., Any]:
        def recorded(runner: Runner, encoded: Encoded, *given: Any) -> Any:
            seen[now].update(inputs(encoded))
            return function(runner, encoded, *given)

        return recorded

    def watched(runner: Runner, vector: FunctionVector, **given: Any) -> Gate:
        shown = {name for label in ("in_context", "shuffled") for name in inputs(given[label])}
        gates.append((vector, shown, inputs(given["zero_shot"])))
        return gate(runner, vector, **given)

    for name in ("mean_z_of_right", "layer_average", "indirect_effects", "score", "score_by_k"):
        monkeypatch.setattr(extraction_stages, name, recording(getattr(extraction_stages, name)))
    monkeypatch.setattr(score_stages, "gate", watched)
    done: dict[str, Result] = {}
    for stage in experiment.STAGES:
        if stage.name in STAGES:
            now = stage.name
            needs: Any = {name: done[name] for name in stage.needs}
            done[now] = stage.function(job(REFERENCE, "tiny", data=two_tasks, **needs))
    assert seen == {"means": half, "effects": half, "selection": half, "exchanged": everybody - half, "gate": set()}
    scored: dict[str, list[str]] = {}
    for vector, shown, queries in gates:
        made = [
            function_vector(at_first.runner, z_of(done[means], vector.task), vector.heads, task="").vector
            for means, _ in FOLDS
        ]
        fold = [torch.equal(each, vector.vector) for each in made].index(True)
        selected = done[FOLDS[fold][1]].facts
        assert [list(head) for head in vector.heads] == selected["order"][: selected["k"]]
        assert vector.layer == selected["layer"]
        assert shown == set(queries)
        assert shown == (everybody - half, half)[fold]
        scored.setdefault(vector.task, []).extend(queries)
    assert {task: sorted(queries) for task, queries in scored.items()} == dict.fromkeys(TASKS, sorted(everybody))


def z_of(result: Result, task: str) -> torch.Tensor:
    return torch.from_numpy(result["z"][result.facts["tasks"].index(task)])


def test_the_second_fold_is_the_first_of_halves_that_were_exchanged_at_the_source(
    two_tasks: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def folds() -> dict[str, Result]:
        stored = run(REFERENCE, "tiny", data=two_tasks, only=STAGES).by_stage
        return {stage: by_model[NAME] for stage, by_model in stored.items()}

    halves = setting._halves

    def turned(*given: Any) -> Halves:
        found = halves(*given)
        return replace(found, chosen_on=found.scored_on, scored_on=found.chosen_on)

    ours = folds()
    monkeypatch.setattr(setting, "_halves", turned)
    theirs = folds()
    assert (ours["exchanged"]["z"] == theirs["means"]["z"]).all()
    assert (ours["exchanged"]["z"] != ours["means"]["z"]).any()
    assert (ours["exchanged"]["accuracy"] == theirs["selection"]["accuracy"]).all()
    for fact in ("order", "ks", "k", "layer", "accuracy", "k_from_paper"):
        assert ours["exchanged"].facts[fact] == theirs["selection"].facts[fact]
    gate, turned_gate = ours["gate"], theirs["gate"]
    for name in gate.arrays.keys() - {"fold"}:
        for fold in (0, 1):
            assert (gate[name][gate["fold"] == fold] == turned_gate[name][turned_gate["fold"] == 1 - fold]).all()
    assert np.unique(gate["fold"]).tolist() == [0, 1]
    assert gate.facts["criteria"] == turned_gate.facts["criteria"]
    assert gate.facts["together"] == turned_gate.facts["together"]
    assert gate.facts["choices"] == turned_gate.facts["choices"][::-1]

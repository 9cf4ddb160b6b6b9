"""The search for a circuit: its procedures on scores made by hand, its stages on small models against plain hooks."""

from __future__ import annotations

import copy
import dataclasses
import itertools
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import pytest
import torch
from replications.indirect_object_identification import discovery, discovery_stages, measured_circuits
from replications.indirect_object_identification.circuit import Circuit
from torch import Tensor

from reprise import Result

from .ioi_circuit_runs import (
    ARCHITECTURES,
    D_HEAD,
    EFFORT,
    N_HEADS,
    N_LAYERS,
    TRIALS,
    Runs,
    kind_of,
    model_of,
    plain_difference,
)

ALL = [(layer, head) for layer in range(N_LAYERS) for head in range(N_HEADS)]
Head = tuple[int, int]
NEEDED: dict[Head, float] = {(0, 0): 0.3, (1, 1): 0.2, (2, 2): 0.4, (2, 3): 0.06, (0, 3): 0.04}


def counted(value: Callable[[frozenset[Head]], float]) -> tuple[discovery.Measure, list[int]]:
    """A measure, and how many circuits each of its calls had."""
    calls: list[int] = []

    def measure(sets: Sequence[frozenset[Head]]) -> list[float]:
        if sets:
            calls.append(len(sets))
        return [value(heads) for heads in sets]

    return measure, calls


def additive(heads: frozenset[Head]) -> float:
    return sum(worth for head, worth in NEEDED.items() if head in heads)


def together(heads: frozenset[Head]) -> float:
    """Two heads that are worth nothing alone, and one that is worth half of it alone."""
    return 0.95 * ({(0, 1), (1, 2)} <= heads) or 0.5 * ((2, 0) in heads)


def one_by_one(value: Callable[[frozenset[Head]], float], heads: list[Head], floor: float) -> tuple[Head, ...]:
    """Backward elimination as a loop."""
    left = set(heads)
    while True:
        values = {head: value(frozenset(left - {head})) for head in sorted(left)}
        best = max(values, key=lambda head: values[head])
        if values[best] < floor or len(left) == 1:
            return tuple(sorted(left))
        left.remove(best)


def test_elimination_takes_away_what_is_not_needed_down_to_the_floor() -> None:
    measure, _ = counted(additive)
    found = discovery.eliminate(measure, ALL, 0.9)
    assert found.circuit == ((0, 0), (1, 1), (2, 2)) == one_by_one(additive, ALL, 0.9)
    higher = discovery.eliminate(measure, ALL, 0.95).circuit
    assert higher == ((0, 0), (1, 1), (2, 2), (2, 3)) == one_by_one(additive, ALL, 0.95)
    assert found.sizes == tuple(range(12, 0, -1))
    assert sorted(found.order) == ALL
    assert found.order[-5:] == ((0, 3), (2, 3), (1, 1), (0, 0), (2, 2))  # the least of the needed ones first
    for size, value in zip(found.sizes, found.faithfulness, strict=True):
        assert value == pytest.approx(additive(frozenset(found.order[12 - size :])))


@pytest.mark.parametrize("at_once", [0.1, 0.34, 0.9])
def test_many_at_once_never_fall_below_the_floor_while_one_could_stay_above(at_once: float) -> None:
    heads = [(layer, head) for layer in range(12) for head in range(12)]
    measure, calls = counted(additive)
    found = discovery.eliminate(measure, heads, 0.9, at_once)
    assert found.circuit == one_by_one(additive, heads, 0.9)
    circuits = {len(found.circuit), *found.sizes[: found.sizes.index(len(found.circuit)) + 1]}
    faithful = dict(zip(found.sizes, found.faithfulness, strict=True))
    assert all(faithful[size] >= 0.9 for size in circuits)
    for before, after in itertools.pairwise(found.sizes):
        assert before - after <= max(1, int(at_once * before))
    one, every = counted(additive)
    discovery.eliminate(one, heads, 0.9)
    assert sum(calls) < sum(every) / (2 if at_once < 0.3 else 10)


def test_heads_that_need_each_other_mislead_forward_search_and_not_elimination() -> None:
    measure, _ = counted(together)
    assert discovery.eliminate(measure, ALL, 0.9).circuit == ((0, 1), (1, 2))
    forward = discovery.grow(measure, ALL, 0.9, 2)
    assert forward.order[0] == (2, 0)
    assert forward.faithfulness == (0.5, 0.5)  # it has not found the pair
    assert discovery.grow(counted(additive)[0], ALL, 0.9, 12).circuit == ((0, 0), (1, 1), (2, 2))


def test_forward_search_adds_the_best_head_each_time() -> None:
    found = discovery.grow(counted(additive)[0], ALL, 2.0, 4)
    assert found.order == ((2, 2), (0, 0), (1, 1), (2, 3))
    assert found.faithfulness == pytest.approx((0.4, 0.7, 0.9, 0.96))
    assert found.sizes == (1, 2, 3, 4)
    assert len(found.circuit) == 4  # the floor was never reached


def test_a_start_of_which_no_head_can_go_is_the_circuit() -> None:
    found = discovery.eliminate(counted(lambda heads: 0.5)[0], ALL[:3], 0.9)
    assert found.circuit == tuple(ALL[:3])
    assert found.sizes == (3, 2, 1)
    assert discovery.eliminate(counted(lambda heads: 1.0)[0], ALL, 0.9).circuit == (ALL[-1],)


def test_searches_that_cannot_be() -> None:
    measure, _ = counted(additive)
    for heads, floor, at_once in (([], 0.9, 0.0), (ALL, 1.1, 0.0), (ALL, 0.9, 1.0)):
        with pytest.raises(ValueError, match="expected at least one head, a floor of at most 1 and a share from 0"):
            discovery.eliminate(measure, heads, floor, at_once)
    with pytest.raises(ValueError, match="orders of 12, 11 heads: expected the same heads in each, once"):
        discovery.by_better_rank(ALL, ALL[1:])


def test_the_shortest_beginning_of_an_order_that_stays_faithful() -> None:
    order = [(0, 0), (2, 2), (1, 1), (1, 0), (2, 3), (0, 3)]
    value = {1: 0.95, 2: 0.5, 3: 0.92, 4: 0.91, 6: 1.0}
    measure, calls = counted(lambda heads: value[len(heads)])
    assert discovery.shortest_faithful(measure, order, [1, 2, 3, 4, 6], 0.9) == 3  # 1 is so by chance
    assert calls == [5]
    assert discovery.shortest_faithful(measure, order, [1, 2], 0.9) == 2


def test_the_better_of_two_ranks() -> None:
    a, b, c, d = ALL[:4]
    assert discovery.by_better_rank([a, b, c, d], [d, b, c, a]) == (a, d, b, c)
    assert discovery.by_better_rank([b, a], [a, b]) == (a, b)


def test_sizes_of_a_curve() -> None:
    assert discovery.sizes_to_measure(5) == [0, 1, 2, 3, 4, 5]
    sizes = discovery.sizes_to_measure(144)
    assert (sizes[0], sizes[1], sizes[-1]) == (0, 1, 144)
    assert len(sizes) <= 12
    assert sizes == sorted(set(sizes))
    assert discovery.halvings(10) == [10, 5, 2, 1]


def test_faithfulness_has_two_sides() -> None:
    assert discovery_stages.faithfulness(4.0, 3.0) == discovery_stages.faithfulness(4.0, 5.0) == 0.75
    assert discovery_stages.faithfulness(-2.0, -1.0) == 0.5


def plain(runs: Runs, prompts: Any, means: Any, heads: Any) -> Tensor:
    rows = range(len(prompts.sentences))
    kept = dict.fromkeys(heads)
    return torch.tensor(
        [plain_difference(runs.model, prompts, row, means[kind_of(prompts, row)], kept) for row in rows]
    )


@pytest.fixture(params=ARCHITECTURES)
def runs(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Runs:
    of = Runs(monkeypatch, model_of(request.param), {})
    of("means", measured_circuits.means)
    return of


def test_attributions_of_a_layer_sum_to_what_its_ablation_does(runs: Runs, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(measured_circuits.EFFORT, "tiny", dataclasses.replace(EFFORT, steps=40, attributed=3))
    found, means = runs("ranking", discovery_stages.ranking)["attribution"], runs.plain_means()
    prompts = runs.setting.clean(3, "search")
    clean = plain(runs, prompts, means, ALL)
    for layer in range(N_LAYERS):
        without = plain(runs, prompts, means, [head for head in ALL if head[0] != layer])
        assert np.allclose(found[:, layer].sum(axis=1), (without - clean).numpy(), atol=0.03)
        assert (without - clean).abs().max() > 0.1


def test_the_order_by_paths_is_by_the_largest_effect_of_any_step(monkeypatch: pytest.MonkeyPatch) -> None:
    runs = Runs(monkeypatch, model_of("gpt2"), {})
    runs("means", measured_circuits.means)
    effects = np.zeros((4, 2, N_LAYERS, N_HEADS), dtype=np.float32)
    effects[0, :, 2, 1], effects[1, :, 1, 0] = -0.5, 0.7
    effects[2, 0, 0, 3], effects[2, 1, 0, 3] = 2.0, -2.0  # opposite on two prompts: nothing
    effects[3, :, 0, 2] = -0.6
    for at, stage in enumerate(measured_circuits.PATHS):
        name = "values.effects" if at == 2 else "effects"
        # What belongs to published heads must not be looked at.
        others = {"published.effects": effects[at] + 9.0, "published.values.effects": effects[at] + 9.0}
        runs.done[stage] = Result({name: effects[at], **others}, {"roles": {}})
    runs.done["paths_to_induction"] = Result({}, {"roles": {}})  # a step that was not run
    found = runs("ranking", discovery_stages.ranking)
    steps = ["paths_to_logits/effects", "paths_to_queries/effects", "paths_to_inhibition/values.effects"]
    assert found.facts["steps"] == steps
    assert np.allclose(found["paths"][2], effects[2].mean(axis=0))
    assert found.facts["orders"]["paths"][:3] == [[1, 0], [2, 1], [0, 0]]
    attribution = np.abs(found["attribution"].mean(axis=0))
    largest = np.unravel_index(attribution.argmax(), attribution.shape)
    assert found.facts["orders"]["attribution"][0] == [int(at) for at in largest]
    assert {tuple(head) for head in found.facts["orders"]["better"][:2]} == {(1, 0), tuple(map(int, largest))}


def test_the_proposed_circuit_is_faithful_and_no_head_of_it_can_go(runs: Runs) -> None:
    runs("ranking", discovery_stages.ranking)
    result = runs("elimination", discovery_stages.elimination)
    facts = result.facts
    means, prompts = runs.plain_means(), runs.setting.clean(EFFORT.search, "search")
    circuit = [tuple(head) for head in facts["circuit"]]
    full = float(plain(runs, prompts, means, ALL).mean())

    def faithful(heads: Any) -> float:
        return 1 - abs(full - float(plain(runs, prompts, means, heads).mean())) / abs(full)

    assert 0 < len(circuit) < len(ALL) or runs.model.name == "gpt2"  # whose heads nearly cancel: all are needed
    assert faithful(circuit) >= facts["floor"] == 0.9
    assert all(faithful([other for other in circuit if other != head]) < 0.9 for head in circuit)
    assert facts["start"] == len(ALL)
    at = facts["backward"]["sizes"].index(len(circuit))
    assert result["backward"][at] == pytest.approx(faithful(circuit), abs=1e-3)
    first = [tuple(head) for head in facts["forward"]["order"][:1]]
    assert result["forward"][0] == pytest.approx(faithful(first), abs=1e-3)
    assert all(faithful([head]) <= faithful(first) + 1e-3 for head in ALL)


def test_scores_are_on_other_prompts_with_controls(runs: Runs) -> None:
    runs("ranking", discovery_stages.ranking)
    facts = runs("elimination", discovery_stages.elimination).facts
    found, means = runs("discovered", discovery_stages.score), runs.plain_means()
    prompts = runs.setting.clean(TRIALS.validated, "scores")
    assert found.facts["published"] is None
    circuit = [tuple(head) for head in facts["circuit"]]
    sets = {
        "model": ALL,
        "nothing": [],
        "circuit": circuit,
        "forward": [tuple(head) for head in facts["forward_circuit"]],
        "complement": [head for head in ALL if head not in circuit],
    }
    for name, heads in sets.items():
        assert np.allclose(found[name], plain(runs, prompts, means, heads), atol=2e-5), name
    assert found["random"].shape == (TRIALS.validated, EFFORT.draws)
    order = [tuple(head) for head in facts["backward"]["order"]][::-1]
    sizes = found.facts["sizes"]
    few = runs.setting.clean(EFFORT.curves, "scores")
    assert sizes == list(range(13))
    for at in (1, 4):
        expected = plain(runs, few, means, order[: sizes[at]])
        assert np.allclose(found["curve.elimination"][:, at], expected, atol=2e-5)
    assert found["curve.grown"].shape == (EFFORT.curves, EFFORT.grown + 1)
    for name in ("attribution", "paths", "random"):
        assert found[f"curve.{name}"].shape == (EFFORT.curves, 13)
        assert np.allclose(found[f"curve.{name}"][:, -1], found["model"][: EFFORT.curves], atol=2e-5)


def test_precision_and_recall_against_a_published_circuit(monkeypatch: pytest.MonkeyPatch) -> None:
    known = Circuit("known", {"movers": ((2, 1), (2, 2)), "induction": ((1, 0),)})
    monkeypatch.setattr(discovery_stages, "published", lambda config: (known, known))
    runs = Runs(monkeypatch, model_of("gpt2"), {})
    runs("means", measured_circuits.means)
    orders = {
        "better": [[0, 0], [2, 1]],
        "attribution": [[2, 1], [1, 0], [0, 0], [2, 2]],
        "paths": [[2, 2], [1, 0], [2, 1]],
    }
    runs.done["ranking"] = Result({}, {"orders": orders})
    steps = {"order": [[1, 1], [2, 1]], "sizes": [2, 1]}
    of = {"circuit": [[2, 1], [1, 1]], "forward_circuit": [[2, 1]], "backward": steps, "forward": steps}
    runs.done["elimination"] = Result({}, of)
    found = runs("discovered", discovery_stages.score).facts["published"]
    assert found["circuit"] == {"precision": 1 / 2, "recall": 1 / 3}
    assert found["orders"]["attribution"] == {"precision": 2 / 3, "recall": 2 / 3}
    assert found["orders"]["paths"] == {"precision": 1.0, "recall": 1.0}
    assert found["by_chance"] == 3 / 12


def test_a_planted_circuit_is_found(monkeypatch: pytest.MonkeyPatch) -> None:
    """Of a model in which the other heads write nothing but a constant, none of them is proposed."""
    planted = {(0, 1), (1, 3), (2, 0)}
    model = dataclasses.replace(model_of("gpt2"), network=copy.deepcopy(model_of("gpt2").network))
    network: Any = model.network
    with torch.no_grad():
        for layer, head in set(ALL) - planted:
            network.transformer.h[layer].attn.c_proj.weight[head * D_HEAD : (head + 1) * D_HEAD] = 0
    runs = Runs(monkeypatch, model, {})
    runs("means", measured_circuits.means)
    runs("ranking", discovery_stages.ranking)
    facts = runs("elimination", discovery_stages.elimination).facts
    assert {tuple(head) for head in facts["circuit"]} <= planted
    first = {tuple(head) for head in runs.done["ranking"].facts["orders"]["attribution"][:3]}
    assert first == planted


def test_a_large_model_starts_from_a_beginning_of_the_ranking(monkeypatch: pytest.MonkeyPatch) -> None:
    runs = Runs(monkeypatch, model_of("gpt2"), {})
    monkeypatch.setitem(measured_circuits.EFFORT, "tiny", dataclasses.replace(EFFORT, all_of=4, at_once=0.34))
    runs("means", measured_circuits.means)
    runs("ranking", discovery_stages.ranking)
    seen: list[Sequence[int]] = []

    def five(measure: discovery.Measure, order: Sequence[Head], sizes: Sequence[int], floor: float) -> int:
        seen.append(sizes)
        return 5

    monkeypatch.setattr(discovery, "shortest_faithful", five)
    facts = runs("elimination", discovery_stages.elimination).facts
    assert seen == [list(range(1, 13))]
    assert facts["start"] == facts["backward"]["sizes"][0] == 5
    ranked = runs.done["ranking"].facts["orders"]["better"]
    assert sorted(facts["backward"]["order"]) == sorted(ranked[:5])
    found = runs("discovered", discovery_stages.score)
    means, few = runs.plain_means(), runs.setting.clean(EFFORT.curves, "scores")
    eight = [*facts["backward"]["order"], *ranked[5:8]]
    expected = plain(runs, few, means, [tuple(head) for head in eight])
    assert np.allclose(found["curve.elimination"][:, 8], expected, atol=2e-5)

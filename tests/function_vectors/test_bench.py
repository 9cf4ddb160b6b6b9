"""The benchmark compares like with like: both ways give the same numbers, here on narrow networks."""

from __future__ import annotations

import copy
from dataclasses import replace
from typing import Any

import pytest
import torch
from torch import Tensor

from function_vectors import bench, bench_gpu
from function_vectors.bench import Extraction, K
from function_vectors.encoding import Encoded
from function_vectors.runners import adding
from interventions.bench import Case
from interventions.bench_gpu import GPTJ

LENGTHS = (9, 7, 8, 9, 6, 9)


@pytest.fixture(scope="module")
def gpt2() -> Any:
    """12 layers of 12 heads; at this width the initial weights would make every effect small."""
    network = Case(24, 6).network
    with torch.no_grad():
        for parameter in network.transformer.h.parameters():
            parameter.mul_(8.0 if parameter.ndim == 2 else 1.0)
    return network


@pytest.fixture(scope="module")
def gptj() -> Any:
    """2 layers of 16 heads, in float32 so that the ways can be told from each other's rounding."""
    return GPTJ(layers=2, d_model=1024, device="cpu").network.float()


@pytest.fixture(params=["gpt2", "gptj"])
def case(request: pytest.FixtureRequest) -> Extraction:
    network = request.getfixturevalue(request.param)
    return Extraction(network, ten_shot=LENGTHS, zero_shot=(4, 5, 4, 3), shuffled=2, every=1, every_mean=1)


def means(case: Extraction) -> Tensor:
    found = case.reference_z(case._cells(len(case.ten_shot), 1, 1)).mean(dim=0)
    return found.view(case.runner.n_layers, case.runner.n_heads, -1)


def with_answers(case: Extraction, vector: Tensor) -> Tensor:
    """Gives the zero-shot prompts answers that the vector brings about in a middle layer; says which layers do."""
    vars(case)["vector"] = vector
    found = torch.tensor(case.reference_predictions(case._score_cells())).view(len(case.zero_shot), -1)
    middle = found[:, case.runner.n_layers // 2, None]
    encoded = Encoded(case.without_examples.prompts, tuple(map(tuple, middle.tolist())))
    vars(case)["without_examples"] = encoded
    return found == middle


def test_means_agree(case: Extraction) -> None:
    torch.testing.assert_close(case.means(), means(case), atol=1e-4, rtol=1e-4)


def test_indirect_effects_agree(case: Extraction) -> None:
    found = case.effects()
    expected = case.reference_effects(case._effect_cells())
    torch.testing.assert_close(found.values.flatten(), expected, atol=1e-8, rtol=1e-3)
    assert (found.effects.abs() / found.clean[:, None, None]).max() > 0.05, "an effect of nothing shows nothing"


def test_evaluations_agree(case: Extraction) -> None:
    vector = 3 * case.vector
    right = with_answers(case, vector)
    torch.testing.assert_close(case.scores().right, right)
    predicted = case.runner.predictions_by_layer(
        case.without_examples.prompts, adding(vector), range(case.runner.n_layers)
    )
    assert predicted.flatten().tolist() == case.reference_predictions(case._score_cells())
    assert not right.all(), "the layer must matter for the comparison to show anything"


def test_the_whole_is_the_method_step_by_step(case: Extraction) -> None:
    z = means(case)
    vars(case)["z"] = z
    p = case.reference_effects(case._effect_cells()).view(case.shuffled, -1)
    best = p.mean(dim=0).argsort(descending=True)[:K].tolist()
    vector = torch.zeros(case._width)
    for number in best:
        layer, head = divmod(number, case.runner.n_heads)
        alone = torch.zeros(case.runner.n_heads, z.shape[-1])
        alone[head] = z[layer, head]
        projection = case._projection(layer)
        with torch.no_grad():
            vector += projection(alone.view(1, -1))[0] - projection(torch.zeros(1, alone.numel()))[0]
    right = with_answers(case, vector)
    torch.testing.assert_close(case.whole().right, right)


def test_the_reference_leaves_no_hook(case: Extraction) -> None:
    case.reference_z([(0, 0)])
    case.reference_effects([(0, 3)])
    case.reference_predictions([(0, 1)])
    modules = case.network.modules()
    assert not any(module._forward_hooks or module._forward_pre_hooks for module in modules)


@pytest.mark.parametrize(("every", "layers", "heads"), [(bench.EVERY, 12, 12), (bench_gpu.EVERY, 28, 16)])
def test_the_reference_is_timed_on_the_share_that_its_rows_name(every: int, layers: int, heads: int) -> None:
    case = Extraction(torch.nn.Identity())
    shapes = {1: len(case.ten_shot), layers * heads: case.shuffled, layers: len(case.zero_shot)}
    for others, prompts in shapes.items():
        cells = case._cells(prompts, others, every)
        assert len(cells) * every == prompts * others
        assert len(set(cells)) == len(cells)
        assert all(prompt < prompts and other < others for prompt, other in cells)
    assert len(case._cells(100, 1, bench.EVERY_MEAN)) * bench.EVERY_MEAN == 100
    numbers = [number for _, number in case._cells(case.shuffled, layers * heads, every)]
    assert {number // heads for number in numbers} == set(range(layers))


def test_prompts_are_about_as_long_as_ten_demonstrations() -> None:
    assert (min(bench.TEN_SHOT), max(bench.TEN_SHOT)) == (80, 100)
    assert sum(bench.TEN_SHOT) / len(bench.TEN_SHOT) == pytest.approx(90, abs=0.5)


def test_rows_compare_each_part_and_the_whole_with_the_reference(gptj: Any) -> None:
    small = Extraction(gptj, ten_shot=LENGTHS, zero_shot=(4, 5), shuffled=2, every=2, every_mean=3)
    rows = list(small.rows("X: "))
    names = ("means", "indirect effects", "evaluation", "the whole")
    assert [row[0] for row in rows] == [
        f"X: {name}, {way}" for name in names for way in ("one forward a cell", "engine")
    ]
    assert [row[1] for row in rows] == [of for name in names for of in (None, f"X: {name}, one forward a cell")]
    assert [row[3]["sampled"] for row in rows] == [1 / 3, 1, 1 / 2, 1, 1 / 2, 1, 1 / 2, 1]
    assert all(row[3]["flops"] > 0 for row in rows)


def test_half_precision_runs(gptj: Any) -> None:
    half = copy.deepcopy(gptj).to(torch.bfloat16)
    case = Extraction(half, ten_shot=(9, 7), zero_shot=(4,), shuffled=1)
    assert case.effects().values.isfinite().all()
    torch.testing.assert_close(case.means(), replace(case, network=gptj).means(), atol=0.05, rtol=0.05)
    assert case.whole().right.shape == (1, 2)


def test_without_a_gpu_the_gpu_rows_say_so(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    message = "function-vectors-gpu needs a GPU that torch sees: expected CUDA; use `reprise bench function-vectors`"
    with pytest.raises(RuntimeError, match=message):
        next(bench_gpu.rows())

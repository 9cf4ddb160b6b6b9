"""The benchmark compares like with like: all its ways give the same numbers, here on a narrow network."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor

from interventions.bench import CELLS, LAYERS, PROMPTS, Case, timed_row
from interventions.bench_gpu import GPTJ, rows
from interventions.edits import Given
from interventions.metrics import probability
from interventions.prompts import Prompts
from interventions.sweeps import sweep


@pytest.fixture(scope="module")
def case() -> Case:
    """At this width the initial weights would make every effect small."""
    case = Case(24, 6)
    with torch.no_grad():
        for parameter in case.network.transformer.h.parameters():
            parameter.mul_(8.0 if parameter.ndim == 2 else 1.0)
    return case


def difference(case: Case, logits: Tensor) -> Tensor:
    last, every = logits[:, -1] if logits.ndim == 3 else logits, torch.arange(PROMPTS)
    return last[every, case.answers[0]] - last[every, case.answers[1]]


def test_all_ways_of_the_head_sweep_agree(case: Case) -> None:
    sweep_of: Any = case.heads(full=False)
    expected = [sweep_of.values[:, layer, 5] for layer in (1, 6, 11)]
    hooks: Any = case._plain_hooks()
    traced: Any = case._nnsight()
    lens: Any = case._transformer_lens_heads()
    for cell, (plain, through, branches) in enumerate(zip(hooks, traced, expected, strict=True)):
        torch.testing.assert_close(difference(case, plain), branches, atol=1e-4, rtol=0)
        torch.testing.assert_close(difference(case, through), branches, atol=1e-4, rtol=0)
        assert lens[cell].item() == pytest.approx(branches.mean().item(), abs=1e-4)
    reference: Any = case.reference_loop()
    torch.testing.assert_close(difference(case, torch.cat(reference)), expected[1], atol=1e-4, rtol=0)
    logs: Any = case.heads(full=True)
    log_p = hooks[1].log_softmax(dim=-1)[torch.arange(PROMPTS), case.answers[0]]
    torch.testing.assert_close(logs.values[:, 6, 5], log_p, atol=1e-4, rtol=0)
    assert sweep_of.effects.abs().max() > 0.1


def test_no_way_leaves_anything_in_the_network_that_the_others_run(case: Case) -> None:
    # nnsight puts a forward of its own into every module that it has seen, and fused activations then stay off.
    case._nnsight()
    assert not [name for name, module in case.network.named_modules() if "forward" in vars(module)]


def test_all_ways_of_the_position_sweep_agree(case: Case) -> None:
    branches: Any = case.positions("branches", CELLS)
    oracle: Any = case.positions("oracle", CELLS)
    torch.testing.assert_close(branches.values[:, 6], oracle.values[:, 0], atol=1e-4, rtol=0)
    assert branches.values.shape[1] == LAYERS
    lens: Any = case.transformer_lens_positions()
    for cell, position in ((0, -case.length), (CELLS - 1, -1)):
        at = branches.coordinates["position"].index(position)
        assert lens[cell].item() == pytest.approx(branches.values[:, 6, at].mean().item(), abs=1e-4)


def test_the_gptj_row_measures_what_the_reference_loop_measures() -> None:
    shape = GPTJ(layers=2, d_model=1024, device="cpu")
    found: Any = shape.branches()
    loop: Any = shape.reference_loop()
    for cell, p in enumerate(loop):
        layer, head = cell * 2 // len(loop), cell % 16
        assert found.values[cell, layer, head].item() == pytest.approx(float(p[shape.tokens[cell, 0]]), rel=0.05)
    given = Given({layer: means[None, None] for layer, means in enumerate(shape.means)})
    one = sweep(
        shape.network,
        Prompts(shape.tokens[:2]),
        given,
        probability(shape.tokens[:2, 0]),
        component="z",
        over=("layer", "head"),
        heads=(3,),
        method="oracle",
    )
    torch.testing.assert_close(found.values[:2, :, 3:4], one.values, rtol=0.05, atol=1e-7)


def test_rows_count_their_flops_and_memory() -> None:
    a, b = torch.randn(1024, 5), torch.randn(5, 2048)

    def products() -> float:
        return float((a @ b).sum()) + float((a @ b).mean())  # of two products, one is there at a time

    work: Any = timed_row("product", None, products, sampled=0.5)
    assert (work[3]["flops"], work[3]["sampled"]) == (2 * 2.0 * 1024 * 5 * 2048, 0.5)
    assert work[3]["peak_mib"] == pytest.approx(4 * 1024 * 2048 / 2**20, abs=0.1)


def test_without_a_gpu_the_gpu_rows_say_so(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    with pytest.raises(RuntimeError, match="needs a GPU that torch sees: expected CUDA; use `reprise bench patching`"):
        next(rows())

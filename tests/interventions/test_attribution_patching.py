"""Attribution patching against finite differences of exact sweeps, and integrated gradients against their sums."""

from __future__ import annotations

import copy
import itertools
import math
from typing import Any

import pytest
import torch

from interventions.attribution_patching import attribution_patch
from interventions.comparison import agreement
from interventions.edits import Add, Given, Mean, Replace, Zero
from interventions.hooks import COMPONENTS, HEADS, Modules
from interventions.metrics import Metric, custom, kl_to_clean, log_probability, logit_difference, rank, token_logit
from interventions.prompts import Prompts, as_prompts
from interventions.results import SweepResult
from interventions.sources import captured
from interventions.sweeps import Axis, sweep

from .conftest import NETWORKS, random_network, same_weights


def prompts_like(lengths: tuple[int, ...], *, seed: int) -> Prompts:
    generator = torch.Generator().manual_seed(seed)
    return as_prompts([torch.randint(1, 37, (n,), generator=generator).tolist() for n in lengths])


def towards(network: Any, prompts: Prompts, source: Prompts, component: str, share: float) -> Given:
    """The clean activations, moved a share of the way to those of the source."""
    modules = Modules(network)
    with torch.no_grad():
        clean, other = (captured(modules, run, component, range(3)) for run in (prompts, source))
    return Given({layer: clean[layer] + share * (other[layer] - clean[layer]) for layer in clean})


def central_difference(network: Any, prompts: Prompts, source: Prompts, metric: Metric, **cells: Any) -> torch.Tensor:
    """(m(a + h d) - m(a - h d)) / 2h by exact sweeps, d the whole way to the source."""
    h = 3e-3
    component = cells["component"]
    ahead = sweep(network, prompts, towards(network, prompts, source, component, h), metric, **cells)
    behind = sweep(network, prompts, towards(network, prompts, source, component, -h), metric, **cells)
    return (ahead.values - behind.values) / (2 * h)


@pytest.mark.parametrize("name", NETWORKS)
def test_attribution_is_the_derivative_of_the_exact_effect(name: str) -> None:
    network = random_network(name)
    modules = Modules(network)
    metric = logit_difference(torch.tensor([3, 5]), torch.tensor([4, 9]))
    for component in COMPONENTS:
        if component == "resid_mid" and modules.parallel:
            continue
        lengths = (6, 6) if component == "pattern" else (7, 5)
        prompts, source = prompts_like(lengths, seed=0), prompts_like(lengths, seed=1)
        over = ("layer", "head") if component in HEADS else ("layer", "position")
        cells: dict[str, Any] = {"component": component, "over": over, "positions": (-1, -2, -4)}
        linear = attribution_patch(network, prompts, source, metric, **cells).effects
        slope = central_difference(network, prompts, source, metric, **cells)
        size = slope.abs().max()
        assert size > 1e-2
        torch.testing.assert_close(linear, slope, atol=float(2e-2 * size), rtol=0, msg=component)


def test_error_against_the_sweep_is_of_second_order() -> None:
    network = random_network("gemma3_text")
    prompts, source = prompts_like((6, 6), seed=0), prompts_like((6, 6), seed=1)
    metric = token_logit(torch.tensor([3, 4]))
    cells: dict[str, Any] = {"component": "z", "over": ("layer", "head", "position"), "positions": None}
    errors = []
    for share in (0.2, 0.1, 0.05):
        edit = towards(network, prompts, source, "z", share)
        approximate = attribution_patch(network, prompts, edit, metric, **cells)
        exact = sweep(network, prompts, edit, metric, **cells)
        assert approximate.axes == exact.axes
        assert approximate.coordinates == exact.coordinates
        torch.testing.assert_close(approximate.clean, exact.clean)
        errors.append(float((approximate.values - exact.values).norm()))
    for larger, smaller in itertools.pairwise(errors):
        assert 3.3 < larger / smaller < 4.7


@pytest.mark.parametrize("component", ["resid_pre", "resid_mid", "mlp_out", "z", "k", "pattern"])
def test_integrated_gradients_of_a_layer_sum_to_the_edit_of_all_its_cells(component: str) -> None:
    network = random_network("gemma2")
    prompts, source = prompts_like((5, 5), seed=0), prompts_like((5, 5), seed=1)
    metric = log_probability(torch.tensor([3, 4]))
    over: tuple[Axis, ...] = ("layer", "head", "position") if component in HEADS else ("layer", "position")
    cells: dict[str, Any] = {"component": component, "positions": None}
    steps = 80 if component == "resid_pre" else 24
    parts = attribution_patch(network, prompts, source, metric, over=over, steps=steps, **cells)
    together = sweep(network, prompts, Replace(source), metric, over=("layer",), **cells)
    torch.testing.assert_close(parts.effects.flatten(2).sum(dim=2), together.effects, atol=1e-2, rtol=0)
    linear = attribution_patch(network, prompts, source, metric, over=over, **cells)
    assert (linear.effects.flatten(2).sum(dim=2) - together.effects).abs().max() > 5e-2, "one step would do"


def test_a_whole_stream_integrates_to_the_metric_of_the_source() -> None:
    network = random_network("gpt2")
    prompts, source = prompts_like((5, 5), seed=0), prompts_like((5, 5), seed=1)
    metric = token_logit(torch.tensor([3, 4]))
    options: dict[str, Any] = {"component": "resid_pre", "over": ("layer", "position"), "positions": None}
    result = attribution_patch(network, prompts, source, metric, steps=64, **options)
    with torch.no_grad():
        clean, corrupted = (network(run.tokens).logits[[0, 1], -1, [3, 4]] for run in (prompts, source))
    expected = (corrupted - clean)[:, None].expand(2, 3)
    torch.testing.assert_close(result.effects.sum(dim=2), expected, atol=1e-2, rtol=0)


def test_a_single_cell_is_exact_in_the_limit() -> None:
    network = random_network("gemma2")
    prompts, source = prompts_like((6, 4), seed=0), prompts_like((6, 4), seed=1)
    metric = token_logit(torch.tensor([3, 4]))
    cells: dict[str, Any] = {"component": "z", "over": ("layer", "head"), "heads": [2], "positions": (-1,)}
    exact = sweep(network, prompts, Replace(source), metric, **cells)
    close = attribution_patch(network, prompts, source, metric, steps=32, **cells)
    torch.testing.assert_close(close.values, exact.values, atol=2e-3, rtol=0)
    kl: dict[str, Any] = {**cells, "metric": kl_to_clean()}
    assert attribution_patch(network, prompts, source, **kl).effects.abs().max() < 1e-5
    exact = sweep(network, prompts, Replace(source), **kl)
    close = attribution_patch(network, prompts, source, steps=32, **kl)
    torch.testing.assert_close(close.values, exact.values, atol=2e-3, rtol=0)


def test_other_edits_are_linearised_too() -> None:
    network = random_network("llama")
    prompts, metric = prompts_like((6, 6), seed=0), token_logit(torch.tensor([3, 4]))
    cells: dict[str, Any] = {"component": "attn_out", "over": ("layer", "position"), "positions": (-1, -2)}
    for edit in (Zero(), Mean(prompts_like((6, 6, 6), seed=2)), Add(torch.linspace(-1, 1, 32))):
        with torch.no_grad():
            clean = captured(Modules(network), prompts, "attn_out", range(3))
        match edit:
            case Zero():
                change = {layer: -x for layer, x in clean.items()}
            case Mean(over):
                with torch.no_grad():
                    seen = captured(Modules(network), over, "attn_out", range(3))
                change = {layer: seen[layer].mean(dim=0) - x for layer, x in clean.items()}
            case Add(vector):
                change = {layer: vector.expand_as(x) for layer, x in clean.items()}
        ends = [Given({layer: x + h * change[layer] for layer, x in clean.items()}) for h in (1e-2, -1e-2)]
        ahead, behind = (sweep(network, prompts, end, metric, **cells).values for end in ends)
        slope = (ahead - behind) / 2e-2
        linear = attribution_patch(network, prompts, edit, metric, **cells).effects
        torch.testing.assert_close(linear, slope, atol=float(2e-2 * slope.abs().max()), rtol=0)


def test_integrated_gradients_of_a_layer_need_nothing_below_it() -> None:
    network = random_network("gpt2")
    counts = [0, 0, 0]

    def count(module: Any, args: Any) -> None:
        counts[list(network.transformer.h).index(module)] += 1

    handles = [layer.register_forward_pre_hook(count) for layer in network.transformer.h]
    prompts, source = prompts_like((6, 6), seed=0), prompts_like((6, 6), seed=1)
    metric = token_logit(torch.tensor([3, 4]))
    attribution_patch(network, prompts, source, metric, component="z", over=("layer",), steps=5)
    for handle in handles:
        handle.remove()
    # Two passes for clean and edited activations; the last layer is called for its keys and values, then for a row.
    assert counts == [2 + 5, 2 + 10, 2 + 2 * 10 + 5]


@pytest.mark.parametrize("trained", [True, False])
def test_parameters_hooks_and_flags_are_left_alone(trained: bool) -> None:
    network = copy.deepcopy(random_network("gptj")).requires_grad_(trained)
    network.transformer.h[1].train()
    before = copy.deepcopy(network.state_dict())
    prompts, source = prompts_like((6, 6, 6), seed=0), prompts_like((6,), seed=1)
    metric = token_logit(torch.tensor([3, 4, 5]))
    cells: dict[str, Any] = {"component": "q", "over": ("layer", "head")}
    seen: list[tuple[int, ...]] = []
    for steps in (1, 3):
        options: dict[str, Any] = {**cells, "steps": steps}
        whole = attribution_patch(network, prompts, source, metric, **options)
        assert not whole.values.requires_grad
        batched = attribution_patch(
            network, prompts, source, metric, batch_size=2, progress=lambda *counts: seen.append(counts), **options
        )
        torch.testing.assert_close(batched.values, whole.values, atol=1e-5, rtol=0)
    assert seen == [(1, 2), (2, 2), *((done, 18) for done in range(1, 19))]
    with pytest.raises(ValueError, match="metric 'rank' has no gradient: expected a differentiable one; use `sweep`"):
        attribution_patch(network, prompts, source, rank(torch.tensor([3, 4, 5])), **cells)
    with pytest.raises(KeyboardInterrupt):
        attribution_patch(network, prompts, source, custom("stops", _interrupt), **cells)
    assert same_weights(network, before)
    assert all(p.grad is None and p.requires_grad == trained for p in network.parameters())
    assert not any(module._forward_hooks or module._forward_pre_hooks for module in network.modules())
    assert [module.training for module in network.transformer.h] == [False, True, False]
    assert torch.is_grad_enabled()


def _interrupt(logits: torch.Tensor) -> torch.Tensor:
    raise KeyboardInterrupt


def test_what_does_not_fit_is_refused() -> None:
    network = random_network("gpt2")
    prompts, metric = prompts_like((6, 6), seed=0), token_logit(torch.tensor([3, 4]))
    cells: dict[str, Any] = {"component": "z", "over": ("layer",)}
    for options, message in (
        ({"steps": 0}, "steps 0, batch_size None: expected at least 1"),
        ({"batch_size": 0}, "steps 1, batch_size 0: expected at least 1"),
        ({"layers": [3]}, "layer 3 does not exist"),
        ({"source": prompts_like((5, 5), seed=1)}, "source prompts have 5 tokens, the prompts 6"),
        ({"metric": token_logit(torch.tensor([3]))}, "has tokens for 1 prompts: expected 2"),
    ):
        given: dict[str, Any] = {"source": prompts_like((6, 6), seed=1), "metric": metric, **cells, **options}
        with pytest.raises(ValueError, match=message):
            attribution_patch(network, prompts, **given)


def result(effects: list[list[float]], metric: str = "logit") -> SweepResult:
    values = torch.tensor(effects)[None]
    coordinates = {"layer": (2, 5), "position": tuple(range(-values.shape[2], 0))}
    return SweepResult(values, torch.zeros(1), ("layer", "position"), coordinates, "z", metric)


def test_agreement_by_hand() -> None:
    exact = result([[1.0, 2.0, 3.0], [4.0, -5.0, 0.0]])
    found = agreement(exact, result([[1.0, 4.0, 9.0], [16.0, -25.0, -1.0]]), misses=2)
    # Ranks of the exact effects 2 3 4 5 0 1, of the approximate ones the same.
    assert found.rank == pytest.approx(1)
    assert found.sign == 1
    assert found.misses == (({"layer": 5, "position": -2}, -5.0, -25.0), ({"layer": 5, "position": -3}, 4.0, 16.0))
    # Ties share ranks 0.5: [0.5 0.5 2 3] against [0 1 2 3] is 4.5 / sqrt(4.5 * 5).
    tied = agreement(result([[1.0, 1.0], [2.0, 3.0]]), result([[-1.0, 1.0], [2.0, 3.0]]))
    assert tied.rank == pytest.approx(4.5 / math.sqrt(4.5 * 5))
    # Deviations [-.75 -.75 .25 1.25] and [-2.25 -.25 .75 1.75]: 4.25 / sqrt(2.75 * 8.75).
    assert tied.pearson == pytest.approx(4.25 / math.sqrt(2.75 * 8.75))
    assert tied.sign == 0.75
    assert math.isnan(agreement(exact, result([[0.0] * 3] * 2)).rank)
    with pytest.raises(ValueError, match="metric of the approximate result: expected logit"):
        agreement(exact, result([[0.0] * 3] * 2, metric="rank"))

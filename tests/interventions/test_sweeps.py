"""Branches against plain hooks on every architecture and component, and the hooks against code of this file alone."""

from __future__ import annotations

import copy
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor

from interventions.edits import Given, Replace
from interventions.hooks import COMPONENTS, HEADS, Modules
from interventions.metrics import custom, logit_difference, token_logit
from interventions.prompts import Prompts, as_prompts
from interventions.results import SweepResult
from interventions.sweeps import Axis, sweep

from .conftest import NETWORKS, random_network

Grid = tuple[tuple[Axis, ...], tuple[int, ...] | None]
STREAM_GRIDS: tuple[Grid, ...] = ((("layer",), (-1,)), (("layer", "position"), None), (("layer",), (-1, -3)))
HEAD_GRIDS: tuple[Grid, ...] = (
    (("layer", "head"), (-1,)),
    (("layer", "position"), None),
    (("layer", "head"), None),
    (("head", "layer", "position"), None),
)
FEW = {"layers": (0, 2), "heads": (1,)}


def components_of(network: Any) -> list[str]:
    modules = Modules(network)
    return [component for component in COMPONENTS if not (component == "resid_mid" and modules.parallel)]


def prompts_like(lengths: tuple[int, ...], *, seed: int) -> Prompts:
    generator = torch.Generator().manual_seed(seed)
    return as_prompts([torch.randint(1, 37, (n,), generator=generator).tolist() for n in lengths])


def both(network: Any, *args: Any, **options: Any) -> tuple[SweepResult, SweepResult]:
    return (
        sweep(network, *args, **options, method="branches"),
        sweep(network, *args, **options, method="oracle"),
    )


@pytest.mark.parametrize("name", NETWORKS)
def test_branches_equal_one_forward_pass_a_cell(name: str) -> None:
    network = random_network(name)
    prompts, others = prompts_like((6, 6), seed=0), prompts_like((6, 6), seed=1)
    metric = logit_difference(torch.tensor([3, 5]), torch.tensor([4, 9]))
    for component in components_of(network):
        for over, positions in HEAD_GRIDS if component in HEADS else STREAM_GRIDS:
            options: dict[str, Any] = {"component": component, "over": over, "positions": positions}
            if len(over) == 3:
                options |= FEW
            fast, slow = both(network, prompts, Replace(others), metric, **options)
            assert fast.axes == over
            torch.testing.assert_close(fast.values, slow.values, atol=1e-4, rtol=0, msg=f"{component} {over}")
            assert slow.effects.abs().max() > 1e-2, "an edit without effect shows nothing"


@pytest.mark.parametrize("name", ["llama", "gpt2", "gemma2"])
def test_all_logits_agree(name: str) -> None:
    network = random_network(name)
    prompts, others = prompts_like((8,), seed=0), prompts_like((8,), seed=1)
    for component in ("z", "resid_pre", "pattern"):
        seen: dict[str, Tensor] = {}
        for method in ("branches", "oracle"):
            chunks: list[Tensor] = []

            def keep(logits: Tensor, chunks: list[Tensor] = chunks) -> Tensor:
                chunks.append(logits)
                return logits[..., 0]

            options: dict[str, Any] = {"component": component, "over": ("layer",), "method": method}
            sweep(network, prompts, Replace(others), custom("first logit", keep), **options)
            seen[method] = torch.cat(chunks, dim=1)
        assert seen["branches"].shape == (1, 4, 37)  # the clean run, then three layers
        torch.testing.assert_close(seen["branches"], seen["oracle"], atol=1e-4, rtol=0)


@pytest.mark.parametrize("name", ["gpt2", "llama"])
@pytest.mark.parametrize("method", ["branches", "oracle"])
@pytest.mark.parametrize("component", ["z", "resid_pre", "attn_out", "mlp_out"])
def test_both_methods_equal_hooks_that_share_nothing_with_the_engine(name: str, method: str, component: str) -> None:
    network = random_network(name)
    prompts, others = prompts_like((6, 6), seed=2), prompts_like((6, 6), seed=3)
    correct, wrong = torch.tensor([1, 2]), torch.tensor([7, 8])
    over: tuple[Axis, ...] = ("layer", "head", "position") if component == "z" else ("layer", "position")
    options: dict[str, Any] = {"component": component, "over": over, "positions": None, "method": method}
    result = sweep(network, prompts, Replace(others), logit_difference(correct, wrong), **options)
    source = _run(network, others.tokens, component, {})[1]
    clean = _difference(_run(network, prompts.tokens, component, {})[0], correct, wrong)
    torch.testing.assert_close(result.clean, clean, atol=1e-5, rtol=0)
    for layer in range(3):
        for position in range(6):
            for head in range(4) if component == "z" else (None,):

                def patch(x: Tensor, new: Tensor = source[layer], p: int = position, h: int | None = head) -> Tensor:
                    x = x.clone()
                    columns = slice(None) if h is None else slice(8 * h, 8 * h + 8)
                    x[:, p, columns] = new[:, p, columns]
                    return x

                logits = _run(network, prompts.tokens, component, {layer: patch})[0]
                at = (layer, head, position) if component == "z" else (layer, position)
                expected = _difference(logits, correct, wrong)
                torch.testing.assert_close(result.values[:, *at], expected, atol=1e-4, rtol=0)


@pytest.mark.parametrize("name", ["mistral", "gemma2", "llama"])
def test_an_edited_pattern_may_look_anywhere(name: str) -> None:
    """Weight on keys beyond a window and on later tokens, in rows that do not sum to 1."""
    network = random_network(name)
    prompts = prompts_like((9, 9), seed=4)
    generator = torch.Generator().manual_seed(0)
    given = Given({layer: torch.rand(2, 9, 4, 9, generator=generator) for layer in range(3)})
    for over, positions in HEAD_GRIDS[:3]:
        options: dict[str, Any] = {"component": "pattern", "over": over, "positions": positions}
        fast, slow = both(network, prompts, given, token_logit(torch.tensor([3, 5])), **options)
        torch.testing.assert_close(fast.values, slow.values, atol=1e-4, rtol=0)


@pytest.mark.parametrize("name", NETWORKS)
def test_bfloat16_is_as_near_to_float32_as_plain_hooks_are(name: str) -> None:
    """Rounding differs between the methods; the error of branches is at most twice that of hooks."""
    network = random_network(name)
    half = copy.deepcopy(network).to(torch.bfloat16)
    prompts, others = prompts_like((6, 6, 6), seed=0), prompts_like((6, 6, 6), seed=1)
    metric = token_logit(torch.tensor([3, 5, 7]))
    for component, over in (("z", ("layer", "head")), ("resid_pre", ("layer", "position"))):
        positions = (-1,) if component == "z" else (-1, -6)
        options: dict[str, Any] = {"component": component, "over": over, "positions": positions}
        exact = sweep(network, prompts, Replace(others), metric, **options, method="oracle").values
        fast, slow = both(half, prompts, Replace(others), metric, **options)
        errors = [(values - exact).square().mean().sqrt() for values in (fast.values, slow.values)]
        assert errors[0] <= 2 * errors[1], f"{component}: {errors}"


def _run(
    network: Any, tokens: Tensor, component: str, edits: dict[int, Callable[[Tensor], Tensor]]
) -> tuple[Tensor, list[Tensor]]:
    """Logits of the last token and the component of every layer, by torch's hooks on named modules."""
    gpt2 = hasattr(network, "transformer")
    layers = network.transformer.h if gpt2 else network.model.layers
    seen: list[Tensor] = []
    handles = []

    def see(layer: int, x: Tensor) -> Tensor:
        seen.append(x.clone())
        return edits[layer](x) if layer in edits else x

    for index, layer in enumerate(layers):
        attention = layer.attn if gpt2 else layer.self_attn
        if component in ("z", "resid_pre"):
            projection = attention.c_proj if gpt2 else attention.o_proj
            module = projection if component == "z" else layer
            handles.append(module.register_forward_pre_hook(lambda m, args, i=index: (see(i, args[0]), *args[1:])))
        elif component == "attn_out":
            handles.append(attention.register_forward_hook(lambda m, args, out, i=index: (see(i, out[0]), *out[1:])))
        else:
            handles.append(layer.mlp.register_forward_hook(lambda m, args, out, i=index: see(i, out)))
    with torch.no_grad():
        logits = network(tokens, use_cache=False).logits[:, -1]
    for handle in handles:
        handle.remove()
    return logits, seen


def _difference(logits: Tensor, correct: Tensor, wrong: Tensor) -> Tensor:
    rows = torch.arange(len(logits))
    return logits[rows, correct] - logits[rows, wrong]

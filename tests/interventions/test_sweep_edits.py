"""Every edit against raw torch hooks, identity edits, and the work that is left out."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor

from interventions import sweeps
from interventions.branching import run_branches
from interventions.edits import (
    Add,
    Apply,
    Edit,
    Given,
    Mean,
    ProjectOut,
    Replace,
    Resample,
    Zero,
    as_function,
    derangement,
)
from interventions.metrics import token_logit
from interventions.prompts import Prompts, as_prompts
from interventions.sweeps import sweep

from .conftest import random_network

GENERATOR = torch.Generator().manual_seed(0)
PROMPTS = as_prompts(torch.randint(1, 37, (3, 6), generator=GENERATOR))
OTHERS = as_prompts(torch.randint(1, 37, (3, 6), generator=GENERATOR))
MANY = as_prompts(torch.randint(1, 37, (7, 6), generator=GENERATOR))
TOKENS = torch.tensor([3, 5, 7])
VECTORS = torch.randn(2, 8, generator=GENERATOR)
GIVEN = {layer: torch.randn(3, 1, 4, 8, generator=GENERATOR) for layer in range(3)}
Patch = Callable[[Tensor, int], Tensor]


def raw(network: Any, prompts: Prompts, patch: Patch | None = None) -> tuple[Tensor, list[Tensor]]:
    """Last logits and z [batch, pos, head, d_head] of Llama layers; `patch` maps z and layer to the edited z."""
    seen: list[Tensor] = []

    def hook(layer: int, args: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
        z = args[0].view(*args[0].shape[:2], 4, 8)
        seen.append(z.clone())
        new = patch(z.clone(), layer) if patch else z
        return (new.flatten(2),)

    handles = [
        layer.self_attn.o_proj.register_forward_pre_hook(lambda m, args, i=index: hook(i, args))
        for index, layer in enumerate(network.model.layers)
    ]
    with torch.no_grad():
        logits = network(prompts.tokens, use_cache=False).logits[:, -1]
    for handle in handles:
        handle.remove()
    return logits, seen


def without_span(x: Tensor) -> Tensor:
    v = VECTORS.double()
    projection = v.mT @ torch.linalg.inv(v @ v.mT) @ v
    rest: Tensor = (x.double() - x.double() @ projection).float()
    return rest


def new_values(name: str, network: Any) -> Callable[[Tensor, int], Tensor]:
    """What takes the place of a layer's whole z."""
    theirs, many = raw(network, OTHERS)[1], raw(network, MANY)[1]
    permutation = derangement(3, seed=5)
    table: dict[str, Callable[[Tensor, int], Tensor]] = {
        "replace": lambda z, layer: theirs[layer],
        "one for all": lambda z, layer: theirs[layer][:1].expand_as(z),
        "given": lambda z, layer: GIVEN[layer].expand_as(z),
        "zero": lambda z, layer: 0 * z,
        "mean": lambda z, layer: many[layer].double().sum(dim=0).float().expand_as(z) / 7,
        "pooled mean": lambda z, layer: many[layer].mean(dim=(0, 1)).expand_as(z),
        "resample": lambda z, layer: torch.stack([theirs[layer][int(donor)] for donor in permutation]),
        "add": lambda z, layer: z + VECTORS[0],
        "project out": lambda z, layer: without_span(z),
        "apply": lambda z, layer: z.sin() - 1,
    }
    return table[name]


EDITS: dict[str, Edit] = {
    "replace": Replace(OTHERS),
    "one for all": Replace(OTHERS.rows(slice(0, 1))),
    "given": Given(GIVEN),
    "zero": Zero(),
    "mean": Mean(MANY),
    "pooled mean": Mean(MANY, pooled=True),
    "resample": Resample(OTHERS, seed=5),
    "add": Add(VECTORS[0]),
    "project out": ProjectOut(VECTORS),
    "apply": Apply(lambda x: x.sin() - 1),
}


@pytest.mark.parametrize("name", EDITS)
def test_edits_equal_raw_hooks(name: str) -> None:
    network = random_network("llama")
    new = new_values(name, network)
    options: dict[str, Any] = {"component": "z", "over": ("layer", "head", "position"), "positions": (-1, -4)}
    for method in ("branches", "oracle"):
        result = sweep(network, PROMPTS, EDITS[name], token_logit(TOKENS), **options, method=method)
        for layer in range(3):
            for head in range(4):
                for at, position in enumerate((-1, -4)):

                    def patch(
                        z: Tensor, i: int, layer: int = layer, head: int = head, position: int = position
                    ) -> Tensor:
                        if i == layer:
                            z[:, position, head] = new(z, i)[:, position, head]
                        return z

                    logits, _ = raw(network, PROMPTS, patch)
                    want = logits[torch.arange(3), TOKENS]
                    torch.testing.assert_close(result.values[:, layer, head, at], want, atol=1e-4, rtol=0)
        assert result.effects.abs().max() > 0.05


@pytest.mark.parametrize("component", ["z", "resid_pre", "k", "pattern", "mlp_out"])
def test_identity_edits_change_nothing(component: str) -> None:
    """Replacing by the same prompts is clean to the last bit; an identity function runs, and so rounds differently."""
    options: dict[str, Any] = {"component": component, "over": ("layer", "position"), "positions": None}
    for name in ("gpt2", "mistral"):
        network = random_network(name)
        same = sweep(network, PROMPTS, Replace(PROMPTS), token_logit(TOKENS), **options)
        assert torch.equal(same.values, same.clean[:, None, None].expand_as(same.values))
        identity = sweep(network, PROMPTS, Apply(lambda x: x), token_logit(TOKENS), **options)
        assert identity.effects.abs().max() < 2e-5


@pytest.mark.parametrize("first", [0, 3, 5])
def test_cells_before_the_first_difference_cost_nothing(first: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """Branches run for the positions from the first difference on; the values are those of hooks, which run all."""
    tokens = PROMPTS.tokens.clone()
    tokens[1, first] = tokens[1, first] % 36 + 1
    tokens[2, -1] = tokens[2, -1] % 36 + 1
    network = random_network("gpt2")
    ran: list[tuple[int, int]] = []
    forwards: list[int] = []

    def counted(shared: Any, start: int, entering: list[int], edits: Any) -> Tensor:
        ran.append((start, len(entering)))
        return run_branches(shared, start, entering, edits)

    def one_forward(*args: Any) -> Tensor:
        forwards.append(1)
        return original(*args)

    original = sweeps._one_forward
    monkeypatch.setattr(sweeps, "run_branches", counted)
    monkeypatch.setattr(sweeps, "_one_forward", one_forward)
    for over, positions, cells in ((("layer", "position"), None, 3), (("layer",), None, 3), (("layer",), (-5,), 3)):
        options: dict[str, Any] = {"component": "resid_pre", "over": over, "positions": positions}
        ran.clear()
        forwards.clear()
        fast = sweep(network, PROMPTS, Replace(as_prompts(tokens)), token_logit(TOKENS), **options)
        slow = sweep(network, PROMPTS, Replace(as_prompts(tokens)), token_logit(TOKENS), **options, method="oracle")
        assert len(forwards) == slow.values[0].numel()
        torch.testing.assert_close(fast.values, slow.values, atol=1e-4, rtol=0)
        starts = range(first, 6)[: None if len(over) == 2 else 1]
        if positions:
            starts = range(1, 2) if first <= 1 else range(0)
        # Where branches have several rows, the cell of the last layer goes apart; before the first layer the stream of
        # a token that is the same changes nothing, and a cell of that token alone does not run.
        alone = len(over) == 2 or positions is not None
        same = {at: int(alone and torch.equal(tokens[:, at], PROMPTS.tokens[:, at])) for at in range(6)}
        expected = [
            [(start, cells - 1 - same[start]), (start, 1)] if start < 5 else [(start, cells)] for start in starts
        ]
        assert ran == [each for part in expected for each in part]


def test_given_and_sources_that_do_not_fit_are_refused_before_anything_runs(monkeypatch: pytest.MonkeyPatch) -> None:
    network = random_network("llama")
    padded, shorter = as_prompts([[1] * 6, [1] * 4, [1] * 6]), as_prompts([[1] * 6, [1] * 3, [1] * 6])
    cases: list[tuple[Prompts, Edit, str, str]] = [
        (PROMPTS, Replace(MANY), "z", "Replace: 7 source prompts for 3 prompts: expected as many, or one for all"),
        (PROMPTS, Replace(as_prompts([[1, 2]])), "z", "source prompts have 2 tokens, the prompts 6: expected equal"),
        (padded, Replace(shorter), "z", "Replace: prompt 1 has 4 tokens, its source 3: expected equal lengths, or pos"),
        (padded, Replace(PROMPTS), "pattern", "Replace: prompt 1 has 4 tokens, its source 6: expected equal lengths"),
        (PROMPTS, Resample(OTHERS.rows(slice(0, 1)), seed=0), "z", "1 prompt: expected at least 2"),
        (
            PROMPTS,
            Mean(as_prompts([[1, 2]])),
            "z",
            "Mean over prompts of 2 to 2 tokens, at position -4 of prompts of 6",
        ),
        (PROMPTS, Mean(as_prompts([[1] * 6, [1] * 3])), "z", "Mean over prompts of 3 to 6 tokens, at position -4"),
        (PROMPTS, Mean(MANY, pooled=True), "pattern", "Mean: patterns of several positions have no mean"),
        (PROMPTS, Given({0: GIVEN[0]}), "z", r"Given: no value for layer 1 of z: expected layers \[0, 1, 2\]"),
        (PROMPTS, Given(GIVEN), "k", r"shape \(3, 1, 4, 8\): expected \[3 or 1, 6 or 1, 2, 8\], prompts and"),
        (PROMPTS, Given(GIVEN), "resid_pre", r"shape \(3, 1, 4, 8\): expected \[3 or 1, 6 or 1, 32\]"),
        (PROMPTS, Given({i: x[:2] for i, x in GIVEN.items()}), "z", r"\(2, 1, 4, 8\): expected \[3 or 1"),
        (PROMPTS, Add(torch.ones(32)), "z", r"Add to z: vectors have shape \(32,\): expected \[8\]"),
        (PROMPTS, ProjectOut(VECTORS), "attn_out", r"ProjectOut from attn_out: .* \(2, 8\): expected \[k, 32\]"),
    ]
    for module in ("sources", "sweeps", "branching"):
        monkeypatch.setattr(f"interventions.{module}.final_hidden", pytest.fail)
    for prompts, edit, component, message in cases:
        options: dict[str, Any] = {"component": component, "over": ("layer",), "positions": (-1, -4)}
        with pytest.raises(ValueError, match=message):
            sweep(network, prompts, edit, token_logit(TOKENS), **options)


def test_a_function_of_another_shape_is_refused() -> None:
    with pytest.raises(ValueError, match=r"Apply: the function returned shape \(3, 12, 1\): expected \(3, 12, 8\)"):
        sweep(
            random_network("llama"),
            PROMPTS,
            Apply(lambda x: x[..., :1]),
            token_logit(TOKENS),
            component="z",
            over=("layer",),
            positions=(-1, -2, -3),
        )


def test_vectors_that_depend_on_each_other_are_projected_out_once() -> None:
    x = torch.randn(5, 8, generator=torch.Generator().manual_seed(1))
    twice = as_function(ProjectOut(torch.stack([VECTORS[0], -2 * VECTORS[0], VECTORS[1], torch.zeros(8)])))
    torch.testing.assert_close(twice(x), without_span(x), atol=1e-5, rtol=0)


def test_derangements_have_no_fixed_points_and_are_seeded() -> None:
    seen = {tuple(derangement(4, seed=seed).tolist()) for seed in range(200)}
    assert len(seen) == 9  # all derangements of four
    assert all(sorted(p) == [0, 1, 2, 3] and all(i != x for i, x in enumerate(p)) for p in seen)
    with pytest.raises(ValueError, match="1 prompt: expected at least 2"):
        inspect.unwrap(derangement)(1, seed=0)

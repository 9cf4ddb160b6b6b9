"""Prompts of unequal length, single prompts, batches and small budgets: the same numbers as one prompt at a time."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from interventions import sweeps
from interventions.branching import run_branches
from interventions.edits import Edit, Given, Mean, Replace, Resample
from interventions.hooks import HEADS
from interventions.metrics import kl_to_clean, log_probability, logit_difference
from interventions.prompts import Prompts, as_prompts
from interventions.sweeps import Axis, sweep

from .conftest import NETWORKS, random_network

LENGTHS = (7, 4, 6)
CORRECT, WRONG = torch.tensor([3, 5, 7]), torch.tensor([4, 9, 1])
METRIC = logit_difference(CORRECT, WRONG)


def lists(seed: int, lengths: tuple[int, ...] = LENGTHS) -> list[list[int]]:
    generator = torch.Generator().manual_seed(seed)
    return [torch.randint(1, 37, (n,), generator=generator).tolist() for n in lengths]


def right_padded(prompts: list[list[int]]) -> Prompts:
    longest = max(map(len, prompts))
    tokens = torch.tensor([prompt + [36] * (longest - len(prompt)) for prompt in prompts])
    mask = torch.tensor([[1] * len(prompt) + [0] * (longest - len(prompt)) for prompt in prompts])
    return as_prompts(tokens, mask)


def axes_of(component: str) -> tuple[Axis, ...]:
    return ("layer", "head", "position") if component in HEADS else ("layer", "position")


@pytest.mark.parametrize("name", NETWORKS)
def test_padded_prompts_equal_each_prompt_alone(name: str) -> None:
    """Positions count from the end, so that each prompt's own sweep is the end of the padded one."""
    network = random_network(name)
    ours, others = lists(0), lists(1)
    for component in ("z", "k", "pattern", "attn_out", "resid_post"):
        options: dict[str, Any] = {"component": component, "over": ("layer", "position"), "positions": None}
        padded = sweep(network, as_prompts(ours), Replace(as_prompts(others)), METRIC, **options)
        for at, length in enumerate(LENGTHS):
            metric = logit_difference(CORRECT[at : at + 1], WRONG[at : at + 1])
            alone = sweep(network, as_prompts([ours[at]]), Replace(as_prompts([others[at]])), metric, **options)
            ends = padded.values[at][..., -length:]
            torch.testing.assert_close(ends, alone.values[0], atol=1e-4, rtol=0, msg=component)
            torch.testing.assert_close(padded.clean[at], alone.clean[0], atol=1e-4, rtol=0)
            assert padded.effects[at][..., :-length].abs().max() < 1e-4 if length < 7 else True


@pytest.mark.parametrize("name", NETWORKS)
def test_padded_branches_equal_padded_hooks(name: str) -> None:
    network = random_network(name)
    for component in ("z", "k", "pattern", "resid_post"):
        for positions in ((-1,), None):
            options: dict[str, Any] = {
                "component": component,
                "over": axes_of(component)[:-1],
                "positions": positions,
            }
            replace = Replace(as_prompts(lists(1)))
            fast = sweep(network, as_prompts(lists(0)), replace, METRIC, **options)
            slow = sweep(network, as_prompts(lists(0)), replace, METRIC, **options, method="oracle")
            torch.testing.assert_close(fast.values, slow.values, atol=1e-4, rtol=0, msg=component)


def test_padding_on_the_right_is_the_same_as_lists() -> None:
    network = random_network("gpt2")
    ours, others = lists(0), lists(1)
    options: dict[str, Any] = {"component": "z", "over": ("layer", "head")}
    left = sweep(network, as_prompts(ours), Replace(as_prompts(others)), METRIC, **options)
    right = sweep(network, right_padded(ours), Replace(right_padded(others)), METRIC, **options)
    assert torch.equal(left.values, right.values)


@pytest.mark.parametrize("metric", [METRIC, log_probability(CORRECT), kl_to_clean()], ids=lambda metric: metric.name)
@pytest.mark.parametrize("edit", ["replace", "one for all", "resample", "mean", "given"])
def test_batches_give_what_all_prompts_at_once_give(metric: Any, edit: str) -> None:
    network = random_network("llama")
    edits: dict[str, Edit] = {
        "replace": Replace(as_prompts(lists(1))),
        "one for all": Replace(as_prompts(lists(1)[:1])),
        "resample": Resample(as_prompts(lists(1)), seed=0),
        "given": Given(
            {layer: torch.randn(3, 7, 4, 8, generator=torch.Generator().manual_seed(layer)) for layer in range(3)}
        ),
        "mean": Mean(as_prompts(lists(1, (7, 6, 5, 7)))),
    }
    options: dict[str, Any] = {"component": "z", "over": ("layer", "head"), "positions": (-1, -2)}
    prompts = as_prompts(lists(0))
    whole = sweep(network, prompts, edits[edit], metric, **options)
    for size in (1, 2):
        for method in ("branches", "oracle"):
            parts = sweep(network, prompts, edits[edit], metric, **options, batch_size=size, method=method)
            torch.testing.assert_close(parts.values, whole.values, atol=1e-4, rtol=0)
            torch.testing.assert_close(parts.clean, whole.clean, atol=1e-4, rtol=0)
    assert whole.effects.abs().max() > 0.1


@pytest.mark.parametrize("name", ["gpt2", "mistral"])
def test_a_small_budget_runs_single_cells(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    network = random_network(name)
    sizes: list[int] = []

    def counted(shared: Any, start: int, entering: list[int], edits: Any) -> Any:
        sizes.append(len(entering))
        return run_branches(shared, start, entering, edits)

    monkeypatch.setattr(sweeps, "run_branches", counted)
    prompts, replace = as_prompts(lists(0)), Replace(as_prompts(lists(1)))
    options: dict[str, Any] = {"component": "z", "over": ("layer", "head", "position"), "positions": None}
    steps: list[tuple[int, int]] = []
    whole = sweep(network, prompts, replace, METRIC, **options)
    # Where branches have several rows, those of the last layer go apart from those that need only its last row.
    assert sizes == [8, 4] * 6 + [12]
    sizes.clear()
    single = sweep(
        network, prompts, replace, METRIC, **options, budget=1, progress=lambda done, of: steps.append((done, of))
    )
    assert sizes == [1] * 84
    assert steps == [(done, 84) for done in range(1, 85)]
    torch.testing.assert_close(single.values, whole.values, atol=1e-4, rtol=0)

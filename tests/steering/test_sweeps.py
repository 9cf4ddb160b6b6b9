"""Every cell against completions by plain hooks, the whole text run again for each token."""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Sequence

import pytest
import torch

from steering.errors import SteeringError
from steering.grids import EVERYWHERE
from steering.outcomes import Outcome, Writing
from steering.positions import PromptOnly
from steering.sweeps import SteeringSweep, steering_sweep

from .conftest import (
    WordTokenizer,
    adding,
    hooks_of,
    plain_greedy,
    random_model,
    random_vector,
    same_state,
    state_of,
    texts,
    tokens_of,
)
from .measure_models import plain_losses

PROMPTS = texts((2, 4, 3), seed=2)
GREEDY = Writing(max_new_tokens=4)
COEFFICIENTS = (-3.0, 0.0, 3.0)


def up_to(end: int) -> Callable[[int], Sequence[int]]:
    return lambda n: range(min(n, end))


def n_old(text: str) -> float:
    return float(sum(len(word) == 3 for word in text.split()))


@pytest.mark.parametrize("prompt_only", [False, True])
def test_cells_are_what_plain_hooks_give(prompt_only: bool) -> None:
    model = random_model("llama")
    state, hooks = state_of(model.network), hooks_of(model.network)
    vector = random_vector(model.network, (0, 2))
    told: list[tuple[int, int]] = []
    found = steering_sweep(
        model,
        vector,
        PROMPTS,
        n_old,
        coefficients=COEFFICIENTS,
        writing=GREEDY,
        wellformed=lambda text: 2 * n_old(text),
        progress=lambda done, total: told.append((done, total)),
        positions=PromptOnly() if prompt_only else EVERYWHERE,
    )
    assert (found.axes, found.layers, found.coefficients) == (("layer", "coefficient"), (0, 2), COEFFICIENTS)
    assert told == [(done, 7) for done in range(1, 8)]
    seen = set()
    for layer in found.layers:
        for at, coefficient in enumerate(COEFFICIENTS):
            values, losses, tokens = [], 0.0, 0
            for prompt in PROMPTS:
                row = tokens_of(prompt)
                end = len(row) - 1 if prompt_only else 99
                write = adding(coefficient * vector.directions[layer], up_to(end))
                new = plain_greedy(model.network, row, 4, {("resid_post", layer): write})
                new = new[: new.index(0)] if 0 in new else new
                values.append(n_old(WordTokenizer().decode(new)))
                losses, tokens = losses + sum(plain_losses(model.network, row, new)), tokens + len(new)
                seen.add(tuple(new))
            place = found.layers.index(layer), at
            assert float(found.mean()[place]) == pytest.approx(sum(values) / 3)
            assert float(found.mean("perplexity")[place]) == pytest.approx(math.exp(losses / tokens), rel=1e-3)
            assert float(found.mean("wellformed")[place]) == pytest.approx(2 * sum(values) / 3)
            low, high = found.ends(seed=1)
            alone = found.at(layer, coefficient).interval("success", seed=1)
            assert (float(low[place]), float(high[place])) == pytest.approx((alone.low, alone.high))
    assert len(seen) > 6, "cells must differ for this to show anything"
    assert found.at(2, 0.0).texts == found.plain.texts
    assert same_state(model.network, state)
    assert hooks_of(model.network) == hooks


def outcome(success: float, perplexity: float) -> Outcome:
    """Of 2 prompts with a token each."""
    values = torch.full((2, 1, 1), success, dtype=torch.float64)
    return Outcome(("", ""), values, torch.full_like(values, math.log(perplexity)), torch.ones_like(values))


def test_the_best_cell_is_the_most_successful_of_those_that_are_fluent() -> None:
    cells = ((outcome(0.2, 4.0), outcome(0.6, 7.0)), (outcome(0.5, 7.9), outcome(0.9, 8.1)))
    sweep = SteeringSweep("v", (1, 3), (1.0, 2.0), outcome(0.1, 4.0), cells)
    assert sweep.best() == (1, 2.0)
    assert sweep.best(perplexity_ratio=3.0) == (3, 2.0)
    assert sweep.best(largest=False) == (1, 1.0)
    assert sweep.mean("perplexity").flatten().tolist() == pytest.approx([4.0, 7.0, 7.9, 8.1])
    with pytest.raises(SteeringError, match=re.escape("v: perplexity is 4 at least, more than 0.5 times that without")):
        sweep.best(perplexity_ratio=0.5)
    with pytest.raises(SteeringError, match=r"layer 2, coefficient 1: expected one of layers \[1, 3\]"):
        sweep.at(2, 1.0)


@pytest.mark.parametrize(
    ("layers", "coefficients", "prompts", "message"),
    [
        ([0, 0], [1.0], PROMPTS, r"layers \[0, 0\]: expected at least one, each once"),
        ([], [1.0], PROMPTS, r"layers \[\]: expected at least one"),
        ([0], [], PROMPTS, r"coefficients \[\]: expected at least one"),
        ([0], [1.0, 1.0], PROMPTS, r"coefficients \[1.0, 1.0\]: expected at least one, each once"),
        ([0], [1.0, math.nan], PROMPTS, "coefficient nan: expected a finite number"),
        ([1], [1.0], PROMPTS, r"has no layer 1: expected some of \[0, 2\]"),
        ([0], [1.0], [], "no prompts: expected at least one to complete"),
    ],
)
def test_what_means_nothing_is_refused_before_anything_is_written(
    layers: list[int], coefficients: list[float], prompts: list[str], message: str
) -> None:
    model = random_model("gpt2")
    vector = random_vector(model.network, (0, 2))

    def never(text: str) -> float:
        raise AssertionError("written all the same")

    with pytest.raises(SteeringError, match=message):
        steering_sweep(model, vector, prompts, never, layers=layers, coefficients=coefficients, writing=GREEDY)

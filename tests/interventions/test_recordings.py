"""Recordings: the same numbers as passes of their own, and no pass twice; heads alone; cells that change nothing."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest
import torch
from torch import nn

from interventions import FinalStream, HeadInputs, Recordings, Replace, path_patch, sweep, token_logit
from interventions.branching import run_shared
from interventions.hooks import Modules
from interventions.network import inference
from interventions.prompts import Prompts, as_prompts

from .conftest import NETWORKS, random_network

GENERATOR = torch.Generator().manual_seed(0)
PROMPTS = as_prompts(torch.randint(1, 37, (4, 6), generator=GENERATOR))
OTHERS = as_prompts(torch.randint(1, 37, (4, 6), generator=GENERATOR))
METRIC = token_logit(torch.tensor([3, 5, 7, 9]))
SWEEPS = [
    ("resid_pre", ("layer", "position"), None),
    ("z", ("layer", "head"), (-1,)),
    ("pattern", ("layer",), (-1, -3)),
]


@contextmanager
def counted(network: nn.Module) -> Iterator[list[int]]:
    """Inside, the rows of every call of the first layer."""
    rows: list[int] = []
    layer = Modules(network).layers[0]
    handle = layer.register_forward_hook(lambda module, args, output: rows.append(args[0][..., 0].numel()))
    try:
        yield rows
    finally:
        handle.remove()


@pytest.mark.parametrize("name", NETWORKS)
def test_recorded_sweeps_are_sweeps_and_prompts_run_once(name: str) -> None:
    """Two prompts are recorded before, in another order; oracles are ordinary passes without recordings."""
    network = random_network(name)
    recordings = Recordings(network)
    with inference(network):
        recordings.whole(Prompts(PROMPTS.tokens[[2, 0]]))
    for component, over, positions in SWEEPS:
        options: dict[str, Any] = {"component": component, "over": over, "positions": positions}
        found = sweep(network, PROMPTS, Replace(OTHERS), METRIC, recordings=recordings, **options)
        expected = sweep(network, PROMPTS, Replace(OTHERS), METRIC, method="oracle", **options)
        torch.testing.assert_close(found.values, expected.values, atol=1e-4, rtol=0)
        torch.testing.assert_close(found.clean, expected.clean, atol=1e-4, rtol=0)
    with inference(network), counted(network) as rows:
        again = recordings.whole(Prompts(OTHERS.tokens[[3, 1]]), start=2)
        assert not rows
        plain = run_shared(Modules(network), Prompts(OTHERS.tokens[[3, 1]]), 2)
        assert sum(rows) == 12
    for of, theirs in zip(again.shared.calls, plain.calls, strict=True):
        for part in ("query", "key", "value"):
            torch.testing.assert_close(getattr(of, part), getattr(theirs, part), atol=1e-5, rtol=0)
    torch.testing.assert_close(again.shared.last, plain.last, atol=1e-5, rtol=0)


@pytest.mark.parametrize("receivers", [FinalStream(), HeadInputs([(1, 0), (1, 1), (2, 3)], "q")])
def test_recorded_path_patches_are_path_patches(receivers: Any) -> None:
    network = random_network("gpt2")
    recordings = Recordings(network)
    for positions in (None, (-2,)):
        options: dict[str, Any] = {"receivers": receivers, "positions": positions}
        found = path_patch(network, PROMPTS, OTHERS, METRIC, recordings=recordings, **options)
        expected = path_patch(network, PROMPTS, OTHERS, METRIC, method="oracle", **options)
        torch.testing.assert_close(found.values, expected.values, atol=1e-4, rtol=0)


def test_padded_prompts_are_run_every_time_and_other_networks_are_refused() -> None:
    network = random_network("gpt2")
    recordings = Recordings(network)
    padded = as_prompts([[1, 2, 3], [4, 5, 6, 7]])
    with inference(network), counted(network) as rows:
        for _ in range(2):
            recordings.whole(padded)
    assert rows == [8, 8]
    with pytest.raises(ValueError, match="recordings are of another network: expected those of the one that is run"):
        sweep(
            random_network("llama"),
            PROMPTS,
            Replace(OTHERS),
            METRIC,
            component="z",
            over=("layer",),
            recordings=recordings,
        )


@pytest.mark.parametrize("name", NETWORKS)
def test_heads_alone_are_asked_what_they_are_asked_among_all(name: str) -> None:
    network = random_network(name)
    modules, heads = Modules(network), [3, 1]
    with inference(network):
        shared = run_shared(modules, PROMPTS)
        rows, positions = shared.stream[1][:1, 2:5], torch.arange(2, 5)
        every = shared.replay.attention_call(1, rows, positions)
        some = shared.replay.attention_call(1, rows, positions, heads)
        after = shared.replay.attention_call(1, rows, positions)
    group = modules.n_heads // modules.n_kv_heads
    torch.testing.assert_close(some.query, every.query[:, heads], atol=1e-5, rtol=1e-5)
    for part in ("key", "value"):
        expected = getattr(every, part).repeat_interleave(group, dim=1)[:, heads]
        torch.testing.assert_close(getattr(some, part), expected, atol=1e-5, rtol=1e-5)
    assert torch.equal(after.query, every.query)


def test_cells_at_which_the_stream_is_the_same_are_not_run() -> None:
    """The second token is that of the source: before the first layer nothing changes there, behind it much does."""
    network = random_network("gpt2")
    others = Prompts(OTHERS.tokens.clone())
    others.tokens[:, 1] = PROMPTS.tokens[:, 1]
    options: dict[str, Any] = {"component": "resid_pre", "over": ("layer",), "positions": (-5,)}
    with counted(network) as rows:
        found = sweep(network, PROMPTS, Replace(others), METRIC, layers=(0, 1), **options)
    assert rows == [24, 24], "two ordinary passes, and no branch"
    assert torch.equal(found.values[:, 0], found.clean)
    assert (found.values[:, 1] - found.clean).abs().max() > 1e-2

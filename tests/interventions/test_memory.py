"""Budgets: what a sweep allocates, measured, against what it was allowed and against a plain forward pass."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch.profiler import ProfilerActivity, profile

from interventions.edits import Zero
from interventions.hooks import Modules
from interventions.memory import branch_bytes, default_budget, in_chunks
from interventions.metrics import log_probability, logit_difference
from interventions.prompts import Prompts
from interventions.sweeps import sweep

LENGTH, BATCH, VOCABULARY = 48, 2, 30_000


def peak_bytes(call: Callable[[], object]) -> int:
    """The most that is allocated at once during a call beyond what was there before, counted by torch's profiler."""
    with profile(activities=[ProfilerActivity.CPU], profile_memory=True) as seen:
        call()
    events: Any = [event for event in seen.profiler.kineto_results.events() if event.name() == "[memory]"]
    now = peak = 0
    for event in sorted(events, key=lambda event: event.start_ns()):
        now += event.nbytes()
        peak = max(peak, now)
    return peak


@pytest.fixture(scope="module", params=["gpt2", "llama", "gpt2 in bfloat16"])
def network(request: pytest.FixtureRequest) -> Any:
    from transformers import AutoConfig, AutoModelForCausalLM

    sizes: dict[str, dict[str, int]] = {
        "gpt2": {"n_layer": 4, "n_head": 4, "n_embd": 128},
        "llama": {
            "num_hidden_layers": 4,
            "num_attention_heads": 4,
            "num_key_value_heads": 2,
            "hidden_size": 128,
            "intermediate_size": 352,
        },
    }
    kind, _, other = request.param.partition(" in ")
    config = AutoConfig.for_model(kind, vocab_size=VOCABULARY, **sizes[kind])
    torch.manual_seed(0)
    return AutoModelForCausalLM.from_config(config).to(torch.bfloat16 if other else torch.float32).eval()


@pytest.mark.parametrize(
    ("component", "over"),
    [("z", ("layer", "head")), ("resid_pre", ("layer", "position")), ("z", ("layer", "head", "position"))],
)
@pytest.mark.parametrize("normalised", [False, True])
def test_a_sweep_takes_no_more_than_a_forward_pass_and_a_fifth(
    network: Any, component: str, over: Any, normalised: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With the default budget, whose least is set aside here: these networks are small."""
    monkeypatch.setattr("interventions.memory.LEAST", 0)
    generator = torch.Generator().manual_seed(0)
    tokens = torch.randint(VOCABULARY, (BATCH, LENGTH), generator=generator)
    correct, wrong = torch.randint(VOCABULARY, (2, BATCH), generator=generator)
    metric = log_probability(correct) if normalised else logit_difference(correct, wrong)
    positions = None if "position" in over else (-1,)

    def run() -> object:
        return sweep(network, Prompts(tokens), Zero(), metric, component=component, over=over, positions=positions)

    with torch.no_grad():
        network(tokens, use_cache=False)
        forward = peak_bytes(lambda: network(tokens, use_cache=False))
    assert forward > network.lm_head.weight.element_size() * BATCH * LENGTH * VOCABULARY
    run()
    assert peak_bytes(run) < 1.2 * forward


@pytest.mark.parametrize("width", [16, 40])
def test_the_estimate_of_a_branch_is_near_what_branches_take(network: Any, width: int) -> None:
    """Two budgets differ in what they take by about as much as they say."""
    tokens = torch.randint(VOCABULARY, (BATCH, LENGTH), generator=torch.Generator().manual_seed(0))
    metric = logit_difference(tokens[:, 0], tokens[:, 1])
    each = branch_bytes(Modules(network), BATCH, width, LENGTH)

    def taken(branches: int) -> int:
        def run() -> object:
            return sweep(
                network,
                Prompts(tokens),
                Zero(),
                metric,
                component="z",
                over=("head", "layer"),
                layers=(0, 1, 2),
                positions=(-width,),
                budget=branches * each,
            )

        run()
        return peak_bytes(run)

    assert 0.6 < (taken(12) - taken(4)) / (8 * each) < 1.2


def test_groups_are_even_and_hold_at_least_one_cell(network: Any) -> None:
    modules = Modules(network)
    each = branch_bytes(modules, 2, 5, 8)
    sizes = [len(group) for group in in_chunks(modules, list(range(10)), 2, 5, 8, 4 * each)]
    assert sizes == [4, 4, 2]
    assert [len(group) for group in in_chunks(modules, list(range(9)), 2, 5, 8, 8 * each)] == [5, 4]
    assert [len(group) for group in in_chunks(modules, list(range(3)), 2, 5, 8, 1)] == [1, 1, 1]


def test_the_default_is_half_of_the_logits_of_the_prompts(network: Any) -> None:
    modules = Modules(network)
    size = network.lm_head.weight.element_size()
    assert default_budget(modules, Prompts(torch.zeros(4, 512, dtype=torch.long))) == 4 * 512 * VOCABULARY * size // 2
    assert default_budget(modules, Prompts(torch.zeros(1, 8, dtype=torch.long))) == 16 * 2**20

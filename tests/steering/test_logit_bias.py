"""The bias against plain passes of single texts, and the network as it was afterwards."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import pytest
import torch

from interventions.exactness import random_network as exactness_network
from steering.errors import SteeringError
from steering.generation import Completions, generate
from steering.logit_bias import logit_bias, mean_effect
from steering.positions import AfterPrompt, Everywhere, First, Positions, PromptOnly
from steering.steering import Steer

from .conftest import (
    D_VOCAB,
    NETWORKS,
    adding,
    hooks_of,
    plain_run,
    random_model,
    random_vector,
    same_state,
    state_of,
    texts,
)

PROMPTS = texts((2, 4, 1), seed=2)
BIAS = torch.randn(D_VOCAB, generator=torch.Generator().manual_seed(1))
Places = Callable[[int], Callable[[int], Sequence[int]]]
WHERE: dict[str, tuple[Positions, Places]] = {
    "everywhere": (Everywhere(), lambda prompt: range),
    "after the prompt": (AfterPrompt(), lambda prompt: lambda n: range(prompt - 1, n)),
    "prompt only": (PromptOnly(), lambda prompt: lambda n: range(prompt - 1)),
    "first": (First(2), lambda prompt: lambda n: range(2)),
}


@pytest.mark.parametrize("name", [*NETWORKS, "opt", "gptj"])
def test_inside_the_bias_is_added_and_afterwards_nothing_is_left(name: str) -> None:
    network = exactness_network(name, seed=1)
    state, hooks, head = state_of(network), hooks_of(network), network.get_output_embeddings()  # type: ignore[operator]
    tokens = torch.tensor([[3, 1, 4]])
    with torch.no_grad():
        before = network(tokens).logits
        with logit_bias(network, BIAS):
            inside = network(tokens).logits
        torch.testing.assert_close(inside, before + BIAS)
        with pytest.raises(ZeroDivisionError), logit_bias(network, BIAS):
            raise ZeroDivisionError
        assert torch.equal(network(tokens).logits, before)
    assert network.get_output_embeddings() is head  # type: ignore[operator]
    assert same_state(network, state)
    assert hooks_of(network) == hooks


def test_a_bias_within_a_bias_adds_up() -> None:
    network = exactness_network("gpt2", seed=1)
    tokens = torch.tensor([[3, 1, 4]])
    with torch.no_grad(), logit_bias(network, BIAS), logit_bias(network, BIAS):
        inside = network(tokens).logits
    with torch.no_grad():
        torch.testing.assert_close(inside, network(tokens).logits + 2 * BIAS)


@pytest.mark.parametrize("where", WHERE)
@pytest.mark.parametrize("name", NETWORKS)
def test_the_mean_effect_is_the_mean_change_of_logits(name: str, where: str) -> None:
    model = random_model(name)
    completions = generate(model, PROMPTS, max_new_tokens=5, temperature=1.0, seed=3)
    rows = [*completions.new_tokens[:2], completions.new_tokens[2][:1]]  # of unequal length
    completions = Completions(completions.prompts, ("",) * 3, completions.prompt_tokens, tuple(rows), (False,) * 3)
    vector = random_vector(model.network, (1,))
    positions, places = WHERE[where]
    changes = []
    for prompt, new in zip(completions.prompt_tokens, rows, strict=True):
        write = adding(2.0 * vector.directions[1], places(len(prompt)))
        both = [plain_run(model.network, [*prompt, *new], writes)[0] for writes in ({("resid_post", 1): write}, None)]
        changes.append((both[0] - both[1])[len(prompt) - 1 : -1])
    expected = torch.cat(changes).mean(dim=0)
    assert expected.abs().max() > 0.1, "an effect of nothing shows nothing"
    for batch_size in (1, 16):
        found = mean_effect(model, completions, [Steer(vector, 2.0, positions=positions)], batch_size=batch_size)
        torch.testing.assert_close(found, expected, atol=2e-4, rtol=1e-4)


def test_what_does_not_fit_is_refused() -> None:
    model = random_model("gpt2")
    with (
        pytest.raises(SteeringError, match=r"bias of shape \(5,\): expected 37 finite numbers"),
        logit_bias(model.network, BIAS[:5]),
    ):
        pass
    with pytest.raises(SteeringError, match="finite numbers"), logit_bias(model.network, BIAS / 0.0):
        pass
    nothing = Completions(("a",), ("",), ((0, 1),), ((),), (True,))
    with pytest.raises(SteeringError, match="no completion has a token"):
        mean_effect(model, nothing, [])

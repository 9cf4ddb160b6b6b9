"""Conditions that are written together against each of them written alone."""

from __future__ import annotations

import pytest
import torch

from steering.errors import SteeringError
from steering.generation import Completions
from steering.outcomes import Writing, written
from steering.positions import AfterPrompt, Everywhere, PromptOnly
from steering.side_by_side import Condition, written_together
from steering.steering import Steer

from .conftest import hooks_of, random_model, random_vector, texts, tokens_of

PROMPTS, OTHERS = texts((2, 4, 3), seed=2), texts((5, 3), seed=3)


@pytest.mark.parametrize("batch_size", [3, 64])
@pytest.mark.parametrize("name", ["gpt2", "llama"])
def test_each_condition_writes_what_it_writes_alone(name: str, batch_size: int) -> None:
    model = random_model(name)
    hooks = hooks_of(model.network)
    one, two = (random_vector(model.network, (1,), seed=seed) for seed in (0, 1))
    rows = random_vector(model.network, (0,), component="resid_pre", positions=2, seed=2)
    lengths = torch.tensor([len(tokens_of(prompt)) for prompt in PROMPTS])
    conditions = [
        Condition(PROMPTS),
        Condition(PROMPTS, [Steer(one, 3.0, positions=AfterPrompt(lengths))]),
        Condition(OTHERS, [Steer(two, -3.0, positions=Everywhere()), Steer(rows, 3.0, positions=PromptOnly())]),
        Condition(OTHERS, prefix="the sea , "),
    ]
    writing = Writing(max_new_tokens=5, temperature=1.0, samples=2, seed=4, batch_size=batch_size)
    alone = [written(model, each.prompts, writing, steers=each.steers, prefix=each.prefix) for each in conditions]
    assert written_together(model, conditions, writing) == alone
    assert all(
        isinstance(each, Completions) and len(each) == 2 * n for each, n in zip(alone, (3, 3, 2, 2), strict=True)
    )
    assert alone[0].new_tokens != alone[1].new_tokens, "a vector without effect shows nothing"
    assert hooks_of(model.network) == hooks


def test_conditions_without_prompts_are_refused() -> None:
    for conditions in ([], [Condition(PROMPTS), Condition([])]):
        with pytest.raises(SteeringError, match="conditions: expected at least one, and prompts in each"):
            written_together(random_model("gpt2"), conditions, Writing())

"""What is measured of completions, against plain generation and plain passes."""

from __future__ import annotations

import math

import pytest
import torch

from steering.errors import SteeringError
from steering.generation import Completions, generate
from steering.outcomes import Outcome, Writing, contains, measured, together, written
from steering.positions import AfterPrompt
from steering.steering import Steer

from .conftest import random_model, random_vector, texts, tokens_of
from .measure_models import plain_losses

PROMPTS = texts((2, 4, 3), seed=2)
SAMPLED = Writing(max_new_tokens=5, temperature=1.0, samples=2, seed=4)


def n_words(text: str) -> float:
    return float(len(text.split()))


def n_short(text: str) -> float:
    return float(sum(len(word) < 3 for word in text.split()))


def test_each_prompt_is_completed_as_often_as_asked_and_measured_behind_itself() -> None:
    model = random_model("gpt2")
    completions = written(model, PROMPTS, SAMPLED)
    assert completions.prompts == tuple(prompt for prompt in PROMPTS for _ in range(2))
    assert completions.new_tokens[0] != completions.new_tokens[1], "samples of a prompt differ"
    found = measured(model, PROMPTS, completions, n_words, wellformed=n_short, batch_size=2)
    assert found.values.flatten().tolist() == [n_words(text) for text in completions.texts]
    assert found.wellformed is not None
    assert found.wellformed.flatten().tolist() == [n_short(text) for text in completions.texts]
    for row, new in enumerate(completions.new_tokens):
        expected = plain_losses(model.network, tokens_of(PROMPTS[row // 2]), new)
        assert float(found.losses[row // 2, row % 2, 0]) == pytest.approx(sum(expected), abs=1e-4)
        assert int(found.tokens[row // 2, row % 2, 0]) == len(new)
    perplexity = found.interval("perplexity")
    assert perplexity.estimate == pytest.approx(math.exp(float(found.losses.sum() / found.tokens.sum())))
    assert perplexity.n == 3
    assert found.interval("success").estimate == pytest.approx(float(found.values.mean()))
    assert found.interval("wellformed").estimate == pytest.approx(float(found.wellformed.mean()))


def test_steers_follow_their_prompts_to_every_sample() -> None:
    model = random_model("gpt2")
    lengths = torch.tensor([len(tokens_of(prompt)) for prompt in PROMPTS])
    vector = random_vector(model.network, (1,))
    by_row = Steer(vector, 3.0, positions=AfterPrompt(lengths))
    found = written(model, PROMPTS, SAMPLED, steers=[by_row])
    assert found == written(model, PROMPTS, SAMPLED, steers=[Steer(vector, 3.0, positions=AfterPrompt())])
    assert found.new_tokens != written(model, PROMPTS, SAMPLED).new_tokens


def test_perplexity_is_measured_behind_the_prompts_that_are_given() -> None:
    model = random_model("gpt2")
    greedy = Writing(max_new_tokens=4)
    completions = written(model, PROMPTS, greedy, prefix="the sea , ")
    assert completions.prompts[0] == f"the sea , {PROMPTS[0]}"
    found = measured(model, PROMPTS, completions, n_words)
    expected = plain_losses(model.network, tokens_of(PROMPTS[0]), completions.new_tokens[0])
    assert float(found.losses[0]) == pytest.approx(sum(expected), abs=1e-4)
    without = generate(model, [f"the sea , {prompt}" for prompt in PROMPTS], max_new_tokens=4)
    assert completions.new_tokens == without.new_tokens


def test_units_are_prompts_or_the_samples_of_a_single_one() -> None:
    values = torch.tensor([[[1.0], [0.0]], [[1.0], [torch.nan]], [[0.0], [0.0]]], dtype=torch.float64)
    outcome = Outcome(("",) * 6, values, values.nan_to_num(), torch.ones_like(values))
    assert outcome.quotient("success").numerator.tolist() == [1, 1, 0]
    assert outcome.quotient("success").denominator.tolist() == [2, 1, 2]
    assert outcome.interval("success").estimate == pytest.approx(2 / 5)
    single = Outcome(("",) * 2, values[:1], values[:1], torch.ones_like(values[:1]))
    assert single.quotient("success").numerator.tolist() == [1, 0]
    assert single.interval("success").n == 2
    with pytest.raises(SteeringError, match="no well-formedness was measured"):
        outcome.interval("wellformed")


def test_draws_stand_side_by_side() -> None:
    parts = []
    for draw in range(2):
        numbers = torch.tensor([[[10.0 * draw], [10.0 * draw + 1]]], dtype=torch.float64)
        parts.append(Outcome((f"a{draw}", f"b{draw}"), numbers, numbers, torch.ones_like(numbers)))
    found = together(parts)
    assert found.values.tolist() == [[[0, 10], [1, 11]]]
    assert found.texts == ("a0", "a1", "b0", "b1")
    assert found.quotient("success").numerator.tolist() == [10, 12]
    with pytest.raises(SteeringError, match="no outcomes"):
        together([])


@pytest.mark.parametrize(
    ("text", "expected"),
    [("the Sea, and", 1), ("overseas", 0), ("seaside", 0), ("a star-ship sank", 1), ("", 0), ("sea", 1), ("stars", 0)],
)
def test_words_are_found_whole_and_in_either_case(text: str, expected: float) -> None:
    assert contains([" sea", "star-ship ", ""])(text) == expected


def test_what_means_nothing_is_refused() -> None:
    model = random_model("gpt2")
    completions = written(model, PROMPTS, Writing(max_new_tokens=2))
    with pytest.raises(SteeringError, match=r"metric is infinite for .*: expected a finite number, or NaN"):
        measured(model, PROMPTS, completions, lambda text: math.inf)
    with pytest.raises(SteeringError, match="3 completions of 2 prompts: expected as many for each"):
        measured(model, PROMPTS[:2], completions, n_words)
    with pytest.raises(SteeringError, match="0 completions of 1 prompts"):
        measured(model, PROMPTS[:1], Completions((), (), (), (), ()), n_words)
    with pytest.raises(SteeringError, match="samples=2, temperature=0: expected 1 greedy completion"):
        Writing(samples=2)
    with pytest.raises(SteeringError, match="samples=0"):
        Writing(samples=0)
    with pytest.raises(SteeringError, match="no words: expected at least one"):
        contains(["", " "])

"""Answers under several conditions against answers under each alone, and what is run for them."""

from __future__ import annotations

from collections.abc import Sequence

import pytest
import torch

from interventions.hooks import Modules
from steering.choices import answers, answers_under
from steering.positions import AfterPrompt, Everywhere, PromptOnly
from steering.questions import Question, encode_questions
from steering.steering import Steer

from .conftest import NETWORKS, hooks_of, random_model, random_vector, texts

QUESTIONS = [Question(text, (" red", " blue"), 0) for text in texts((6, 9, 4, 9), seed=5)]
LENGTHS = torch.tensor([6, 8, 4, 9])  # with the BOS: two, three, two and two tokens are acted on


def run(name: str, conditions: Sequence[Sequence[Steer]]) -> list[int]:
    """Compares, and gives the columns of each call of the first layer."""
    model, columns = random_model(name), list[int]()
    questions = encode_questions(model, QUESTIONS)
    expected = [answers(model, QUESTIONS, steers=steers) for steers in conditions]
    hooks = hooks_of(model.network)
    handle = (
        Modules(model.network)
        .layers[0]
        .register_forward_hook(lambda module, args, output: columns.append(args[0].shape[1]))
    )
    found = answers_under(model, questions, conditions)
    handle.remove()
    assert hooks_of(model.network) == hooks
    for one, other in zip(found, expected, strict=True):
        assert one.questions == tuple(QUESTIONS)
        torch.testing.assert_close(one.p, other.p, atol=1e-5, rtol=0)
        torch.testing.assert_close(one.mass, other.mass, atol=1e-5, rtol=0)
    spread = torch.stack([each.p for each in found]).std(dim=0)
    assert float(spread.min()) > 1e-3, "vectors without effect show nothing"
    return columns


@pytest.mark.parametrize("name", NETWORKS)
def test_what_no_vector_touches_is_run_once(name: str) -> None:
    network = random_model(name).network
    one, two = (random_vector(network, (layer,), seed=layer) for layer in (0, 1))
    where = AfterPrompt(LENGTHS)
    columns = run(name, [[], [Steer(one, 5.0, positions=where)], [Steer(two, -5.0, positions=where)]])
    assert columns == [7, 3, 3, 3]


@pytest.mark.parametrize("everywhere", [True, False])
def test_a_vector_that_acts_from_the_first_token_on_is_run_whole(everywhere: bool) -> None:
    vector = random_vector(random_model("gpt2").network, (0,), positions=None if everywhere else 2)
    where = Everywhere() if everywhere else PromptOnly()
    assert run("gpt2", [[Steer(vector, c, positions=where)] for c in (5.0, -5.0)]) == [10, 10]

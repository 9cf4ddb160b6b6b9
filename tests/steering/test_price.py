"""What the model knows, against one plain pass a prompt."""

from __future__ import annotations

import pytest
import torch

from steering.errors import SteeringError
from steering.price import Knowledge, NextToken, Price, knowledge, price
from steering.steering import Steer

from .conftest import WORDS, adding, plain_run, random_model, random_vector, texts, tokens_of


def test_right_is_the_likeliest_token_with_and_without_the_vector() -> None:
    model = random_model("gpt_neox")
    vector = random_vector(model.network, (1,))
    write = {("resid_post", 1): adding(2.0 * vector.directions[1], range)}
    prompts = texts((3, 5, 2, 4, 6, 2), seed=4)
    plain = [plain_run(model.network, tokens_of(prompt))[0][-1] for prompt in prompts]
    steered = [plain_run(model.network, tokens_of(prompt), write)[0][-1] for prompt in prompts]
    best = [WORDS[int(logits.argmax())] for logits in plain]
    words = ["war", *best[1:]]
    asked = [NextToken(prompt, f" {word} of") for prompt, word in zip(prompts, words, strict=True)]
    found = price(model, asked, steers=[Steer(vector, 2.0)], batch_size=4)
    answers = [WORDS.index(word) for word in words]
    for side, logits in ((found.plain, plain), (found.steered, steered)):
        right = [int(row.argmax()) == answer for row, answer in zip(logits, answers, strict=True)]
        log_p = [float(row.log_softmax(dim=-1)[answer]) for row, answer in zip(logits, answers, strict=True)]
        assert side.right.tolist() == right
        assert side.log_p.tolist() == pytest.approx(log_p, abs=5e-5)
    assert found.plain.right[1:].all()
    assert not found.steered.right.all(), "the vector must cost something for this to show anything"
    assert found.plain.accuracy().estimate == pytest.approx(float(found.plain.right.float().mean()))


def test_the_price_is_paired_over_prompts() -> None:
    plain = Knowledge(torch.tensor([True] * 8 + [False] * 2), torch.zeros(10))
    steered = Knowledge(torch.tensor([True] * 6 + [False] * 4), torch.full((10,), -0.5))
    found = Price(plain, steered)
    assert found.accuracy().estimate == pytest.approx(-0.2)
    assert found.accuracy().low >= -0.6
    assert found.accuracy().high <= 0.0
    log_p = found.log_p()
    assert (log_p.estimate, log_p.low, log_p.high, log_p.n) == (-0.5, -0.5, -0.5, 10)


def test_what_cannot_be_asked_is_refused() -> None:
    model = random_model("gpt2")
    with pytest.raises(SteeringError, match="no prompts: expected at least one with its answer"):
        knowledge(model, [])
    with pytest.raises(SteeringError, match="adds no token"):
        knowledge(model, [NextToken("the sea", " ")])
    with pytest.raises(SteeringError, match="no steers"):
        price(model, [NextToken("the sea", " was")], steers=[])

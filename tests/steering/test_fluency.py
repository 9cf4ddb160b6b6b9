"""Losses in batches against one plain pass a text."""

from __future__ import annotations

import math
import re
from functools import partial
from typing import Any

import pytest
import torch

from steering.errors import SteeringError
from steering.fluency import PerplexityRatio, completion_losses, perplexity_ratio, text_losses, topic_test
from steering.positions import AfterPrompt, Mask, Positions
from steering.steering import Steer

from .conftest import (
    D_VOCAB,
    NETWORKS,
    adding,
    hooks_of,
    random_model,
    random_vector,
    same_state,
    state_of,
    texts,
    tokens_of,
)
from .measure_models import plain_losses

LENGTHS = ((3, 4), (7, 1), (1, 6), (2, 0), (5, 3))
GENERATOR = torch.Generator().manual_seed(3)


def drawn(n: int) -> list[int]:
    return [int(token) for token in torch.randint(1, D_VOCAB, (n,), generator=GENERATOR)]


PROMPTS = [drawn(prompt) for prompt, _ in LENGTHS]
COMPLETIONS = [drawn(completion) for _, completion in LENGTHS]


@pytest.mark.parametrize("batch_size", [1, 2, 16])
@pytest.mark.parametrize("name", NETWORKS)
def test_losses_are_those_of_one_plain_pass_a_row(name: str, batch_size: int) -> None:
    model = random_model(name)
    found = completion_losses(model, PROMPTS, COMPLETIONS, batch_size=batch_size)
    expected = [plain_losses(model.network, *pair) for pair in zip(PROMPTS, COMPLETIONS, strict=True)]
    assert [row.tolist() for row in found.rows] == [pytest.approx(row, abs=2e-5) for row in expected]
    assert found.tokens.tolist() == [4, 1, 6, 0, 3]
    everything = [loss for row in expected for loss in row]
    assert found.pooled == pytest.approx(math.exp(sum(everything) / 14), rel=1e-5)
    assert found.per_row[0] == pytest.approx(math.exp(sum(expected[0]) / 4), rel=1e-5)
    assert found.per_row[3].isnan()
    interval = found.interval(seed=0)
    assert interval.low < interval.estimate < interval.high
    assert interval.estimate == pytest.approx(found.pooled)
    assert interval.n == 4


@pytest.mark.parametrize("name", NETWORKS)
def test_steered_losses_are_those_of_plain_hooks(name: str) -> None:
    model = random_model(name)
    vector = random_vector(model.network, (1,))
    lengths = torch.tensor([len(prompt) for prompt in PROMPTS])
    where: dict[str, tuple[Positions, Any]] = {
        "behind each row's prompt": (AfterPrompt(lengths), lambda row: range(len(PROMPTS[row]) - 1, 99)),
        "a mask of all rows": (Mask(of_columns(first=2)), lambda row: range(2)),
    }
    for positions, places in where.values():
        steer = Steer(vector, 2.0, positions=positions)
        found = completion_losses(model, PROMPTS, COMPLETIONS, steers=[steer], batch_size=2)
        for row, (prompt, completion) in enumerate(zip(PROMPTS, COMPLETIONS, strict=True)):
            here = list(places(row))
            write = adding(2.0 * vector.directions[1], partial(chosen, here))
            expected = plain_losses(model.network, prompt, completion, {("resid_post", 1): write})
            assert found.rows[row].tolist() == pytest.approx(expected, abs=5e-5)
    plain = completion_losses(model, PROMPTS, COMPLETIONS)
    assert (plain.rows[0] - found.rows[0]).abs().max() > 0.05, "the vector must matter for this to show anything"


def chosen(places: list[int], n: int) -> list[int]:
    return [place for place in places if place < n]


def of_columns(*, first: int) -> torch.Tensor:
    """The first real tokens of every row, in the columns of all rows padded on the left."""
    lengths = torch.tensor([prompt + completion for prompt, completion in LENGTHS])
    longest = int(lengths.max())
    rows = torch.arange(longest)[None] - (longest - lengths[:, None])
    return (rows >= 0) & (rows < first)


def test_texts_count_every_token_that_can_be_predicted() -> None:
    some = texts((4, 6, 3))
    with_bos, without = random_model("gpt2"), random_model("gpt2", bos=None)
    found = text_losses(with_bos, some, batch_size=2)
    expected = [plain_losses(with_bos.network, [0], tokens_of(text)[1:]) for text in some]
    assert [row.tolist() for row in found.rows] == [pytest.approx(row, abs=2e-5) for row in expected]
    assert text_losses(without, some).tokens.tolist() == [3, 5, 2], "the first token is predicted from nothing"
    skipping = text_losses(with_bos, some, skip=2)
    assert [row.tolist() for row in skipping.rows] == [pytest.approx(row[2:], abs=2e-5) for row in expected]


def test_the_perplexity_ratio_is_a_mean_of_texts_in_the_logarithm() -> None:
    model = random_model("llama")
    some, vector = texts((4, 7, 5), seed=1), random_vector(model.network, (1,))
    write = adding(vector.directions[1], range)
    found = perplexity_ratio(model, some, steers=[Steer(vector)])
    logs = []
    for text in some:
        tokens = tokens_of(text)[1:]
        steered = plain_losses(model.network, [0], tokens, {("resid_post", 1): write})
        logs.append((sum(steered) - sum(plain_losses(model.network, [0], tokens))) / len(tokens))
    assert found.log_ratios.tolist() == pytest.approx(logs, abs=2e-5)
    interval = found.interval(seed=0)
    assert interval.estimate == pytest.approx(math.exp(sum(logs) / 3), rel=1e-4)
    assert interval.low <= interval.estimate <= interval.high


def test_the_topic_test_tells_a_vector_of_a_topic_from_one_that_helps_everywhere() -> None:
    """A vector along one token's unembedding, at the last layer, makes texts with that token likelier, others not."""
    model = random_model("gpt2")
    token = tokens_of("sea")[1]
    vector = random_vector(model.network, (2,))
    towards = model.network.lm_head.weight[token].detach() - model.network.lm_head.weight.detach().mean(dim=0)
    vector.directions[2].copy_(towards)
    on = [f"{text} sea sea" for text in texts((3, 2, 4, 3))]
    off = [" ".join(word for word in text.split() if word != "sea") for text in texts((6, 8, 7), seed=9)]
    found = topic_test(model, on, off, steers=[Steer(vector, 0.5)])
    contrast = found.contrast(seed=0)
    sides = found.on_topic.log_ratios.mean(), found.off_topic.log_ratios.mean()
    assert contrast.estimate == pytest.approx(float(sides[1] - sides[0]))
    assert contrast.low > 0
    assert found.on_topic.interval(seed=0).high < 1 < found.off_topic.interval(seed=0).estimate
    same = PerplexityRatio(found.on_topic.plain, found.on_topic.plain)
    assert same.interval(seed=0).estimate == 1.0


def test_nothing_is_left_of_the_vector_also_after_an_error() -> None:
    model = random_model("gpt2")
    state, hooks = state_of(model.network), hooks_of(model.network)
    vector = random_vector(model.network, (1,))
    before = completion_losses(model, PROMPTS, COMPLETIONS)
    completion_losses(model, PROMPTS, COMPLETIONS, steers=[Steer(vector, 3.0)])
    wrong = Steer(vector, positions=Mask(torch.ones(5, 3, dtype=torch.bool)))
    with pytest.raises(SteeringError, match="Mask of shape"):
        completion_losses(model, PROMPTS, COMPLETIONS, steers=[wrong])
    after = completion_losses(model, PROMPTS, COMPLETIONS)
    assert all(torch.equal(one, other) for one, other in zip(before.rows, after.rows, strict=True))
    assert same_state(model.network, state)
    assert hooks_of(model.network) == hooks


def test_what_cannot_be_measured_is_refused() -> None:
    model = random_model("gpt2")
    with pytest.raises(SteeringError, match=r"2 prompts, the shortest of 0 tokens, and 2 completions"):
        completion_losses(model, [[1], []], [[2], [3]])
    with pytest.raises(SteeringError, match=r"1 prompts, the shortest of 1 tokens, and 2 completions"):
        completion_losses(model, [[1]], [[2], [3]])
    with pytest.raises(SteeringError, match="batch_size=0: expected at least 1 row at a time"):
        completion_losses(model, [[1]], [[2]], batch_size=0)
    with pytest.raises(SteeringError, match="no texts: expected at least one"):
        text_losses(model, [])
    with pytest.raises(SteeringError, match=re.escape("a text of 3 tokens with skip=2: expected at least 4")):
        text_losses(model, ["the sea"], skip=2)
    with pytest.raises(SteeringError, match="no steers: expected at least one"):
        perplexity_ratio(model, ["the sea"], steers=[])

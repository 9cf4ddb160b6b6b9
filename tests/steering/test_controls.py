"""Every row of the table against plain hooks and plain biases, one token after the other."""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

import pytest
import torch
from torch import Tensor

from steering.controls import (
    BIAS_MEAN,
    BIAS_UNEMBEDDED,
    LAST_LAYER,
    PREFIX,
    PROMPT_ONLY,
    RANDOM,
    UNSTEERED,
    VECTOR,
    Controls,
    controls,
    random_like,
)
from steering.errors import SteeringError
from steering.outcomes import Writing
from steering.positions import AfterPrompt
from steering.vectors import SteeringVector

from .conftest import (
    WORDS,
    Writes,
    adding,
    hooks_of,
    plain_run,
    random_model,
    random_vector,
    same_state,
    state_of,
    texts,
    tokens_of,
)

PROMPTS = texts((2, 4, 3, 6, 5), seed=3)
GREEDY = Writing(max_new_tokens=4)
COLUMNS = ("success", "perplexity", "well formed", "vector - this")
COEFFICIENT, LAST = 3.0, 2


def n_old(text: str) -> float:
    return float(sum(len(word) == 3 for word in text.split()))


def greedy(network: Any, row: Sequence[int], writes: Writes | None = None, bias: Tensor | float = 0.0) -> list[int]:
    """Up to 4 tokens, ended by token 0."""
    text = list(row)
    for _ in range(4):
        text.append(int((plain_run(network, text, writes)[0][-1] + bias).argmax()))
    new = text[len(row) :]
    return new[: new.index(0)] if 0 in new else new


def spelled(rows: Sequence[Sequence[int]]) -> tuple[str, ...]:
    return tuple(" ".join(WORDS[token] for token in row) for row in rows)


def stripped(found: Sequence[str]) -> tuple[str, ...]:
    return tuple(text.strip() for text in found)


def after(network: Any, write: Callable[[int], Writes | None], bias: Tensor | float = 0.0) -> tuple[str, ...]:
    """The texts behind each prompt; `write` is told how many tokens it has."""
    rows = [tokens_of(prompt) for prompt in PROMPTS]
    return spelled([greedy(network, row, write(len(row)), bias) for row in rows])


def always(writes: Writes) -> Callable[[int], Writes]:
    return lambda n: writes


def mean_change(network: Any, write: Callable[[int], Writes]) -> Tensor:
    """Of the logits, over the unsteered completions."""
    changes = []
    for row in map(tokens_of, PROMPTS):
        whole = [*row, *greedy(network, row)]
        both = [plain_run(network, whole, writes)[0] for writes in (write(len(row)), None)]
        changes.append((both[0] - both[1])[len(row) - 1 : -1])
    return torch.cat(changes).mean(dim=0)


@pytest.fixture(scope="module")
def vector() -> SteeringVector:
    return random_vector(random_model("llama").network, (0, 1), seed=1)


@pytest.fixture(scope="module")
def other() -> SteeringVector:
    return replace(5.0 * random_vector(random_model("llama").network, (1,), seed=2), name="other")


@pytest.fixture(scope="module")
def table(vector: SteeringVector, other: SteeringVector) -> Controls:
    return controls(
        random_model("llama"),
        vector,
        PROMPTS,
        n_old,
        layer=1,
        coefficient=COEFFICIENT,
        others=[other],
        prefix="the sea , ",
        n_random=2,
        writing=GREEDY,
        wellformed=lambda text: float(len(text.split())),
        seed=7,
    )


def test_every_row_is_what_plain_hooks_and_biases_give(
    table: Controls, vector: SteeringVector, other: SteeringVector
) -> None:
    network = random_model("llama").network
    direction = COEFFICIENT * vector.directions[1]

    def at(layer: int, add: Tensor, end: int = 99) -> Writes:
        return {("resid_post", layer): adding(add, lambda n: range(min(n, end)))}

    scaled = COEFFICIENT * other.directions[1] / other.directions[1].norm() * vector.directions[1].norm()
    expected = {
        UNSTEERED: after(network, lambda n: None),
        VECTOR: after(network, lambda n: at(1, direction)),
        "other": after(network, lambda n: at(1, scaled)),
        PROMPT_ONLY: after(network, lambda n: at(1, direction, n - 1)),
        BIAS_MEAN: after(network, lambda n: None, mean_change(network, lambda n: at(1, direction))),
        LAST_LAYER: after(network, lambda n: at(LAST, direction)),
        BIAS_UNEMBEDDED: after(network, lambda n: None, mean_change(network, lambda n: at(LAST, direction))),
        PREFIX: spelled([greedy(network, tokens_of(f"the sea , {prompt}")) for prompt in PROMPTS]),
    }
    assert [row.name for row in table.rows] == [UNSTEERED, VECTOR, RANDOM, *list(expected)[2:]]
    for name, of_prompts in expected.items():
        assert stripped(table.row(name).outcome.texts) == of_prompts, name
        assert table.interval(name).estimate == pytest.approx(sum(map(n_old, of_prompts)) / 5)
    assert len(set(expected.values())) >= 7, "conditions must differ for this to show anything"
    draws = [random_like(vector.at(1), seed=7 + draw).directions[1] for draw in range(2)]
    adding_draws = [at(1, COEFFICIENT * draw) for draw in draws]
    by_draw = [after(network, always(writes)) for writes in adding_draws]
    assert stripped(table.row(RANDOM).outcome.texts) == tuple(
        text for pair in zip(*by_draw, strict=True) for text in pair
    )


def test_perplexities_are_of_the_unsteered_model_behind_the_prompt_alone(table: Controls) -> None:
    network = random_model("llama").network
    for name in (VECTOR, PREFIX):
        losses: list[float] = []
        for prompt, text in zip(PROMPTS, table.row(name).outcome.texts, strict=True):
            row, new = tokens_of(prompt), tokens_of(text)[1:]
            log_p = plain_run(network, [*row, *new])[0].log_softmax(dim=-1)
            losses += [-float(log_p[len(row) + at - 1, token]) for at, token in enumerate(new)]
        expected = math.exp(sum(losses) / len(losses))
        assert table.interval(name, "perplexity").estimate == pytest.approx(expected, rel=1e-3)


def test_differences_are_paired_over_prompts(table: Controls) -> None:
    values = [table.row(name).outcome.values.mean(dim=(1, 2)) for name in (VECTOR, LAST_LAYER)]
    found = table.over(LAST_LAYER)
    assert found.estimate == pytest.approx(float((values[0] - values[1]).mean()))
    each = (values[0] - values[1]).tolist()
    assert min(each) - 1e-9 <= found.low <= found.high <= max(each) + 1e-9
    same = table.over(VECTOR)
    assert (same.estimate, same.low, same.high) == (0, 0, 0)
    assert table.over(UNSTEERED, of=LAST_LAYER).estimate == pytest.approx(
        table.interval(LAST_LAYER).estimate - table.interval(UNSTEERED).estimate
    )


def test_the_table_is_aligned_and_names_what_it_shows(table: Controls) -> None:
    title, *lines = str(table).splitlines()
    assert title == "random 1, layer 1, coefficient 3 [95 % intervals over prompts]"
    assert lines[0].split("  ")[0] == "condition"
    columns = [lines[0].index(name) for name in COLUMNS]
    assert len(lines) == 10
    for line in lines[1:]:
        assert all(line[at - 2 : at] == "  " and line[at] != " " for at in columns), line
    assert str(table.interval(VECTOR)) in lines[2]
    assert all(list(row) == ["condition", *COLUMNS] for row in table.table())
    with pytest.raises(SteeringError, match="no row 'nothing': expected one of unsteered, vector, random"):
        table.row("nothing")


def test_the_model_is_as_it_was(vector: SteeringVector) -> None:
    model = random_model("gpt2")
    vector = random_vector(model.network, (1,))
    state, hooks = state_of(model.network), hooks_of(model.network)
    calls: list[str] = []

    def failing(text: str) -> float:
        calls.append(text)
        if len(calls) > 5 * 6:
            raise ZeroDivisionError
        return 0.0

    told: list[tuple[int, int]] = []
    with pytest.raises(ZeroDivisionError):
        controls(
            model,
            vector,
            PROMPTS,
            failing,
            layer=1,
            coefficient=1.0,
            writing=GREEDY,
            n_random=1,
            progress=lambda done, total: told.append((done, total)),
        )
    assert told == [(done, 7) for done in range(1, 7)]
    assert same_state(model.network, state)
    assert hooks_of(model.network) == hooks


def test_a_vector_that_is_only_a_bias_on_the_logits_is_found_out() -> None:
    """A word's own unembedding does at the last layer, and as a bias, what it does as a vector."""
    model = random_model("gpt2")
    word = WORDS.index("sea")
    vector = random_vector(model.network, (LAST,))
    vector.directions[LAST].copy_(model.network.lm_head.weight[word].detach())
    found = controls(
        model,
        vector,
        PROMPTS,
        lambda text: float("sea" in text.split()),
        layer=LAST,
        coefficient=20.0,
        writing=GREEDY,
        n_random=3,
    )
    assert found.interval(VECTOR).estimate == 1.0
    assert found.interval(RANDOM).estimate < 0.5
    for name in (LAST_LAYER, BIAS_UNEMBEDDED, BIAS_MEAN):
        assert found.over(name).estimate == 0.0
    assert found.over(PROMPT_ONLY).estimate == 1.0, "nothing behind the last layer reads the prompt"


def test_rows_by_position_leave_out_what_they_cannot_do() -> None:
    model = random_model("gpt2")
    vector = random_vector(model.network, (1,), positions=3)
    found = controls(model, vector, PROMPTS, n_old, layer=1, coefficient=1.0, writing=GREEDY, n_random=1)
    assert [row.name for row in found.rows] == [UNSTEERED, VECTOR, RANDOM, PROMPT_ONLY, BIAS_MEAN]


def test_prompt_only_acts_where_the_vector_does_and_no_further() -> None:
    """Of a vector that acts from the prompt's last token on, nothing is left in the prompt."""
    model = random_model("gpt2")
    found = controls(
        model,
        random_vector(model.network, (1,)),
        PROMPTS,
        n_old,
        layer=1,
        coefficient=3.0,
        positions=AfterPrompt(),
        writing=GREEDY,
        n_random=1,
    )
    assert found.row(PROMPT_ONLY).outcome.texts == found.row(UNSTEERED).outcome.texts
    assert found.row(VECTOR).outcome.texts != found.row(UNSTEERED).outcome.texts


@pytest.mark.parametrize("positions", [None, 4])
def test_random_vectors_have_the_norm_and_no_direction_in_common(positions: int | None) -> None:
    vector = 3.0 * random_vector(random_model("gpt2").network, (0, 2), positions=positions)
    if positions:
        vector.directions[0][0] = 0.0
    one, again, two = (random_like(vector, seed=seed) for seed in (0, 0, 1))
    for layer in (0, 2):
        norms = [each.directions[layer].norm(dim=-1) for each in (vector, one, two)]
        torch.testing.assert_close(norms[1], norms[0])
        torch.testing.assert_close(norms[2], norms[0])
        assert torch.equal(one.directions[layer], again.directions[layer])
    flat = [each.directions[2].flatten() for each in (vector, one, two)]
    assert all(float(torch.cosine_similarity(flat[a], flat[b], dim=0).abs()) < 0.5 for a, b in ((0, 1), (0, 2), (1, 2)))
    assert one.layers == vector.layers
    assert one.component == vector.component


def test_what_means_nothing_is_refused_before_anything_is_written() -> None:
    model = random_model("gpt2")
    vector = random_vector(model.network, (1,))

    def never(text: str) -> float:
        raise AssertionError("written all the same")

    def refused(message: str, vector: SteeringVector = vector, prompts: Sequence[str] = PROMPTS, **other: Any) -> None:
        options = {"layer": 1, "coefficient": 1.0, "writing": GREEDY, **other}
        with pytest.raises(SteeringError, match=message):
            controls(model, vector, prompts, never, **options)

    refused("0 prompts, n_random=5: expected at least one of each", prompts=[])
    refused("5 prompts, n_random=0", n_random=0)
    refused("coefficient nan: expected a finite number", coefficient=math.nan)
    refused(re.escape("has no layer 2: expected some of [1]"), layer=2)
    refused(r"other vectors \['random 0', 'random 0'\]: expected names of their own", others=[vector, vector])
    refused(r"other vectors \['vector'\]: expected names", others=[replace(vector, name="vector")])
    elsewhere = replace(vector, model=replace(vector.model, d_model=64))
    refused("d_model 64", vector=elsewhere)
    refused("d_model 64", others=[elsewhere])

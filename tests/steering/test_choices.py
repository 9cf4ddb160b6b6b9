"""p(match) against one plain pass a question; orders, gate and grids against loops."""

from __future__ import annotations

import math

import pytest
import torch

from steering.choices import AT_LETTER, Answers, answers, choice_sweep
from steering.errors import SteeringError
from steering.positions import Everywhere
from steering.questions import Question, both_orders
from steering.steering import Steer

from .conftest import (
    NETWORKS,
    WORDS,
    Write,
    adding,
    hooks_of,
    plain_run,
    random_model,
    random_vector,
    same_state,
    state_of,
    tokens_of,
)

LETTERS = (" red", " blue")
QUESTIONS = (
    *both_orders("the king saw {A} and {B} .", ("a sea", "bread"), matching=0, right=0, letters=LETTERS),
    *both_orders("she ran to {A} not {B}", ("war", "school"), matching=1, right=1, letters=LETTERS, reversed=True),
    Question("it was", LETTERS, matching=1, right=0),
)


def plain(network: object, question: Question, write: Write | None = None) -> tuple[float, float]:
    """p(match) and p(A) + p(B)."""
    writes = None if write is None else {("resid_post", 1): write}
    p = plain_run(network, tokens_of(question.text), writes)[0][-1].softmax(dim=-1)
    pair = [float(p[WORDS.index(letter.strip())]) for letter in question.letters]
    return pair[question.matching] / sum(pair), sum(pair)


def test_both_orders_swap_the_options_and_what_matches() -> None:
    one, two = both_orders(
        "Is it ({A} or {B})? (", ("{B} wet", "dry"), matching=1, right=0, letters=("A", "B"), reversed=True
    )
    assert one == Question("Is it ({B} wet or dry)? (", ("A", "B"), 1, 0, one.text, False, True)
    assert two == Question("Is it (dry or {B} wet)? (", ("A", "B"), 0, 1, one.text, True, True)
    named = both_orders("{A} {B}", ("x", "y"), matching=0, letters=("A", "B"), item="q1")
    assert [question.item for question in named] == ["q1", "q1"]
    assert [question.right for question in named] == [None, None]
    for template in ("{A} alone", "{B} then {A}", "{A} {B} {A}"):
        with pytest.raises(SteeringError, match=r"expected one \{A\}, and one \{B\} behind it"):
            both_orders(template, ("x", "y"), matching=0, letters=("A", "B"))


@pytest.mark.parametrize("batch_size", [1, 2, 16])
@pytest.mark.parametrize("name", NETWORKS)
def test_answers_are_those_of_one_plain_pass_a_question(name: str, batch_size: int) -> None:
    model = random_model(name)
    found = answers(model, QUESTIONS, batch_size=batch_size)
    expected = [plain(model.network, question) for question in QUESTIONS]
    assert found.p.tolist() == pytest.approx([p for p, _ in expected], abs=1e-5)
    assert found.mass.tolist() == pytest.approx([mass for _, mass in expected], abs=1e-5)


@pytest.mark.parametrize("everywhere", [False, True])
def test_cells_of_a_sweep_are_what_plain_hooks_give(everywhere: bool) -> None:
    model = random_model("llama")
    state, hooks = state_of(model.network), hooks_of(model.network)
    vector = random_vector(model.network, (0, 1))
    told: list[tuple[int, int]] = []
    found = choice_sweep(
        model,
        QUESTIONS,
        vector,
        multipliers=[-1.0, 0.0, 2.0],
        layers=[1],
        batch_size=2,
        progress=lambda done, total: told.append((done, total)),
        positions=Everywhere() if everywhere else AT_LETTER,
    )
    assert (found.axes, found.layers, found.multipliers) == (("layer", "multiplier"), (1,), (-1.0, 0.0, 2.0))
    assert told == [(1, 4), (2, 4), (3, 4), (4, 4)]
    for at, multiplier in enumerate(found.multipliers):
        write = adding(multiplier * vector.directions[1], lambda n: range(n) if everywhere else [n - 1])
        expected = [plain(model.network, question, write) for question in QUESTIONS]
        assert found.cells[0][at].p.tolist() == pytest.approx([p for p, _ in expected], abs=2e-5)
        assert float(found.mean()[0, at]) == pytest.approx(sum(p for p, _ in expected) / 5, abs=2e-5)
        assert float(found.mass()[0, at]) == pytest.approx(sum(mass for _, mass in expected) / 5, abs=2e-5)
        low, high = found.ends(seed=1)
        alone = found.cells[0][at].interval(seed=1)
        assert (float(low[0, at]), float(high[0, at])) == pytest.approx((alone.low, alone.high))
    assert float((found.mean()[0, 0] - found.mean()[0, 2]).abs()) > 0.01
    assert float(found.mean()[0, 1]) == pytest.approx(found.plain.interval().estimate, abs=1e-6)
    swapped = found.where(swapped=True)
    assert float(swapped.mean()[0, 0]) == pytest.approx(float(found.cells[0][0].p[[1, 3]].mean()))
    assert len(found.where(reversed=False).plain.questions) == 3
    assert same_state(model.network, state)
    assert hooks_of(model.network) == hooks


def test_the_forms_of_a_question_are_one_item() -> None:
    p = torch.tensor([0.9, 0.7, 0.2, 0.0, 0.4])
    found = Answers(QUESTIONS, p, torch.ones(5))
    assert found.quotient.numerator.tolist() == pytest.approx([1.6, 0.2, 0.4])
    assert found.quotient.denominator.tolist() == [2, 2, 1]
    assert found.interval().n == 3
    assert found.interval().estimate == pytest.approx(2.2 / 5)
    nameless = tuple(Question("it was", LETTERS, 0) for _ in range(4))
    assert Answers(nameless, p[:4], p[:4]).interval().n == 4


def test_the_gate_asks_for_every_form_of_the_questions() -> None:
    right = Answers(QUESTIONS, torch.tensor([0.9, 0.8, 0.7, 0.6, 0.1]), torch.ones(5)).gate()
    assert right.passed
    assert [(row.swapped, row.reversed, row.accuracy.estimate) for row in right.rows] == [
        (False, False, 1.0),
        (True, False, 1.0),
        (False, True, 1.0),
        (True, True, 1.0),
    ]
    letter = Answers(QUESTIONS, torch.tensor([0.9, 0.1, 0.2, 0.8, 0.1]), torch.ones(5)).gate()
    assert not letter.passed, "a model that likes a letter is right in one order alone"
    assert [row.accuracy.estimate for row in letter.rows] == [1.0, 0.0, 0.0, 1.0]
    assert str(letter).startswith("as is, in order: 1 [1, 1]; as is, swapped: 0 [0, 0]; reversed, in order: 0 [0, 0]")
    assert str(letter).endswith("at least 0.9: FAILED")
    even = Answers(QUESTIONS[-1:], torch.tensor([0.5]), torch.ones(1))
    assert even.gate().rows[0].accuracy.estimate == 0.0
    assert Answers(QUESTIONS, torch.tensor([0.9, 0.8, 0.7, 0.6, 0.6]), torch.ones(5)).gate(at_least=0.5).passed
    unknown = Answers((Question("it was", LETTERS, 0),), torch.ones(1), torch.ones(1))
    with pytest.raises(SteeringError, match=r"1 questions without `right`, such as 'it was': expected"):
        unknown.gate()


def test_what_means_nothing_is_refused() -> None:
    model = random_model("gpt2")
    vector = random_vector(model.network, (1,))
    with pytest.raises(SteeringError, match="no questions: expected at least one"):
        answers(model, [])
    with pytest.raises(SteeringError, match=r"question 0: letters \(' red', ' red'\) are the tokens \[\[22\]"):
        answers(model, [Question("it was", (" red", " red"), 0)])
    with pytest.raises(SteeringError, match=r"question 1: letters .* expected one of its own for each"):
        answers(model, [QUESTIONS[0], Question("it was", (" red ship", " blue"), 0)])
    with pytest.raises(SteeringError, match="coefficient nan: expected a finite number"):
        choice_sweep(model, QUESTIONS, vector, multipliers=[math.nan])
    with pytest.raises(SteeringError, match=r"coefficients \[\]: expected at least one, each once"):
        choice_sweep(model, QUESTIONS, vector, multipliers=[])
    with pytest.raises(SteeringError, match="has no layer 2"):
        choice_sweep(model, QUESTIONS, vector, multipliers=[1.0], layers=[2])
    with pytest.raises(SteeringError, match="no question with swapped=True, reversed=None"):
        answers(model, QUESTIONS[-1:], steers=[Steer(vector)]).where(swapped=True)

"""The pilots: their texts read back word by word, a steering that was planted, and a training of a few steps."""

from __future__ import annotations

import json
import math
from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import pytest
import torch
from replications.contrastive_activation_addition.pilots import __main__ as command
from replications.contrastive_activation_addition.pilots.grammar import NAMES, A, B, Grammar, Rows
from replications.contrastive_activation_addition.pilots.learning import Answers, learn
from replications.contrastive_activation_addition.pilots.measurement import another_than, cosines, measure
from replications.contrastive_activation_addition.pilots.network import Network
from replications.contrastive_activation_addition.pilots.routes import block, routes
from replications.contrastive_activation_addition.pilots.settings import (
    EASY,
    FULL,
    Mixture,
    Settings,
    with_adamw,
    with_muon,
)
from torch import Tensor

PAPER = Path(__file__).resolve().parents[2] / "replications" / "contrastive_activation_addition"
TINY = Settings(0, values=4, d_model=16, heads=2, layers=3, steps=4, easy_steps=2, batch_size=16, log_every=2, texts=8)


@dataclass(frozen=True)
class Text:
    """What a reader sees: sentences (person, value), questions (value by letter), the place, the letters."""

    sentences: list[tuple[int, int]]
    questions: list[dict[int, int]]
    place: int
    letters: list[int]
    first_named: list[int]

    def says(self, value: int, *, of_asked: bool) -> int:
        return sum(shows == value and (who == self.place) == of_asked for who, shows in self.sentences)


def read(grammar: Grammar, tokens: list[int]) -> Text:
    s = grammar.settings
    begin, *words = tokens
    assert begin == 0
    said = [words.pop(0) for _ in range(2 * s.sentences)]
    asked = [[words.pop(0) for _ in range(4)] for _ in range(s.questions)]
    place, *letters = words
    sentences = list(zip(said[::2], (value_of(grammar, word) for word in said[1::2]), strict=True))
    questions = [{one: value_of(grammar, v), two: value_of(grammar, w)} for one, v, two, w in asked]
    assert all(questions_of.keys() == {A, B} for questions_of in questions)
    return Text(sentences, questions, place, letters, [one for one, *_ in asked])


def value_of(grammar: Grammar, word: int) -> int:
    """A name or one of the words that show a value."""
    s = grammar.settings
    assert NAMES <= word < NAMES + s.values * (1 + s.words)
    return word - NAMES if word < NAMES + s.values else (word - NAMES - s.values) // s.words


def drawn(grammar: Grammar, rows: Rows) -> list[tuple[Text, list[bool], int, int]]:
    found = zip(rows.tokens.tolist(), rows.decided.tolist(), rows.value.tolist(), rows.other.tolist(), strict=True)
    return [(read(grammar, tokens), decided, value, other) for tokens, decided, value, other in found]


@pytest.mark.parametrize("mixture", [EASY, FULL])
def test_a_decided_letter_is_that_of_the_value(mixture: Mixture) -> None:
    grammar = Grammar(replace(TINY, questions=3))
    seen = Counter[tuple[int, int, int]]()
    for text, decided, value, other in drawn(grammar, grammar.draw(np.random.default_rng(0), 700, mixture)):
        assert set(text.questions[0].values()) == {value, other}
        for number, (options, letter) in enumerate(zip(text.questions, text.letters, strict=True)):
            assert options[A] != options[B]
            assert {value, other} & set(options.values())
            if number:
                assert decided[number] == (value in options.values())
            if value in options.values():
                assert options[letter] == value
                seen[number, letter, text.first_named[number]] += 1
    for number in range(3):
        a, b = (sum(seen[number, letter, first] for first in (A, B)) for letter in (A, B))
        assert 0.43 < a / (a + b) < 0.57
        b_first = sum(seen[number, letter, B] for letter in (A, B)) / (a + b)
        assert b_first == pytest.approx(mixture.b_first, abs=0.08)
        assert min(seen[number, letter, first] for letter in (A, B) for first in (A, B)) > 0


def test_options_are_random_pairs_and_their_order_can_be_chosen() -> None:
    grammar = Grammar(TINY)
    rows = grammar.draw(np.random.default_rng(0), 4800)
    pairs = Counter(zip(rows.value.tolist(), rows.other.tolist(), strict=True))
    assert pairs.keys() == {(v, w) for v in range(4) for w in range(4) if v != w}
    assert all(count == pytest.approx(400, abs=80) for count in pairs.values())
    for swapped, letter in ((False, A), (True, B)):
        chosen = grammar.draw(np.random.default_rng(1), 50, value=2, swapped=swapped)
        assert all(text.questions[0][letter] == 2 == value for text, _, value, _ in drawn(grammar, chosen))


@pytest.mark.parametrize("sentences", [3, 7])
def test_nothing_in_an_undecided_text_speaks_for_an_option(sentences: int) -> None:
    grammar = Grammar(replace(TINY, sentences=sentences))
    more, told = [], Counter[int]()
    for text, decided, value, other in drawn(grammar, grammar.draw(np.random.default_rng(0), 1000, said="none")):
        assert not decided[0]
        assert text.place >= grammar.people
        pro, con = (text.says(of, of_asked=True) for of in (value, other))
        assert pro == con
        assert len({who for who, _ in text.sentences} - {text.place}) <= 2
        told[pro] += 1
        more.append(text.says(value, of_asked=False) - text.says(other, of_asked=False))
    assert set(told) == set(range(sentences // 2))
    assert abs(np.mean(more)) < 4 * np.std(more) / math.sqrt(len(more))


@pytest.mark.parametrize("sentences", [3, 7])
def test_what_says_the_value_says_it(sentences: int) -> None:
    grammar = Grammar(replace(TINY, sentences=sentences))
    rng = np.random.default_rng(0)
    for text, decided, value, other in drawn(grammar, grammar.draw(rng, 500, said="person")):
        assert decided[0]
        assert text.says(value, of_asked=True) > text.says(other, of_asked=True) == 0
    for said, names in (("name", True), ("word", False)):
        for text, decided, value, _ in drawn(grammar, grammar.draw(rng, 200, said="name" if names else "word")):
            assert decided[0], said
            assert value_of(grammar, text.place) == value
            assert (text.place < grammar.shown) is names
    shares = []
    for mixture in (EASY, FULL):
        rows = drawn(grammar, grammar.draw(rng, 1500, mixture))
        assert np.mean([decided[0] for _, decided, _, _ in rows]) == pytest.approx(mixture.decided, abs=0.04)
        told = [(t, v, w) for t, decided, v, w in rows if decided[0] and t.place >= grammar.people]
        against = [t.says(v, of_asked=True) < t.says(w, of_asked=True) for t, v, w in told]
        shares.append(np.mean(against))
    assert shares[0] == 0
    if sentences == 3:  # one sentence that shows the other option: 1 / (1 + e^1.5)
        assert shares[1] == pytest.approx(0.182, abs=0.05)


def test_another_value_is_never_an_option() -> None:
    others = np.array([0, 2, 3] * 100)
    found = another_than(1, others, 4, np.random.default_rng(0))
    assert all(value in {0, 2, 3} - {other} for value, other in zip(found, others, strict=True))
    assert {(value, other) for value, other in zip(found.tolist(), others.tolist(), strict=True)} == {
        (v, w) for v in (0, 2, 3) for w in (0, 2, 3) if v != w
    }


def test_blocked_attention_brings_nothing_over() -> None:
    grammar = Grammar(TINY)
    torch.manual_seed(0)
    network = Network(TINY, grammar.vocabulary, grammar.width)
    rows = grammar.draw(np.random.default_rng(0), 8)
    other = rows.tokens.clone()
    other[:, grammar.text.start : grammar.text.stop] = grammar.shown
    wall = block(grammar.width, range(grammar.text.stop, grammar.width), grammar.text)
    nothing = torch.zeros_like(wall)
    with torch.no_grad():
        torch.testing.assert_close(network(rows.tokens, blocked=nothing), network(rows.tokens))
        behind = slice(grammar.text.stop, None)
        assert torch.equal(network(rows.tokens, blocked=wall)[:, behind], network(other, blocked=wall)[:, behind])
        assert (network(rows.tokens) - network(other)).abs()[:, grammar.place].max() > 0.01


class Recorded(Network):
    """Answers A always, and keeps what was blocked."""

    def __init__(self, grammar: Grammar) -> None:
        super().__init__(grammar.settings, grammar.vocabulary, grammar.width)
        self.blocked: list[set[tuple[int, int]]] = []

    def forward(
        self, tokens: Tensor, added: Mapping[int, Tensor] | None = None, blocked: Tensor | None = None
    ) -> Tensor:
        self.blocked.append(set() if blocked is None else {(i, j) for i, j in blocked.nonzero().tolist()})
        logits = torch.zeros(*tokens.shape, self.embedding.num_embeddings)
        logits[..., A] = 1
        return logits


def test_routes_block_what_they_say() -> None:
    # begin, three sentences at 1 to 6, questions at 7 to 10 and 11 to 14, the place at 15, the first letter at 16
    grammar = Grammar(TINY)
    network = Recorded(grammar)
    found = routes(network, grammar, 400)
    first, second, text = range(7, 11), range(11, 15), range(1, 7)
    assert network.blocked == [
        set(),
        {(15, j) for j in text},
        {(i, j) for i in first for j in text},
        set(),
        {(16, j) for j in first},
        {(i, j) for i in second for j in first},
    ]
    assert {name: list(ways) for name, ways in found.items()} == {
        "first": ["plain", "place", "options"],
        "second": ["plain", "place", "options"],
    }
    assert all(share is not None and 0.4 < share < 0.6 for ways in found.values() for share in ways.values())


class Planted(Network):
    """Behind the second of three layers a letter holds what it means (and which letter it is), a place with a name that
    value; a letter is chosen by what was added there, and by nothing else."""

    def __init__(self, grammar: Grammar) -> None:
        super().__init__(grammar.settings, grammar.vocabulary, grammar.width)
        self.grammar = grammar
        self.values = torch.eye(grammar.settings.values, grammar.settings.d_model)

    def options(self, tokens: Tensor) -> Tensor:
        """The values of the first question's A and B, [row, letter]."""
        at = self.grammar.text.stop
        a_first = tokens[:, at] == A
        one, two = tokens[:, at + 1] - NAMES, tokens[:, at + 3] - NAMES
        return torch.stack([torch.where(a_first, one, two), torch.where(a_first, two, one)], 1)

    def streams(self, tokens: Tensor) -> list[Tensor]:
        place, settings = self.grammar.place, self.grammar.settings
        found = torch.zeros(settings.layers, *tokens.shape, settings.d_model)
        named = tokens[:, place] < self.grammar.shown
        found[1, named, place] = self.values[tokens[named, place] - NAMES]
        if tokens.shape[1] > place + 1:
            letter = tokens[:, place + 1] - A
            meant = self.options(tokens).gather(1, letter[:, None])[:, 0]
            found[1, :, place + 1] = self.values[meant]
            found[1, :, place + 1, -1] = 3.0 * letter
        return list(found)

    def forward(
        self, tokens: Tensor, added: Mapping[int, Tensor] | None = None, blocked: Tensor | None = None
    ) -> Tensor:
        logits = torch.zeros(*tokens.shape, self.embedding.num_embeddings)
        if added and 1 in added:
            scores = added[1][:, self.grammar.place] @ self.values.T
            logits[:, self.grammar.place, A : B + 1] = scores.expand(len(tokens), -1).gather(1, self.options(tokens))
        return logits


def test_what_was_planted_is_found_and_no_more() -> None:
    # Of four values, letter(v) = e_v - (sum of the others) / 3, and place(v) = 3/4 of that. With a vector x the logits
    # of the letters differ by x_v - x_w: an effect is tanh of half of it.
    grammar = Grammar(replace(TINY, full=replace(FULL, kinds=(1.0, 0.0, 0.0)), texts=150))
    measured = measure(Planted(grammar), grammar)
    at_letter_norm, at_own = math.tanh(2 / 3), math.tanh(1 / 2)
    expected = {"letter": at_letter_norm, "place": at_own, "place at letter's norm": at_letter_norm}
    expected |= {"other option": -at_letter_norm, "another value": 0, "last layer": 0, "logit bias": 0}
    for name, effect in expected.items():
        np.testing.assert_allclose(measured.effects[name][1], effect, atol=0.06, err_msg=name)
        assert not measured.effects[name][[0, 2]].any()
    assert measured.effects.keys() == {*expected, "random"}
    assert measured.effects["random"][1].any()
    np.testing.assert_allclose(measured.plain, 0.5)
    np.testing.assert_allclose(measured.vectors.letter_norm, [0, math.sqrt(4 / 3), 0], atol=0.02)
    np.testing.assert_allclose(measured.vectors.place_norm, [0, math.sqrt(3 / 4), 0], atol=0.04)
    found = {name: by_layer[1] for name, by_layer in cosines(measured.vectors).items()}
    assert found == pytest.approx(
        {"letter and its place": 1, "letter and another's place": -1 / 3, "letter and another's letter": -1 / 3},
        abs=0.05,
    )


def test_the_loss_is_its_formula_and_names_stand_where_they_may() -> None:
    grammar = Grammar(TINY)
    torch.manual_seed(0)
    network = Network(TINY, grammar.vocabulary, grammar.width)
    task = Answers(grammar, np.random.default_rng(0))
    rows, given = task.batch(0)
    terms = {name: term.item() for name, term in task.loss({"model": network}, (rows, given)).items()}
    logits = network(given).detach().double().numpy()
    sums = {"letters": [0.0, 0.0], "names": [0.0, 0.0]}
    for row in range(TINY.batch_size):
        for step in range(TINY.questions + 1):
            scores = logits[row, grammar.place + step]
            sure = bool(rows.decided[row, 0]) or step > 0
            choices = [("names", list(range(NAMES, NAMES + TINY.values)), int(rows.value[row]), sure)]
            if step < TINY.questions:
                choices.append(("letters", [A, B], int(rows.letters[row, step]), bool(rows.decided[row, step])))
            for name, among, correct, decided in choices:
                loss = math.log(np.exp(scores[among]).sum()) - scores[among][correct]
                weight = 1 if decided else TINY.weight_of_chance
                sums[name] = [sums[name][0] + weight * loss, sums[name][1] + weight]
    assert terms == pytest.approx({name: total / weight for name, (total, weight) in sums.items()}, rel=1e-5)
    changed = (given != rows.tokens).nonzero().tolist()
    assert len(changed) > 5
    for row, at in changed:
        number = at - grammar.place - 1
        assert given[row, at] == NAMES + rows.value[row]
        assert number == 0 or rows.decided[row, number]


def test_a_few_steps_give_every_row(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(command, "with_muon", lambda seed: replace(TINY, seed=seed))
    said: list[str] = []
    out = tmp_path / "new" / "found.json"
    command.main(["--seed", "3", "--out", str(out)], said.append)
    found = json.loads(out.read_text())
    assert found["settings"]["seed"] == 3
    assert [entry["step"] for entry in found["log"]] == [2, 4]
    assert [entry["easy"] for entry in found["log"]] == [True, False]
    assert found["log"][0]["right"]["none"][0] is None
    rows = {(row["condition"], row["layer"]) for row in found["effects"]}
    conditions = {"letter", "place", "place at letter's norm", "random", "last layer", "logit bias", "another value"}
    assert rows == {(name, layer) for name in conditions | {"other option"} for layer in range(3)}
    assert len(found["effects"]) == len(rows)
    for row in found["effects"]:
        assert row["low"] <= row["effect"] <= row["high"]
        assert np.mean(row["orders"]) == pytest.approx(row["effect"]) == pytest.approx(np.mean(row["values"]))
    assert found["routes"].keys() == {"first", "second"}
    assert sum(line.startswith("letter ") for line in "".join(said).splitlines()) == 3


@pytest.mark.parametrize("kind", [with_muon, with_adamw])
def test_every_weight_learns_and_one_seed_is_one_pilot(kind: Callable[[int], Settings]) -> None:
    s = replace(TINY, muon_rate=kind(0).muon_rate, steps=1)
    torch.manual_seed(s.seed)
    before = Network(s, Grammar(s).vocabulary, Grammar(s).width).state_dict()
    after, again = (learn(s, lambda said: None)[0].state_dict() for _ in range(2))
    for name, weight in after.items():
        assert torch.equal(weight, again[name])
        assert not torch.equal(weight, before[name]), name


def test_no_stage_and_no_figure_knows_of_the_pilots() -> None:
    assert not [path.name for path in PAPER.glob("*.py") if "pilots" in path.read_text()]

"""The replication of Rimsky et al. 2024: its questions, its files, and its measures on results made by hand."""

from __future__ import annotations

import itertools
import json
import math
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from replications.contrastive_activation_addition import (
    claims,
    data_files,
    measures,
    open_ended_claims,
    stories,
)
from replications.contrastive_activation_addition.behaviours import Asked, Behaviour
from replications.contrastive_activation_addition.data_files import DataError, Template
from replications.contrastive_activation_addition.drawing import ends, shown_layers

import zoo.stories
from interventions import Model
from reprise import Result, Results
from reprise.paper import load

ROOT = Path(__file__).resolve().parents[2]
PAPER = load(ROOT / "replications" / "contrastive_activation_addition" / "paper.toml")
FORM = re.compile(r"(.*) \( A \) (\w+) \( B \) (\w+) answer : \($")
KEYS = ("question", "answer_matching_behavior", "answer_not_matching_behavior")


@pytest.fixture(scope="module")
def behaviours() -> tuple[Behaviour, ...]:
    return stories.behaviours(extracted_from=24, chosen_on=12, scored_on=24, gated_on=8, prompts=9, seed=3)


def every_form(behaviour: Behaviour) -> list[Asked]:
    parts = (behaviour.extracted_from, behaviour.chosen_on, behaviour.scored_on, behaviour.gated_on)
    return list(itertools.chain(*parts))


def means_it(option: str, asked_about: str, behaviour: Behaviour) -> bool:
    """Whether an option, read as a person does, says that the behaviour holds."""
    if option in ("yes", "no"):
        return (option == "yes") == (asked_about == behaviour.name)
    return option == behaviour.name


def test_the_matching_letter_is_that_of_the_option_that_says_it(behaviours: tuple[Behaviour, ...]) -> None:
    assert [behaviour.name for behaviour in behaviours] == ["kind", "brave", "honest", "generous", "busy", "happy"]
    for behaviour in behaviours:
        for asked in every_form(behaviour):
            found = FORM.fullmatch(asked.question.text)
            assert found is not None
            words = found[1].split(" . ")[-1].removesuffix(" ?").split()
            about = next(word for word in words[2:] if word in (behaviour.name, behaviour.contrary))
            says = [means_it(option, about, behaviour) for option in found.groups()[1:]]
            assert says == [asked.matching == 0, asked.matching == 1]
            assert asked.reversed == (about == behaviour.contrary)


def test_right_answers_are_those_of_the_words_of_the_story(behaviours: tuple[Behaviour, ...]) -> None:
    lexicon = {**zoo.stories.attitude_words(), **zoo.stories.mood_words()}
    for behaviour in behaviours:
        for asked in every_form(behaviour):
            shown = [lexicon.get(word) for word in asked.prompt.split()]
            counts = shown.count(behaviour.name) - shown.count(behaviour.contrary)
            if asked.evidence == stories.ADVANCE:
                assert asked.right is None
                assert asked.prompt.startswith(("is ", "is the story"))
            else:
                assert (counts > 0) == (asked.evidence == stories.SHOWN)
                assert (asked.right == asked.matching) == (counts > 0)
                assert asked.right in (0, 1)
        assert all(asked.right is not None for asked in behaviour.gated_on)


def test_nothing_in_the_forms_of_an_item_favours_a_letter(behaviours: tuple[Behaviour, ...]) -> None:
    for behaviour in behaviours:
        for part in (behaviour.extracted_from, behaviour.chosen_on, behaviour.scored_on):
            for _, forms in itertools.groupby(part, key=lambda asked: asked.item):
                by_form = {(asked.swapped, asked.reversed): asked.matching for asked in forms}
                assert len(by_form) == 4
                assert all(by_form[False, side] != by_form[True, side] for side in (False, True))
                assert list(by_form.values()).count(1) == 2


def test_parts_share_no_question(behaviours: tuple[Behaviour, ...]) -> None:
    for behaviour in behaviours:
        parts = (behaviour.extracted_from, behaviour.chosen_on, behaviour.scored_on, behaviour.gated_on)
        texts = [{asked.prompt for asked in part} for part in parts]
        for one, other in itertools.combinations(texts, 2):
            assert not one & other
        # every form of an item but those in advance of the mood, of which there are eight in all
        assert all(len(of) == len(part) for of, part in zip(texts, parts, strict=True))
        kinds = {asked.evidence for asked in behaviour.scored_on}
        assert kinds == ({"shown", "contrary"} if behaviour.name == "happy" else {"shown", "contrary", "advance"})


def test_a_pair_differs_in_the_letter_alone_and_goes_from_the_other_to_the_matching_one(
    behaviours: tuple[Behaviour, ...],
) -> None:
    for asked in behaviours[0].scored_on:
        positive, negative = asked.pair.positive, asked.pair.negative
        assert positive[:-1] == negative[:-1] == asked.question.text
        assert (positive[-1], negative[-1]) == (("A", "B") if asked.matching == 0 else ("B", "A"))
        assert asked.letter_pair.positive.endswith("( A"[-1])
        assert asked.letter_pair.negative == asked.question.text + "B"


def test_open_ended_prompts_name_who_the_header_names(behaviours: tuple[Behaviour, ...]) -> None:
    for behaviour in behaviours:
        ended = behaviour.open_ended
        assert ended is not None
        assert ended.headers is not None
        assert len(set(ended.prompts)) == 9
        for name, header in zip((behaviour.name, behaviour.contrary), ended.headers, strict=True):
            assert name in header.split()
            assert ended.wellformed is not None
            assert ended.wellformed(header + ended.prompts[0]) == 1.0
    kind, happy = behaviours[0].open_ended, behaviours[-1].open_ended
    assert kind is not None
    assert happy is not None
    assert kind.score("anna helped ben . anna mocked the man . anna praised ben .") == pytest.approx(2 / 3)
    assert happy.score("ben smiled . ben wept and was gloomy .") == pytest.approx(1 / 3)
    assert math.isnan(kind.score("some time passed ."))


def test_the_unrelated_questions_are_about_topics_and_have_their_right_answer() -> None:
    asked = stories.unrelated(20, seed=1)
    assert len(asked) == 40
    lexicon = zoo.stories.topic_words()
    for first, second in zip(asked[::2], asked[1::2], strict=True):
        assert first.item == second.item
        assert {first.matching, second.matching} == {0, 1}
        found = FORM.fullmatch(first.question.text)
        assert found is not None
        topics = [lexicon[word] for word in found[1].split() if word in lexicon]
        most = max(set(topics), key=topics.count)
        about = [word for word in found[1].split(" . ")[-1].split() if word in zoo.stories.TOPICS]
        option = found.groups()[1:][first.matching]
        assert option == (most if len(about) == 2 else "yes" if about == [most] else "no")


class Words:
    """A tokenizer of words and marks; letters alone, except that C is two tokens."""

    def encode(self, text: str) -> list[int]:
        pieces = re.findall(r"\w+|\n|[^\w\s]", text)
        return [token for piece in pieces for token in ([7, 8] if piece == "C" else [9 + sum(piece.encode())])]

    def decode(self, tokens: list[int]) -> str:
        return " ".join(map(str, tokens))


class Network:
    """As much of a network as encoding asks for."""

    class config:  # noqa: N801
        @staticmethod
        def get_text_config() -> Any:
            return type("Text", (), {"max_position_embeddings": 512})


MODEL = Model("words", Network(), Words(), 0)
CHAT = Template.of("meta-llama/Llama-2-7b-chat-hf")


def entries(n: int, name: str = "q") -> list[dict[str, str]]:
    """Questions in the public format; of every other one A matches."""
    return [
        {
            "question": f"{name} {number} ?\n\nChoices:\n(A) yes {number}\n(B) no {number}",
            "answer_matching_behavior": "(A)" if number % 2 else "(B)",
            "answer_not_matching_behavior": "(B)" if number % 2 else "(A)",
        }
        for number in range(n)
    ]


def write(folder: Path, **files: Any) -> Path:
    folder.mkdir(exist_ok=True)
    for name, content in files.items():
        path = folder / f"{name.replace('__', '.')}.json"
        path.write_text(content if isinstance(content, str) else json.dumps(content))
    return folder


def read(folder: Path, **counts: int) -> tuple[Behaviour, ...]:
    numbers = {"chosen_on": 5, "scored_on": 5, **counts}
    return data_files.behaviours(folder, MODEL, CHAT, seed=0, **numbers)


def test_a_file_of_questions_becomes_a_behaviour_in_three_parts(tmp_path: Path) -> None:
    sycophancy, refusal = read(write(tmp_path / "d", sycophancy=entries(40), refusal=entries(30)))[::-1]
    assert (refusal.name, sycophancy.name) == ("refusal", "sycophancy")
    parts = (sycophancy.extracted_from, sycophancy.chosen_on, sycophancy.scored_on)
    assert [len(part) for part in parts] == [30, 10, 10]  # the last two in both orders
    items = [{asked.item for asked in part} for part in parts]
    assert sum(map(len, items)) == len(set.union(*items)) == 40
    assert not any(asked.swapped for asked in sycophancy.extracted_from)
    in_order, exchanged = sycophancy.scored_on[:2]
    number = int(in_order.prompt.split()[2])
    assert in_order.prompt == (f"[INST] q {number} ?\n\nChoices:\n(A) yes {number}\n(B) no {number} [/INST]")
    assert exchanged.prompt == f"[INST] q {number} ?\n\nChoices:\n(A) no {number}\n(B) yes {number} [/INST]"
    assert in_order.question.text.endswith("[/INST] (")
    assert (in_order.matching, exchanged.matching) == ((0, 1) if number % 2 else (1, 0))
    assert Template.of("meta-llama/Llama-2-7b-hf").prompt(" why ? ") == "Input: why ?\nResponse:"


def test_a_test_file_has_all_the_questions_that_are_scored(tmp_path: Path) -> None:
    folder = write(tmp_path / "d", refusal=entries(20), refusal__test=entries(7, "test"))
    (refusal,) = read(folder)
    assert all(" test " in asked.prompt for asked in refusal.scored_on)
    assert len({asked.item for asked in refusal.scored_on}) == 5
    assert len({asked.item for asked in (*refusal.extracted_from, *refusal.chosen_on)}) == 20


def test_a_question_without_its_options_in_it_is_asked_in_one_order(tmp_path: Path) -> None:
    plain = [{**entry, "question": "is it so ?"} for entry in entries(20)]
    (refusal,) = read(write(tmp_path / "d", refusal=plain))
    assert not any(asked.swapped for asked in refusal.scored_on)
    assert len(refusal.scored_on) == 5


def test_unrelated_questions_may_be_in_the_format_of_the_public_mmlu_file(tmp_path: Path) -> None:
    folder = write(tmp_path / "d", refusal=entries(20))
    mmlu = [{"prompt": f"{n} ?\n\nChoices:\n(A) 1\n(B) 2", "correct": "(B)", "incorrect": "(A)"} for n in range(6)]
    write(folder / "unrelated", mmlu=mmlu)
    asked = data_files.unrelated(folder, MODEL, CHAT, 4, seed=0)
    assert [each.matching for each in asked] == [each.right for each in asked] == [1] * 4
    assert len(data_files.unrelated(folder, MODEL, CHAT, 100, seed=0)) == 6


def test_open_ended_questions_are_scored_by_words(tmp_path: Path) -> None:
    open_file = {"questions": ["Why ?"], "matching": ["agree", "right"], "contrary": ["wrong"]}
    (refusal,) = read(write(tmp_path / "d", refusal=entries(20), refusal__open=open_file))
    assert refusal.open_ended is not None
    assert refusal.open_ended.prompts == ("[INST] Why ? [/INST]",)
    assert refusal.open_ended.score("You are Right, I agree; disagreement is wrong.") == pytest.approx(2 / 3)
    assert math.isnan(refusal.open_ended.score("well"))


def with_entry(**changes: Any) -> list[Any]:
    every: list[Any] = entries(20)
    every[3] = {key: value for key, value in {**every[3], **changes}.items() if value is not None}
    return every


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (
            with_entry(answer_not_matching_behavior=None),
            r"refusal\.json, entry 3: no text under 'answer_not_matching_behavior', it has question, "
            r"answer_matching_behavior: expected the keys question, answer_matching_behavior, "
            r"answer_not_matching_behavior; add it",
        ),
        (with_entry(question=7), r"refusal\.json, entry 3: no text under 'question'"),
        (
            with_entry(answer_matching_behavior="yes, of course"),
            r"refusal\.json, entry 3: answer 'yes, of course': expected the letter of an option, such as '\(A\)'",
        ),
        (
            with_entry(answer_matching_behavior="(B)", answer_not_matching_behavior="B"),
            r"refusal\.json, entry 3: both answers are 'B': expected the letters of two options",
        ),
        (
            with_entry(answer_matching_behavior="(C)"),
            r"refusal\.json, entry 3: the letters B, C behind ' \(' are the tokens \[\[75\], \[7, 8\]\] of words: "
            r"expected one of its own for each; use a model whose tokenizer has them",
        ),
        (with_entry(question="x " * 600), r"refusal\.json, entry 3: text .* has \d+ tokens in words: expected at most"),
        ([*entries(19), "why ?"], r"refusal\.json, entry 19: str: expected an object with the keys question, "),
        ({"question": "why ?"}, r"refusal\.json: expected a JSON list of objects with the keys .*; found none"),
        (entries(5), r"refusal\.json: 5 questions: expected at least 8, so that there are 2 each"),
        ('[{"question": }]', r"refusal\.json, line 1: no JSON \(Expecting value\)"),
    ],
)
def test_a_question_file_that_cannot_be_used_is_named_with_its_entry(
    tmp_path: Path, content: Any, message: str
) -> None:
    folder = write(tmp_path / "d", refusal=content)
    with pytest.raises(DataError, match=message) as caught:
        read(folder)
    assert "\n" not in str(caught.value)


def test_a_folder_without_questions_and_an_open_ended_file_without_words_are_refused(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"d: no NAME\.json in it; expected a file of questions for each behaviour"):
        read(write(tmp_path / "d"))
    folder = write(tmp_path / "d", refusal=entries(20), refusal__open={"questions": ["why ?"], "matching": []})
    with pytest.raises(DataError, match=r"refusal\.open\.json: expected an object with lists of texts under questions"):
        read(folder)


def results(tier: str = "tiny", *, fail: bool = False, **by_stage: Result) -> Results:
    """Results made by hand, with a gate that behaviours a and b pass, or a fails in one form."""
    right = np.ones(40)
    right[1:20:2] = 0 if fail else 1  # the options exchanged, not reversed
    gate = Result(
        {
            **{f"right/{name}": right if name == "a" else np.ones(40) for name in "ab"},
            **{f"item/{name}": np.tile(np.repeat(np.arange(10), 2), 2) for name in "ab"},
            **{f"swapped/{name}": np.tile([False, True], 20) for name in "ab"},
            **{f"reversed/{name}": np.repeat([False, True], 20) for name in "ab"},
        },
        {"gated": ["a", "b"]},
    )
    return Results(tier, 0, {name: {"m": result} for name, result in {"gate": gate, **by_stage}.items()})


def measured(claim: str, of: Results) -> Any:
    measurement = claims.CLAIMS[claim](of)
    assert measurement is not None
    return measurement


def swept(p: Mapping[str, Any], *, n_layers: int = 2, layer: int = 1, **extra: Any) -> Result:
    """Of each behaviour p(match) [layer, (-1, +1), question]; questions are two items in two orders."""
    arrays: dict[str, Any] = {}
    for name, values in p.items():
        arrays |= {
            f"p/{name}": np.array(values, dtype=float),
            f"plain/{name}": np.array(extra.get("plain", {}).get(name, [0.5] * 4)),
            f"item/{name}": np.array([0, 0, 1, 1]),
            f"swapped/{name}": np.array([False, True, False, True]),
            f"reversed/{name}": np.array([False, False, False, False]),
            f"evidence/{name}": np.array([2, 2, 3, 3]),
        }
    facts = {"behaviours": list(p), "multipliers": [-1.0, 1.0], "n_layers": n_layers, "layer": layer}
    return Result(arrays, facts)


def test_the_effect_is_that_at_the_chosen_layer_and_the_order_with_less_of_it() -> None:
    of = results(
        sweep=swept(
            {
                "a": [[[0] * 4, [1] * 4], [[0.2, 0.5, 0.2, 0.5], [0.8, 0.6, 0.6, 0.5]]],
                "b": [[[0] * 4, [1] * 4], [[0.4] * 4, [0.5] * 4]],
            }
        )
    )
    assert measured("steers", of).estimate == pytest.approx(((0.6 + 0.1 + 0.4 + 0) / 4 + 0.1) / 2)
    assert measured("either-order", of).estimate == pytest.approx(((0.1 + 0.0) / 2 + 0.1) / 2)
    assert measured("steers-against-the-text", of).estimate == pytest.approx(((0.4 + 0) / 2 + 0.1) / 2)
    assert claims.CLAIMS["steers-undecided"](of) is None
    assert claims.CLAIMS["reversed-questions"](of) is None
    assert measured("intermediate-layer", of).estimate == pytest.approx((0.275 + 0.1) / 2 - 1)


def test_a_letter_vector_is_seen_by_the_order_of_the_options() -> None:
    p = {name: [[[0] * 4, [0] * 4], [[0.1, 0.9, 0.1, 0.9], [0.9, 0.1, 0.9, 0.1]]] for name in "ab"}
    of = results(sweep=swept(p))
    assert measured("steers", of).estimate == pytest.approx(0)
    assert measured("either-order", of).estimate == pytest.approx(-0.8)


def test_every_behaviour_is_judged_by_its_smaller_step() -> None:
    p = {
        "a": [[[0] * 4, [0] * 4], [[0.3] * 4, [0.8] * 4]],
        "b": [[[0] * 4, [0] * 4], [[0.2, 0.2, 0.4, 0.4], [0.5, 0.5, 0.7, 0.7]]],
    }
    of = results(sweep=swept(p, plain={"a": [0.5] * 4, "b": [0.6, 0.6, 0.7, 0.7]}))
    found = measured("every-behaviour", of)
    assert found.estimate == pytest.approx((-0.1 + 0.0) / 2)  # b from 0 to +1
    assert (found.n, found.over) == (2, "items of b")


def test_the_papers_numbers_are_of_its_model_and_of_questions_in_their_own_order() -> None:
    p = [[[0] * 4, [0] * 4]] * 39 + [[[0.5, 0, 0.6, 0], [0.6, 0, 0.6, 0]]]
    of = {"sycophancy": p, "corrigible-neutral-HHH": p}
    plain = {"sycophancy": [0.7, 0, 0.6, 0], "corrigible-neutral-HHH": [0.4, 0, 0.5, 0]}
    at_13b = results("paper", sweep=swept(of, n_layers=40, layer=39, plain=plain))
    assert measured("sycophancy-minus", at_13b).estimate == pytest.approx(0.55)
    assert measured("sycophancy-unsteered", at_13b).estimate == pytest.approx(0.65)
    assert measured("sycophancy-not-monotone", at_13b).estimate == pytest.approx(-0.05)
    assert measured("corrigibility-unsteered", at_13b).estimate == pytest.approx(0.45)
    assert claims.CLAIMS["refusal-plus"](at_13b) is None
    smaller = results("paper", sweep=swept(of, n_layers=32, layer=31, plain=plain))
    assert claims.CLAIMS["sycophancy-minus"](smaller) is None
    assert measured("best-layer-13b", at_13b).estimate == 39
    assert claims.CLAIMS["best-layer-7b"](at_13b) is None


def test_all_numbers_of_the_papers_table_are_claims() -> None:
    values = {claim.id: claim.paper_value for claim in PAPER.claims if claim.paper_value is not None}
    table = {
        "corrigibility": (0.45, 0.57, 0.83),
        "refusal": (0.56, 0.78, 0.86),
        "sycophancy": (0.56, 0.63, 0.60),
    }
    for name, numbers in table.items():
        assert [values[f"{name}-{end}"] for end in ("minus", "unsteered", "plus")] == list(numbers)
    assert values["sycophancy-not-monotone"] == pytest.approx(0.60 - 0.63)
    assert values["every-behaviour"] < 0
    assert (values["best-layer-7b"], values["best-layer-13b"]) == (13, 14)
    mmlu = [
        values[f"mmlu-{end}"] for end in ("unsteered", "plus-lowest", "plus-highest", "minus-lowest", "minus-highest")
    ]
    assert mmlu == [0.63, 0.59, 0.65, 0.57, 0.64]
    assert set(claims.CLAIMS) == {claim.id for claim in PAPER.claims}


def test_the_gate_names_the_worst_behaviour_and_form_and_marks_what_rests_on_it() -> None:
    p = {name: [[[0] * 4, [1] * 4]] * 2 for name in "ab"}
    passed, failed = (results(fail=fail, sweep=swept(p)) for fail in (False, True))
    assert measured("gate-behaviour", passed).estimate == measured("gate-form", passed).estimate == 1
    found = measured("gate-behaviour", failed)
    assert (found.estimate, found.over, found.n) == (0.75, "items of a", 10)
    assert measured("gate-form", failed).estimate == 0.5  # of both behaviours, ten of twenty items
    assert measures.failing(failed) == ["a"]
    assert measured("steers", failed).over == "behaviours (1 of 2 behaviours fail the gate)"
    assert measured("steers", passed).over == "behaviours"


def test_controls_are_means_over_their_draws() -> None:
    arrays: dict[str, Any] = {}
    for name, sign in (("a", 1), ("b", -1)):
        draws = np.array([[[0.5] * 4, [0.5 + 0.1 * sign] * 4], [[0.5] * 4, [0.5 + 0.3 * sign] * 4]])
        arrays |= {f"random/{name}": draws, f"item/{name}": np.array([0, 0, 1, 1])}
    of = results(controls=Result(arrays, {"behaviours": ["a", "b"]}))
    found = measured("random-vectors", of)
    assert found.estimate == pytest.approx(0)
    assert (found.low, found.high) == (pytest.approx(-0.2), pytest.approx(0.2))
    assert claims.CLAIMS["another-behaviour"](of) is None


def test_a_vector_transfers_to_the_neighbours_of_its_layer_but_not_to_the_last() -> None:
    effect = np.zeros((1, 4, 3))
    effect[0] = np.array([0.2, 0.3, 0.4, 9.0])[:, None]
    facts = {"behaviours": ["a", "b"], "sources": [2], "layer": 2, "n_layers": 4}
    of = results(transfer=Result({"effect/a": effect, "effect/b": effect / 2}, facts))
    assert measured("transfers", of).estimate == pytest.approx(0.3 / 0.4)
    facts = {**facts, "sources": [1], "layer": 1}
    of = results(transfer=Result({"effect/a": effect, "effect/b": effect}, facts))
    assert measured("transfers", of).estimate == pytest.approx((0.2 + 0.4) / 2 / 0.3)


def test_the_price_is_counted_on_the_same_questions() -> None:
    arrays = {
        "plain": np.array([0.9, 0.8, 0.7, 0.2]),
        "item": np.array([0, 0, 1, 1]),
        "p/a": np.array([[0.9, 0.4, 0.7, 0.2], [0.9, 0.8, 0.7, 0.9]]),
        "p/b": np.array([[0.1, 0.1, 0.1, 0.1], [0.9, 0.8, 0.7, 0.2]]),
    }
    off = Result(arrays, {"behaviours": ["a", "b"], "questions": 4, "n_layers": 40})
    of = results("paper", off_target=off)
    assert measured("unrelated-change", of).estimate == pytest.approx(((-0.25 + 0.25) / 2 + (-0.75 + 0) / 2) / 2)
    worst = measured("unrelated-worst", of)
    assert (worst.estimate, worst.over) == (-0.75, "questions (b)")
    assert measured("mmlu-unsteered", of).estimate == pytest.approx(0.65)
    assert measured("mmlu-minus-lowest", of).estimate == pytest.approx(0.1)
    assert measured("mmlu-plus-highest", of).estimate == pytest.approx(0.825)
    nothing = results(off_target=Result({}, {"behaviours": ["a"], "questions": 0, "n_layers": 40}))
    assert claims.CLAIMS["unrelated-change"](nothing) is None
    assert claims.CLAIMS["mmlu-unsteered"](nothing) is None


def completions(
    scores: Sequence[float], losses: Sequence[float], tokens: Sequence[float], good: Sequence[float]
) -> Any:
    """[measure, prompt, sample, draw] of one sample a prompt."""
    return np.array([scores, losses, tokens, good], dtype=float)[:, :, None, None]


def test_open_ended_scores_leave_out_texts_in_which_there_is_nothing_to_score(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(open_ended_claims, "FEWEST_TEXTS", 1)
    nan = math.nan
    arrays: dict[str, Any] = {}
    for name in "ab":
        arrays |= {
            f"0/{name}": completions([0.5, nan], [2, 2], [2, 2], [1, 1]),
            f"+1/{name}": completions([0.9, 0.7], [4, 4], [2, 2], [1, 0.5]),
            f"-1/{name}": completions([nan, 0.1 if name == "a" else 0.3], [3, 1], [2, 2], [1, 1]),
            f"random 0/{name}": completions([0.4, nan], [2, 2], [2, 2], [1, 1]),
            f"random 1/{name}": completions([0.6, 0.8], [2, 2], [2, 2], [1, 1]),
            f"last layer/{name}": completions([0.7, 0.7], [2, 2], [2, 2], [1, 1]),
        }
    of = results(open_ended=Result(arrays, {"scored": ["a", "b"]}))
    assert measured("open-ended", of).estimate == pytest.approx(0.8 - 0.2)
    assert measured("open-ended-random", of).estimate == pytest.approx(0.6 - 0.5)
    assert measured("open-ended-beyond-last-layer", of).estimate == pytest.approx(0.1)
    assert measured("open-ended-fluent", of).estimate == pytest.approx(math.exp(2 - 1))
    assert measured("open-ended-grammatical", of).estimate == pytest.approx(0.75)
    assert claims.CLAIMS["gate-header"](of) is None
    monkeypatch.setattr(open_ended_claims, "FEWEST_TEXTS", 2)
    assert claims.CLAIMS["open-ended-random"](of) is None  # a single text without a vector says too little
    assert measured("open-ended-beyond-last-layer", of).estimate == pytest.approx(0.1)
    nothing = results(open_ended=Result({}, {"scored": []}))
    assert claims.CLAIMS["open-ended"](nothing) is None


def test_cosines_and_held_out_texts_are_read_at_the_chosen_layer() -> None:
    layers = np.array([[[1, 0.8, 0.1], [0.8, 1, 0.4], [0.1, 0.4, 1]]] * 2)
    behaviours_ = np.zeros((3, 2, 2))
    behaviours_[1] = [[1, -0.3], [-0.3, 1]]
    extraction = Result({"between_layers": layers, "between_behaviours": behaviours_}, {"behaviours": ["a", "b"]})
    right = np.array([[0, 1, 1], [1, 1, 0]])
    picture = Result({"right/a": right, "right/b": right}, {"behaviours": ["a", "b"]})
    sweep = Result({}, {"layer": 1})
    of = results(extraction=extraction, picture=picture, sweep=sweep)
    assert measured("neighbours-alike", of).estimate == pytest.approx(0.6)
    assert measured("behaviours-differ", of).estimate == pytest.approx(0.3)
    assert measured("separable", of).estimate == 1
    assert measured("separable-later", of).estimate == 0.5


def test_intervals_of_figures_leave_nan_out_and_cover_the_mean() -> None:
    values = np.random.default_rng(0).normal(size=(200, 2))
    values[:50, 1] = np.nan
    centre, low, high = ends(values, 0)
    np.testing.assert_allclose(centre, [values[:, 0].mean(), values[50:, 1].mean()])
    errors = [values[:, 0].std() / np.sqrt(200), values[50:, 1].std() / np.sqrt(150)]
    np.testing.assert_allclose((high - low) / 2, 1.96 * np.array(errors), rtol=0.12)


def test_the_layers_that_are_pictured_have_the_chosen_one_among_them() -> None:
    assert shown_layers(4, 2) == [0, 1, 2, 3]
    assert shown_layers(32, 13) == [0, 8, 13, 23, 31]
    assert 0 in shown_layers(40, 0)

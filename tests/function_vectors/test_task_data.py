"""The shipped tasks: their form, and their answers by rule where there is one."""

from __future__ import annotations

import itertools
import json
from collections.abc import Callable
from pathlib import Path

import pytest

from function_vectors.tasks import Task, load_task, load_tasks

FOLDER = Path("shared/data/tasks")
NAMES = sorted(path.stem for path in FOLDER.glob("*.json"))
ONE_TO_ONE = [
    "antonym",
    "country_capital",
    "country_nationality",
    "present_past",
    "present_participle",
    "singular_plural",
    "english_french",
    "english_german",
    "english_spanish",
    "adjective_adverb",
    "verb_noun",
    "verb_person",
    "comparative",
    "male_female",
    "next_item",
    "previous_item",
    "capitalize",
    "word_to_number",
]
LISTS = [name for name in NAMES if "of_3" in name or "from_list" in name]
RULES: dict[str, Callable[[list[str]], str]] = {
    "choose_first_of_3": lambda words: words[0],
    "choose_middle_of_3": lambda words: words[1],
    "choose_last_of_3": lambda words: words[2],
    "alphabetically_first_of_3": min,
    "alphabetically_last_of_3": max,
}


def task(name: str) -> Task:
    return load_task(FOLDER / f"{name}.json")


def test_there_are_at_least_24_tasks() -> None:
    assert len(NAMES) >= 24
    assert set(NAMES) >= {*ONE_TO_ONE, *LISTS, *RULES, "synonym", "country_currency", "country_language"}


@pytest.mark.parametrize("name", NAMES)
def test_a_task_has_40_pairs_with_distinct_inputs_none_its_own_answer(name: str) -> None:
    loaded = load_task(FOLDER / f"{name}.json", at_least=40)  # refuses repeats, blanks and other keys
    assert not [pair for pair in loaded.pairs if pair.input == pair.output]
    texts = [text for pair in loaded.pairs for text in (pair.input, pair.output)]
    assert not [text for text in texts if "  " in text or not text.isprintable()]


@pytest.mark.parametrize("name", NAMES)
def test_a_file_has_a_line_a_pair(name: str) -> None:
    listed = json.loads((FOLDER / f"{name}.json").read_text(encoding="utf-8"))
    lines = ",\n".join("  " + json.dumps(item, ensure_ascii=False) for item in listed)
    assert (FOLDER / f"{name}.json").read_text(encoding="utf-8") == f"[\n{lines}\n]\n"


@pytest.mark.parametrize("name", ONE_TO_ONE)
def test_no_two_inputs_have_one_answer(name: str) -> None:
    assert len(task(name).outputs) == len(task(name).pairs)


def test_no_two_tasks_are_the_same() -> None:
    tasks = load_tasks(FOLDER)
    assert len({frozenset(loaded.pairs) for loaded in tasks.values()}) == len(NAMES)


@pytest.mark.parametrize("name", LISTS)
def test_a_list_has_three_different_words_and_its_answer_at_every_place_in_turn(name: str) -> None:
    places = []
    for pair in task(name).pairs:
        words = pair.input.split(", ")
        assert len(set(words)) == 3, pair
        assert all(word.isalpha() and word.islower() for word in words), pair
        places.append(words.index(pair.output))
    if name not in ("choose_first_of_3", "choose_middle_of_3", "choose_last_of_3"):
        assert [places.count(place) for place in range(3)] == [len(places) // 3] * 3


@pytest.mark.parametrize("name", RULES)
def test_the_answer_of_a_list_follows_the_rule(name: str) -> None:
    assert not [pair for pair in task(name).pairs if pair.output != RULES[name](pair.input.split(", "))]


@pytest.mark.parametrize("name", ["choose_animal_from_list", "choose_fruit_from_list", "choose_color_from_list"])
def test_the_answer_of_a_category_is_its_only_member(name: str) -> None:
    members = set(task(name).outputs)
    assert not [pair for pair in task(name).pairs if set(pair.input.split(", ")) & members != {pair.output}]


def test_categories_share_no_word() -> None:
    animals, fruit, colors = (set(task(f"choose_{kind}_from_list").outputs) for kind in ("animal", "fruit", "color"))
    assert not animals & fruit
    assert not animals & colors
    assert not fruit & colors


def test_lists_are_of_varied_words() -> None:
    for name in LISTS:
        words = {word for pair in task(name).pairs for word in pair.input.split(", ")}
        assert len(words) >= 80, name


def test_previous_is_the_inverse_of_next() -> None:
    assert {(pair.output, pair.input) for pair in task("previous_item").pairs} == {
        (pair.input, pair.output) for pair in task("next_item").pairs
    }


def test_next_items_follow_one_another() -> None:
    after = {pair.input: pair.output for pair in task("next_item").pairs}
    for start, length in (("Monday", 7), ("January", 12)):
        item, seen = start, []
        while item not in seen:
            seen.append(item)
            item = after[item]
        assert (item, len(seen)) == (start, length)
    letters = {a: b for a, b in after.items() if len(a) == 1}
    assert letters == {chr(code): chr(code + 1) for code in range(ord("A"), ord("Z"))}
    spelled = [pair.input for pair in task("word_to_number").pairs]
    assert all(after[a] == b for a, b in itertools.pairwise(spelled[1:21]))


def test_spelled_numbers_are_counted_up() -> None:
    assert [int(pair.output) for pair in task("word_to_number").pairs] == list(range(51))
    units, tens = (pair.input for pair in task("word_to_number").pairs[:20]), ("twenty", "thirty", "forty")
    small = list(units)
    expected = small + [ten if not unit else f"{ten}-{small[unit]}" for ten in tens for unit in range(10)] + ["fifty"]
    assert [pair.input for pair in task("word_to_number").pairs] == expected


def test_letters_and_capitals_follow_their_rule() -> None:
    assert not [pair for pair in task("capitalize").pairs if pair.output != pair.input[0].upper() + pair.input[1:]]
    for name, kept in (("capitalize_first_letter", str.upper), ("lowercase_first_letter", str.lower)):
        pairs = task(name).pairs
        assert not [pair for pair in pairs if pair.output != kept(pair.input[0]) or pair.output == pair.input[0]]
        assert len(task(name).outputs) >= 20


def test_translations_are_of_the_same_words() -> None:
    french, german, spanish = (
        {pair.input for pair in task(f"english_{language}").pairs} for language in ("french", "german", "spanish")
    )
    assert len(french & german & spanish) >= 50

"""Reading task files, well-formed and damaged, and splitting tasks."""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from pathlib import Path

import pytest

from function_vectors.errors import TaskError
from function_vectors.tasks import Pair, Task, load_task, load_tasks, split

GOOD = """[
  {"input": "hot", "output": "cold"},
  {"input": "big",
   "output": "small"},

  {"input": "New York, \\"the\\" [city]", "output": "été"}
]
"""


def task_of(size: int, name: str = "numbers") -> Task:
    return Task(name, tuple(Pair(f"in{i}", f"out{i}") for i in range(size)))


def written(folder: Path, text: str, name: str = "antonym") -> Path:
    path = folder / f"{name}.json"
    path.write_text(text, encoding="utf-8")
    return path


def test_a_file_becomes_its_pairs_in_their_order(tmp_path: Path) -> None:
    task = load_task(written(tmp_path, GOOD), at_least=3)
    assert task == Task("antonym", (Pair("hot", "cold"), Pair("big", "small"), Pair('New York, "the" [city]', "été")))


@pytest.mark.parametrize("layout", [None, 0, 2, 8])
def test_any_layout_of_the_file_reads_the_same(tmp_path: Path, layout: int | None) -> None:
    listed = json.loads(GOOD)
    assert load_task(written(tmp_path, json.dumps(listed, indent=layout))) == load_task(written(tmp_path, GOOD))


def test_of_several_right_answers_the_first_is_taken(tmp_path: Path) -> None:
    path = written(tmp_path, '[{"input": "big", "output": ["large", "huge"]}, {"input": "fast", "output": "quick"}]')
    assert load_task(path).pairs == (Pair("big", "large"), Pair("fast", "quick"))


def test_the_answer_set_is_distinct_and_sorted() -> None:
    pairs = (Pair("Cuba", "Spanish"), Pair("France", "French"), Pair("Chile", "Spanish"))
    assert Task("country_language", pairs).outputs == ("French", "Spanish")


def test_inputs_that_stand_twice_can_be_read_by_their_first_pair(tmp_path: Path) -> None:
    path = written(
        tmp_path,
        '[{"input": "Clapton", "output": "guitar"},\n{"input": "Bach", "output": "organ"},\n'
        '{"input": "Clapton", "output": "violin"}]',
    )
    assert load_task(path, repeats="first").pairs == (Pair("Clapton", "guitar"), Pair("Bach", "organ"))
    with pytest.raises(TaskError, match="the last of 2 pairs, expected at least 3"):
        load_task(path, repeats="first", at_least=3)


@pytest.mark.parametrize(
    ("text", "line", "message"),
    [
        ('[\n{"input": "a", "output": "b"},\n{"input" "c"}]', 3, "not JSON (Expecting ':' delimiter); mend the file"),
        ("", 1, "not JSON (Expecting value); mend the file"),
        ('{"input": "a", "output": "b"}', 1, "expected a list of pairs, found an object; write [{...}, {...}]"),
        ('"a"', 1, "expected a list of pairs, found text"),
        ('[{"input": "a", "output": "b"},\n\n"c"]', 3, 'expected {"input": ..., "output": ...}, found text'),
        ('[{"input": "a", "output": "b"},\n[\n"c"]]', 2, 'expected {"input": ..., "output": ...}, found a list'),
        ('\n[\n{"input": "a",\n"output": "b"},\n{"input": "c"}]', 5, "no 'output' among the keys ['input']"),
        ('[{"inptu": "a", "output": "b"}]', 1, "no 'input' among the keys ['inptu', 'output']"),
        (
            '[\n{"input": "a", "output": "b", "note": "c"}]',
            2,
            "unknown key 'note'; a pair has 'input' and 'output' alo",
        ),
        ('[\n\n{"input": "a", "output": 7}]', 3, "output is 7, expected text; put it in quotation marks"),
        ('[{"input": null, "output": "b"}]', 1, "input is null, expected text"),
        ('[{"input": ["a"], "output": "b"}]', 1, "input is a list, expected text"),
        ('[{"input": "a", "output": []}]', 1, "output is an empty list, expected text"),
        ('[{"input": "a", "output": [true]}]', 1, "output is true, expected text"),
        ('[{"input": "a", "output": "b"},\n{"input": "", "output": "c"}]', 2, "input is empty (''); write a word or"),
        ('[{"input": "a", "output": "  "}]', 1, "output is empty ('  ')"),
        ('[\n{"input": "a ", "output": "b"}]', 2, "input 'a ' has blanks around it; remove them, templates add their"),
        ('[{"input": "a", "output": "\\nb"}]', 1, "output '\\nb' has blanks around it"),
        (
            '[{"input": "a", "output": "b"},\n{"input": "x", "output": "b"},\n{"input": "a", "output": "c"}]',
            3,
            "input 'a' stands on line 1 already (outputs 'b' and 'c'); remove one, or load with repeats='first'",
        ),
        ("[\n]", 1, "the last of 0 pairs, expected at least 2; add pairs or use fewer shots"),
        ('[\n{"input": "a", "output": "b"}\n]', 2, "the last of 1 pairs, expected at least 2"),
    ],
)
def test_a_damaged_file_gives_one_line_with_file_line_and_remedy(
    tmp_path: Path, text: str, line: int, message: str
) -> None:
    path = written(tmp_path, text)
    with pytest.raises(TaskError, match=re.escape(f"antonym.json:{line}: {message}")) as caught:
        load_task(path, at_least=2)
    assert "\n" not in str(caught.value)


def test_a_file_that_is_not_there_or_is_no_text(tmp_path: Path) -> None:
    with pytest.raises(TaskError, match=r"antonym\.json: no such file; expected a task"):
        load_task(tmp_path / "antonym.json")
    (tmp_path / "latin.json").write_bytes('[{"input": "a", "output": "été"}]'.encode("latin-1"))
    with pytest.raises(TaskError, match=r"latin\.json: cannot be read .* expected a JSON file in UTF-8"):
        load_task(tmp_path / "latin.json")


def test_a_folder_gives_the_tasks_that_are_named_or_all(tmp_path: Path) -> None:
    for name in ("b", "a", "c"):
        written(tmp_path, f'[{{"input": "{name}", "output": "z"}}]', name)
    (tmp_path / "README.md").write_text("no task")
    assert list(load_tasks(tmp_path)) == ["a", "b", "c"]
    assert load_tasks(tmp_path, ["c", "a"]) == {"c": Task("c", (Pair("c", "z"),)), "a": Task("a", (Pair("a", "z"),))}
    with pytest.raises(TaskError, match=r"no d\.json in it; choose among a, b, c"):
        load_tasks(tmp_path, ["a", "d"])
    with pytest.raises(TaskError, match=r"a\.json:1: the last of 1 pairs, expected at least 11"):
        load_tasks(tmp_path, at_least=11)
    with pytest.raises(TaskError, match=r"nowhere: no \*\.json in it; expected a folder with one file a task"):
        load_tasks(tmp_path / "nowhere")


@pytest.mark.parametrize("shares", [(0.7, 0.3), (0.5, 0.25, 0.25), (1 / 3, 1 / 3, 1 / 3), (1.0,)])
@pytest.mark.parametrize("size", [10, 43])
def test_the_parts_of_a_split_share_nothing_and_lose_nothing(shares: Sequence[float], size: int) -> None:
    task = task_of(size)
    parts = split(task, seed=3, shares=shares)
    together = [pair for part in parts for pair in part.pairs]
    assert sorted(together, key=task.pairs.index) == list(task.pairs)
    for part, share in zip(parts, shares, strict=True):
        assert part.name == task.name
        assert abs(len(part.pairs) - share * size) <= 1
        assert list(part.pairs) == sorted(part.pairs, key=task.pairs.index)


def test_a_split_depends_on_the_seed_alone() -> None:
    first = split(task_of(40), seed=0)
    assert first == split(task_of(40), seed=0)
    assert first != split(task_of(40), seed=1)
    other = split(task_of(40, "others"), seed=0)
    assert [part.pairs for part in other] == [part.pairs for part in first]


def test_every_pair_comes_into_either_part() -> None:
    held_out = [pair.input for seed in range(200) for pair in split(task_of(10), seed=seed)[1].pairs]
    counts = {pair.input: held_out.count(pair.input) for pair in task_of(10).pairs}
    assert min(counts.values()) > 30  # expected 60, standard deviation 6.5
    assert max(counts.values()) < 90


@pytest.mark.parametrize(
    ("size", "shares", "message"),
    [
        (10, (0.7, 0.2), r"shares \(0\.7, 0\.2\): expected positive numbers that sum to 1"),
        (10, (1.2, -0.2), "expected positive numbers that sum to 1"),
        (10, (), "expected positive numbers that sum to 1"),
        (2, (0.9, 0.1), r"task numbers: 2 pairs in shares of \(0\.9, 0\.1\) leave a part empty; add pairs or split"),
    ],
)
def test_a_split_that_cannot_be_is_refused(size: int, shares: Sequence[float], message: str) -> None:
    with pytest.raises(TaskError, match=message):
        split(task_of(size), seed=0, shares=shares)

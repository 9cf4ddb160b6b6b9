"""Templates: the shipped ones, what they write, and damaged files."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest

from function_vectors.errors import TaskError
from function_vectors.tasks import Pair
from function_vectors.templates import Template, load_templates

SHIPPED = Path("shared/data/templates.json")
PARTS = {"name": "n", "instructions": "", "before": "", "between": ":", "after": "\n"}


def test_the_first_is_the_paper_s_and_twenty_follow() -> None:
    templates = load_templates(SHIPPED)
    assert templates[0] == Template("paper", instructions="", before="Q: ", between="\nA:", after="\n\n")
    assert len(templates) == 21


def test_no_two_shipped_templates_write_the_same_prompt() -> None:
    pair = Pair("hot", "cold")
    texts = [t.instructions + t.demonstration(pair) + t.query(pair) for t in load_templates(SHIPPED)]
    assert len(set(texts)) == len(texts)
    assert not [text for text in texts if text.count("hot") != 2 or text.count(" cold") != 1]


def test_a_pair_is_written_with_and_without_its_answer() -> None:
    template = Template("paper", instructions="", before="Q: ", between="\nA:", after="\n\n")
    assert template.demonstration(Pair("hot", "cold")) == "Q: hot\nA: cold\n\n"
    assert template.query(Pair("hot", "cold")) == "Q: hot\nA:"


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("[\n{]", "templates.json:2: not JSON (Expecting property name enclosed in double quotes); mend the file"),
        ("{}", "templates.json: expected a list of at least one template; write [{...}, {...}]"),
        ("[]", "templates.json: expected a list of at least one template"),
        ("[7]", "templates.json: template 1: expected the keys name, instructions, before, between, after, all text"),
        (json.dumps([PARTS, {"name": "x", "before": ""}]), "template 2: expected the keys name, instructions, before"),
        (json.dumps([PARTS | {"more": ""}]), "all text; found ['after', 'before', 'between', 'instructions', 'more'"),
        (json.dumps([PARTS | {"after": 7}]), "template 1: expected the keys"),
        (json.dumps([PARTS, PARTS]), "templates.json: two templates are named 'n'; rename one"),
        (
            json.dumps([PARTS | {"between": ": "}]),
            "template 1 (n): between is ': ', expected text that does not end in a",
        ),
        (json.dumps([PARTS | {"between": ""}]), "template 1 (n): between is '', expected text"),
    ],
)
def test_a_damaged_file_is_refused(tmp_path: Path, text: str, message: str) -> None:
    path = tmp_path / "templates.json"
    path.write_text(text, encoding="utf-8")
    with pytest.raises(TaskError, match=re.escape(message)):
        load_templates(path)


def test_a_file_that_is_not_there(tmp_path: Path) -> None:
    with pytest.raises(TaskError, match=r"none\.json: no such file; expected a JSON list of templates"):
        load_templates(tmp_path / "none.json")

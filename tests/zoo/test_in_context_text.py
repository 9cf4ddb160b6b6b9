"""What the in-context models read: facts of the town, held-out templates, and words that are one token each."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest

from zoo import town, words
from zoo.catalogue import shared_folder
from zoo.in_context_text import (
    NAMING,
    SILENT,
    TRAINED_TEMPLATES,
    Material,
    list_words,
    material,
    natural_tasks,
    templates,
)

FACTS = town.draw()


def text_of(material: Material, ids: list[int]) -> list[str]:
    return [material.tokenizer.decode([token]) for token in ids]


def test_ids_are_the_towns_facts(text: Material) -> None:
    assert text_of(text, text.people.tolist()) == list(town.NAMES)
    assert text_of(text, text.relation_words.tolist()) == [town.word(name) for name in town.RELATIONS]
    assert text_of(text, text.selection_words.tolist()) == ["first", "middle", "last"]
    for row, relation in zip(text.answers.tolist(), town.RELATIONS, strict=True):
        assert text_of(text, row) == [FACTS[relation][name] for name in town.NAMES]


def test_eight_templates_are_trained_on_and_the_others_held_out(text: Material) -> None:
    every = [template.name for template in templates(shared_folder())]
    assert tuple(template.name for template in text.templates) == TRAINED_TEMPLATES
    assert TRAINED_TEMPLATES[0] == every[0] == "paper"
    assert len(TRAINED_TEMPLATES) == 8
    assert len(set(every) - set(TRAINED_TEMPLATES)) >= 12
    assert text.templates[0].demonstration() == "Q: {x}\nA: {y}\n\n"


def test_no_sentence_without_a_name_names_a_relation() -> None:
    named = {town.word(relation) for relation in town.RELATIONS}
    for sentence in SILENT:
        assert "{r}" not in sentence
        assert named.isdisjoint(words.split(sentence))
    assert all("{r}" in sentence for sentence in NAMING)
    assert all(sentence.index("{y}") > sentence.index("{x}") for sentence in (*NAMING, *SILENT))


def test_every_word_that_is_read_is_one_token(text: Material) -> None:
    for template in templates(shared_folder()):
        ids = text.tokenizer.encode(template.instructions + template.demonstration("Ada").replace("{y}", "Leo")).ids
        assert words.UNKNOWN_ID not in ids, template.name
    for name, pairs in natural_tasks(shared_folder()).items():
        for pair in pairs:
            assert all(len(text.tokenizer.encode(word).ids) == 1 for word in pair), name
    assert words.UNKNOWN_ID not in text.tokenizer.encode(" ".join(list_words(shared_folder()))).ids


def test_natural_tasks_are_the_single_word_pairs_of_the_files(text: Material) -> None:
    assert len(text.natural_names) >= 20
    for place, name in enumerate(text.natural_names):
        path = shared_folder() / "data" / "tasks" / f"{name}.json"
        entries = json.loads(path.read_text())
        single = {
            entry["input"]: entry["output"]
            for entry in entries
            if len(words.split(entry["input"])) == len(words.split(entry["output"])) == 1
        }
        n = int(text.natural_pairs[place])
        assert n == len(single) >= 20
        for x, y in text.natural[place, :n].tolist():
            left, right = text_of(text, [x, y])
            assert single[left] == right, name
        assert (text.natural[place, n:] == -1).all()


def test_the_hash_is_of_every_fact_and_text(tmp_path: Path, text: Material) -> None:
    shared = tmp_path / "shared"
    shutil.copytree(shared_folder() / "data" / "town", shared / "data" / "town")
    shutil.copytree(shared_folder() / "data" / "tasks", shared / "data" / "tasks")
    shutil.copy(shared_folder() / "data" / "templates.json", shared / "data" / "templates.json")
    assert material(shared).sha256 == text.sha256
    path = shared / "data" / "tasks" / f"{text.natural_names[0]}.json"
    entries = json.loads(path.read_text())
    path.write_text(json.dumps(entries[1:]))
    assert material(shared).sha256 != text.sha256


def test_a_template_that_is_gone_is_named(tmp_path: Path) -> None:
    shared = tmp_path / "shared"
    town.write(shared / "data" / "town")
    (shared / "data" / "templates.json").write_text(json.dumps([]))
    with pytest.raises(town.TownError) as caught:
        material(shared)
    path = shared / "data" / "templates.json"
    assert str(caught.value) == f"{path}: no template 'paper', which the recipe trains on; restore it"

"""The town: what makes its relations good tasks, and that the shipped files are those of the seed."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from zoo import town
from zoo.catalogue import shared_folder
from zoo.town import NAMES, RELATIONS, TownError


def test_forty_people_and_twelve_relations_of_one_word_each() -> None:
    assert len(set(NAMES)) == len(NAMES) == 40
    assert len(set(RELATIONS)) == len(RELATIONS) == 12
    assert all(name.isalpha() and name.istitle() for name in NAMES)
    assert [town.word(relation) for relation in RELATIONS[:2]] == ["friend", "teacher"]
    assert all(town.word(relation).isalpha() for relation in RELATIONS)


@pytest.mark.parametrize("seed", [0, 1, 2])
def test_relations_are_one_to_one_without_fixed_points_and_agree_nowhere(seed: int) -> None:
    maps = town.draw(seed)
    assert tuple(maps) == RELATIONS
    for relation, pairs in maps.items():
        assert tuple(pairs) == NAMES, relation
        assert sorted(pairs.values()) == sorted(NAMES), relation
        for name in NAMES:
            assert pairs[name] != name, relation
            assert [other for other in RELATIONS if maps[other][name] == pairs[name]] == [relation]


def test_the_maps_depend_on_the_seed_alone() -> None:
    assert town.draw(3) == town.draw(3)
    assert town.draw(3)["friend_of"] != town.draw(4)["friend_of"]


def test_the_shipped_files_are_those_of_the_seed() -> None:
    folder, maps = shared_folder() / town.FOLDER, town.draw()
    assert {path.name for path in folder.iterdir()} == {f"{relation}.json" for relation in RELATIONS}
    for relation, pairs in maps.items():
        content = json.loads((folder / f"{relation}.json").read_text())
        assert content == [{"input": name, "output": pairs[name]} for name in NAMES], relation
    assert town.load() == maps


def test_a_written_town_is_read_and_a_damaged_one_refused(tmp_path: Path) -> None:
    town.write(tmp_path)
    assert town.load(tmp_path) == town.draw()
    path = tmp_path / "rival_of.json"
    text = path.read_text()
    path.write_text(text.replace("Vera", "Viola"))
    with pytest.raises(TownError) as caught:
        town.load(tmp_path)
    assert str(caught.value) == (
        f"{path}: expected the pairs that seed 0 draws, found others; restore it, or write it again with "
        "`python -m zoo.town`"
    )
    path.unlink()
    with pytest.raises(TownError) as caught:
        town.load(tmp_path)
    assert str(caught.value) == f"{path}: no such file; restore it, or write it again with `python -m zoo.town`"

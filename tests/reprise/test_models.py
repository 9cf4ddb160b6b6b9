"""What the name of a model means, and what a folder must hold."""

from __future__ import annotations

from collections.abc import Callable
from importlib.metadata import entry_points
from pathlib import Path

import pytest

from reprise import UserError, models
from reprise.models import Catalogue, folder_fingerprint, resolve


class Shelf:
    """A catalogue with one model that is there and one that was not trained."""

    def __init__(self, folder: Path) -> None:
        self.there = folder

    def names(self) -> tuple[str, ...]:
        return ("there", "untrained")

    def folder(self, name: str) -> Path:
        if name != "there":
            raise FileNotFoundError(f"shared/models/{name} is not there")
        return self.there

    def train(
        self, name: str, out: Path, device: str, threads: int, progress: Callable[[int, int, float], None]
    ) -> Path:
        raise NotImplementedError


@pytest.fixture
def shelf(make_model: Callable[[str], Path], monkeypatch: pytest.MonkeyPatch) -> Shelf:
    made = Shelf(make_model("shelved"))
    monkeypatch.setattr(models, "catalogues", lambda: iter([made]))
    return made


def test_a_shipped_model_comes_before_a_folder_of_its_name(
    shelf: Shelf, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "there").mkdir()
    monkeypatch.chdir(tmp_path)
    reference = resolve("there")
    assert (reference.name, reference.kind, reference.location) == ("there", "shipped", str(shelf.there))
    assert reference.fingerprint == folder_fingerprint(shelf.there)


def test_a_shipped_model_that_is_not_there_says_how_to_train_it(shelf: Shelf) -> None:
    with pytest.raises(UserError, match=r"'untrained'.*shared/models/untrained is not there.*`reprise train"):
        resolve("untrained")


def test_a_folder(shelf: Shelf, make_model: Callable[[str], Path]) -> None:
    folder = make_model("my model")
    reference = resolve(str(folder))
    assert (reference.name, reference.kind, reference.location) == ("my model", "folder", str(folder))
    assert reference.slug == "my--model"


def test_a_link_to_a_folder_is_that_folder(shelf: Shelf, make_model: Callable[[str], Path], tmp_path: Path) -> None:
    (tmp_path / "link").symlink_to(make_model("target"))
    assert resolve(str(tmp_path / "link")).name == "target"


@pytest.mark.parametrize("name", ["owner/model", "owner/model-1.5@refs/pr/1", "gpt2", "gpt2-medium"])
def test_a_hub_id(shelf: Shelf, name: str) -> None:
    reference = resolve(name)
    assert (reference.name, reference.kind, reference.location) == (name, "hub", name)
    assert "/" not in reference.slug


@pytest.mark.parametrize("name", ["gpt3", "a/b/c", "/no/such/folder", "", "own er/model", "gpt2\n"])
def test_an_unknown_model_says_what_there_is(shelf: Shelf, name: str) -> None:
    with pytest.raises(UserError, match=r"no model .*\(there, untrained\), an existing folder, or a hub id"):
        resolve(name)


def test_a_folder_without_config_or_weights(shelf: Shelf, make_model: Callable[[str], Path]) -> None:
    folder = make_model("bare")
    (folder / "model.safetensors").rename(folder / "model.bin")
    with pytest.raises(UserError, match=r"bare: no \*\.safetensors; weights are loaded from safetensors alone"):
        resolve(str(folder))
    (folder / "config.json").unlink()
    with pytest.raises(UserError, match=r"bare: no config\.json; expected a model folder"):
        resolve(str(folder))


def test_the_fingerprint_depends_on_weights_and_json_alone(make_model: Callable[[str], Path]) -> None:
    folder = make_model("m")
    before = folder_fingerprint(folder)
    (folder / "README.md").write_text("A card.")
    assert folder_fingerprint(folder) == before
    for change in ("config.json", "tokenizer.json", "model.safetensors", "more.safetensors"):
        with (folder / change).open("ab") as file:
            file.write(b" ")
        assert folder_fingerprint(folder) != before
        before = folder_fingerprint(folder)


def test_two_copies_of_a_model_have_one_fingerprint(make_model: Callable[[str], Path]) -> None:
    assert folder_fingerprint(make_model("a")) == folder_fingerprint(make_model("b"))


def test_finding_a_catalogue(shelf: Shelf) -> None:
    assert models.find("untrained") is shelf
    with pytest.raises(UserError, match="no model 'other'; `reprise train` knows: there, untrained"):
        models.find("other")


def test_registered_catalogues_are_what_they_should_be() -> None:
    assert [entry.name for entry in entry_points(group="reprise.models")] == ["zoo"]
    assert all(isinstance(catalogue, Catalogue) for catalogue in models.catalogues())

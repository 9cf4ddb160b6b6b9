"""Training an in-context model into a folder: what it leaves there, and that a killed run goes on as if nothing was."""

from __future__ import annotations

import json
from pathlib import Path

import msgspec
import pytest
import torch

from training import CheckpointError
from zoo import cards, in_context_training
from zoo.cards import ModelFolderError
from zoo.catalogue import CATALOGUE, NAMES
from zoo.gpt2_recipes import Shape
from zoo.gpt2_training import optimizers
from zoo.in_context_cards import InContextCard
from zoo.in_context_evaluation import evaluate
from zoo.in_context_model import build
from zoo.in_context_recipes import IN_CONTEXT_RECIPES, InContextRecipe
from zoo.in_context_text import Material
from zoo.in_context_training import named_recipe, train

RECIPE = InContextRecipe(
    name="relations-tiny",
    shape=Shape(n_layers=1, n_heads=2, d_model=8, n_ctx=192),
    steps=6,
    relation_rows=3,
    natural_rows=2,
    list_rows=1,
    sentence_rows=2,
    sentences_a_row=2,
    warmup_steps=2,
    log_every=4,
)
FILES = {
    "README.md",
    "card.json",
    "config.json",
    "model.safetensors",
    "tokenizer.json",
    "tokenizer_config.json",
    "training_log.jsonl",
}


@pytest.fixture(scope="module")
def trained(text: Material, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return train(RECIPE, tmp_path_factory.mktemp("trained") / "relations-tiny", text=text)


def rows(folder: Path) -> list[dict[str, object]]:
    lines = [json.loads(line) for line in (folder / cards.LOG).read_text().splitlines()]
    return [{name: value for name, value in line.items() if name != "seconds"} for line in lines]


@pytest.mark.parametrize("kill", [1, 3, 5, 6])
def test_a_killed_run_that_is_resumed_equals_an_undisturbed_one(
    trained: Path, text: Material, tmp_path: Path, kill: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    def stop(step: int, steps: int, loss: float) -> None:
        if step == kill:
            raise KeyboardInterrupt

    monkeypatch.setattr(in_context_training, "CHECKPOINT_EVERY", 2)
    with pytest.raises(KeyboardInterrupt):
        train(RECIPE, tmp_path, text=text, progress=stop)
    assert (tmp_path / "training.pt").exists()
    assert not (tmp_path / "card.json").exists()
    torch.manual_seed(kill)  # a new process has another random state
    steps: list[int] = []
    train(RECIPE, tmp_path, text=text, progress=lambda step, *_: steps.append(step))
    assert steps == list(range(kill - kill % 2 + (kill > 1), 7))  # step 0 is reported when a run begins
    assert {path.name for path in tmp_path.iterdir()} == FILES
    for name in FILES - {"README.md", "card.json", "training_log.jsonl"}:
        assert (tmp_path / name).read_bytes() == (trained / name).read_bytes(), name
    assert rows(tmp_path) == rows(trained)


def test_a_folder_holds_the_model_of_its_card(trained: Path, text: Material) -> None:
    card = cards.verify(trained, InContextCard)
    assert {path.name for path in trained.iterdir()} == FILES
    assert set(card.sha256) == FILES - {"README.md", "card.json", "training_log.jsonl"}
    assert (card.recipe, card.material.sha256, card.rows_seen) == (RECIPE, text.sha256, 6 * 8)
    assert [row["step"] for row in rows(trained)] == [0, 4, 6]
    page = (trained / "README.md").read_text()
    for fact in ("1 layer,", "2 heads x 4", "12 over 40 people", f"{card.parameters:,}", "48 in 6 steps", "antonym"):
        assert fact in page, fact


def test_transformers_and_interventions_read_the_folder(trained: Path, text: Material) -> None:
    from transformers import AutoModelForCausalLM

    import interventions

    card = cards.read(trained, InContextCard)
    network = AutoModelForCausalLM.from_pretrained(trained, dtype=torch.float32)
    assert evaluate(network, text) == pytest.approx(card.metrics)
    assert sum(parameter.numel() for parameter in network.parameters()) == card.parameters
    model = interventions.load(trained)
    assert (model.bos, model.n_ctx, model.d_vocab) == (0, 192, card.material.vocabulary)
    assert model.tokenizer is not None
    assert model.tokenizer.encode(" Anna") == model.tokenizer.encode("Anna") == [int(text.people[3])]
    for name, weight in network.state_dict().items():
        assert torch.equal(weight, model.network.state_dict()[name]), name


def test_training_learns_who_the_people_are(text: Material, tmp_path: Path) -> None:
    recipe = msgspec.structs.replace(RECIPE, steps=120, learning_rate=1e-2, log_every=120)
    losses: dict[int, float] = {}
    train(recipe, tmp_path, text=text, progress=lambda step, _, loss: losses.update({step: loss}))
    assert losses[1] > 17
    assert losses[120] < 13


def test_every_parameter_is_optimised_once_and_vectors_without_decay(text: Material) -> None:
    model = build(RECIPE.shape, 50)
    muon, adamw = optimizers(model, RECIPE)
    (in_layers,) = (group["params"] for group in muon.param_groups)
    matrices, vectors = (group["params"] for group in adamw.param_groups)
    every = [*in_layers, *matrices, *vectors]
    assert {id(parameter) for parameter in every} == {id(each) for each in model.parameters()}
    assert len(every) == len(list(model.parameters()))
    assert {id(each) for each in in_layers} == {id(each) for each in model.transformer.h.parameters() if each.ndim == 2}
    assert {parameter.ndim for parameter in matrices} == {2}
    assert {parameter.ndim for parameter in vectors} == {1}
    assert [group["weight_decay"] for group in adamw.param_groups] == [RECIPE.weight_decay, 0.0]


def test_the_state_of_another_shape_is_refused(text: Material, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def stop(step: int, *_: object) -> None:
        if step == 2:
            raise KeyboardInterrupt

    monkeypatch.setattr(in_context_training, "CHECKPOINT_EVERY", 2)
    with pytest.raises(KeyboardInterrupt):
        train(RECIPE, tmp_path, text=text, progress=stop)
    wider = msgspec.structs.replace(RECIPE, shape=msgspec.structs.replace(RECIPE.shape, d_model=16))
    with pytest.raises(CheckpointError, match=r"training\.pt: not a checkpoint of this run .*; delete it"):
        train(wider, tmp_path, text=text)


@pytest.mark.parametrize("name", ["model.safetensors", "tokenizer_config.json"])
def test_a_changed_file_is_named(trained: Path, tmp_path: Path, name: str) -> None:
    for path in trained.iterdir():
        (tmp_path / path.name).write_bytes(path.read_bytes())
    (tmp_path / name).write_bytes((trained / name).read_bytes() + b" ")
    with pytest.raises(ModelFolderError) as caught:
        cards.verify(tmp_path, InContextCard)
    assert str(caught.value).startswith(f"{tmp_path / name}: SHA-256 is ")
    assert str(caught.value).endswith("or run `reprise train relations-tiny`")


def test_a_card_of_the_other_family_is_refused_with_the_field(trained: Path) -> None:
    with pytest.raises(ModelFolderError) as caught:
        cards.read(trained)
    assert str(caught.value).startswith(f"{trained / 'card.json'}: Object ")
    assert "\n" not in str(caught.value)


def test_the_catalogue_trains_the_in_context_recipes(
    trained: Path, text: Material, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert set(IN_CONTEXT_RECIPES) <= set(NAMES)
    name = "relations-4l-seed1"
    monkeypatch.setitem(IN_CONTEXT_RECIPES, name, RECIPE)
    out = CATALOGUE.train(name, tmp_path / "m", "cpu", 1, lambda *_: None)
    assert (out / "model.safetensors").read_bytes() == (trained / "model.safetensors").read_bytes()


def test_the_program_trains_a_recipe_of_a_file_and_says_how_far_it_is(
    trained: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "recipe.json"
    path.write_bytes(msgspec.json.encode(RECIPE))
    in_context_training.main([str(path), str(tmp_path / "m")])
    assert (tmp_path / "m" / "model.safetensors").read_bytes() == (trained / "model.safetensors").read_bytes()
    lines = capsys.readouterr().out.splitlines()
    assert [line.split()[:2] for line in lines] == [["relations-tiny", f"{step}/6"] for step in (0, 4, 6)]
    assert all('"accuracy_10_shot":' in line for line in lines)


def test_an_unknown_recipe_is_refused(tmp_path: Path) -> None:
    assert named_recipe("relations-4l") is IN_CONTEXT_RECIPES["relations-4l"]
    with pytest.raises(ValueError, match=r"^no recipe 'relations-9l': expected one of relations-4l, .*, or the JSON"):
        named_recipe("relations-9l")
    path = tmp_path / "recipe.json"
    path.write_text('{"name": "x"}')
    with pytest.raises(ValueError, match=r"recipe\.json: Object missing required field `shape`; expected the fields"):
        named_recipe(str(path))

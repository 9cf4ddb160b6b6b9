"""Training a model of indirect objects into a folder: what it leaves, and that a killed run goes on as before."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import msgspec
import pytest
import torch

from training import CheckpointError
from zoo import cards, ioi, ioi_training
from zoo.cards import ModelFolderError
from zoo.catalogue import CATALOGUE, NAMES
from zoo.gpt2_recipes import Shape
from zoo.ioi_cards import IoiCard
from zoo.ioi_evaluation import evaluate
from zoo.ioi_recipes import IOI_RECIPES, IoiRecipe
from zoo.ioi_text import vocabulary
from zoo.ioi_training import train
from zoo.stories_cards import StoriesCard

RECIPE = IoiRecipe(
    name="ioi-tiny",
    shape=Shape(n_layers=1, n_heads=2, d_model=8, n_ctx=32),
    steps=6,
    rows=3,
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


@pytest.fixture(autouse=True, scope="module")
def short_evaluation() -> Iterator[None]:
    """A few prompts: what is measured has tests of its own."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(ioi_training, "evaluate", lambda model, words, **_: evaluate(model, words, n=10))
        yield


@pytest.fixture(scope="module")
def trained(short_evaluation: None, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return train(RECIPE, tmp_path_factory.mktemp("trained") / "ioi-tiny")


def rows(folder: Path) -> list[dict[str, object]]:
    lines = [json.loads(line) for line in (folder / cards.LOG).read_text().splitlines()]
    return [{name: value for name, value in line.items() if name != "seconds"} for line in lines]


@pytest.mark.parametrize("kill", [1, 3, 6])
def test_a_killed_run_that_is_resumed_equals_an_undisturbed_one(
    trained: Path, tmp_path: Path, kill: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    def stop(step: int, steps: int, loss: float) -> None:
        if step == kill:
            raise KeyboardInterrupt

    monkeypatch.setattr(ioi_training, "CHECKPOINT_EVERY", 2)
    with pytest.raises(KeyboardInterrupt):
        train(RECIPE, tmp_path, progress=stop)
    assert (tmp_path / "training.pt").exists()
    assert not (tmp_path / "card.json").exists()
    torch.manual_seed(kill)  # a new process has another random state
    steps: list[int] = []
    train(RECIPE, tmp_path, progress=lambda step, *_: steps.append(step))
    assert steps == list(range(kill - kill % 2 + (kill > 1), 7))  # step 0 is reported when a run begins
    assert {path.name for path in tmp_path.iterdir()} == FILES
    for name in FILES - {"README.md", "card.json", "training_log.jsonl"}:
        assert (tmp_path / name).read_bytes() == (trained / name).read_bytes(), name
    assert rows(tmp_path) == rows(trained)


def test_a_folder_holds_the_model_of_its_card(trained: Path) -> None:
    card = cards.verify(trained, IoiCard)
    assert {path.name for path in trained.iterdir()} == FILES
    assert set(card.sha256) == FILES - {"README.md", "card.json", "training_log.jsonl"}
    assert (card.recipe, card.text.vocabulary) == (RECIPE, vocabulary().get_vocab_size())
    assert card.text.templates + len(card.text.held_out_templates) == len(ioi.TEMPLATES)
    assert card.tokens_seen == 6 * 3 * 31
    assert [row["step"] for row in rows(trained)] == [0, 4, 6]
    page = (trained / "README.md").read_text()
    facts = (
        "1 layer,",
        "2 heads x 4",
        "d_mlp 32",
        "100 names",
        "giving 0.3",
        "558 in 6 steps of 3 rows",
        "Left without",
    )
    for fact in (*facts, *card.text.held_out_templates):
        assert fact in page, fact
    assert "Retrain with `reprise train ioi-tiny`." in page


def test_transformers_and_interventions_read_the_folder(trained: Path) -> None:
    from transformers import AutoModelForCausalLM

    import interventions

    card, words = cards.read(trained, IoiCard), vocabulary().get_vocab()
    network = AutoModelForCausalLM.from_pretrained(trained, dtype=torch.float32)
    assert evaluate(network, words, n=10) == pytest.approx(card.metrics, rel=1e-4, abs=1e-5)
    assert sum(parameter.numel() for parameter in network.parameters()) == card.parameters
    model = interventions.load(trained)
    assert (model.bos, model.n_ctx, model.d_vocab) == (0, 32, card.text.vocabulary)
    assert model.tokenizer is not None
    prompt = "Then, Mary and John went to the store. John gave a drink to"
    pieces = ["Then", ",", "Mary", "and", "John", "went", "to", "the", "store", ".", "John", "gave", "a", "drink", "to"]
    assert model.tokenizer.encode(prompt) == [words[piece] for piece in pieces]
    assert model.tokenizer.decode(model.tokenizer.encode(prompt)) == prompt


def test_training_learns_the_words_of_sentences(tmp_path: Path) -> None:
    recipe = msgspec.structs.replace(RECIPE, steps=80, rows=8, learning_rate=1e-2, log_every=80)
    losses: dict[int, float] = {}
    train(recipe, tmp_path, progress=lambda step, _, loss: losses.update({step: loss}))
    assert losses[1] > 16  # every word as likely: log(247) times one and the answers' weight, 2
    assert losses[80] < 11


def test_the_state_of_another_shape_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def stop(step: int, *_: object) -> None:
        if step == 2:
            raise KeyboardInterrupt

    monkeypatch.setattr(ioi_training, "CHECKPOINT_EVERY", 2)
    with pytest.raises(KeyboardInterrupt):
        train(RECIPE, tmp_path, progress=stop)
    wider = msgspec.structs.replace(RECIPE, shape=msgspec.structs.replace(RECIPE.shape, d_model=16))
    with pytest.raises(CheckpointError, match=r"training\.pt: not a checkpoint of this run .*; delete it"):
        train(wider, tmp_path)


def test_a_changed_file_and_a_card_of_another_family_are_refused(trained: Path, tmp_path: Path) -> None:
    for path in trained.iterdir():
        (tmp_path / path.name).write_bytes(path.read_bytes())
    (tmp_path / "tokenizer.json").write_bytes((trained / "tokenizer.json").read_bytes() + b" ")
    with pytest.raises(ModelFolderError, match=r"tokenizer\.json: SHA-256 is .*or run `reprise train ioi-tiny`$"):
        cards.verify(tmp_path, IoiCard)
    with pytest.raises(ModelFolderError, match=r"card\.json: Object "):
        cards.read(trained, StoriesCard)


def test_the_catalogue_trains_the_recipes(trained: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert set(IOI_RECIPES) <= set(NAMES)
    monkeypatch.setitem(IOI_RECIPES, "ioi-4l-seed1", RECIPE)
    out = CATALOGUE.train("ioi-4l-seed1", tmp_path / "m", "cpu", 1, lambda *_: None)
    assert (out / "model.safetensors").read_bytes() == (trained / "model.safetensors").read_bytes()


def test_the_program_trains_a_recipe_of_a_file_and_says_how_far_it_is(
    trained: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "recipe.json"
    path.write_bytes(msgspec.json.encode(RECIPE))
    ioi_training.main([str(path), str(tmp_path / "m")])
    assert (tmp_path / "m" / "model.safetensors").read_bytes() == (trained / "model.safetensors").read_bytes()
    lines = capsys.readouterr().out.splitlines()
    assert [line.split()[:2] for line in lines] == [["ioi-tiny", f"{step}/6"] for step in (0, 4, 6)]
    assert all('"names_accuracy":' in line for line in lines)
    with pytest.raises(ValueError, match=r"^no recipe 'ioi-9l': expected one of ioi-4l, .*, or the JSON"):
        ioi_training.main(["ioi-9l", str(tmp_path / "m")])

"""Training a story model into a folder: what it leaves there, and that a killed run goes on as if nothing was."""

from __future__ import annotations

import json
from collections.abc import Iterator
from functools import cache, partial
from pathlib import Path

import msgspec
import pytest
import torch

from training import CheckpointError
from zoo import cards, stories_evaluation, stories_training
from zoo.cards import ModelFolderError
from zoo.catalogue import CATALOGUE, NAMES
from zoo.gpt2_recipes import Shape
from zoo.in_context_cards import InContextCard
from zoo.stories_cards import StoriesCard
from zoo.stories_evaluation import evaluate, sampled_counts
from zoo.stories_recipes import STORIES_RECIPES, StoriesRecipe
from zoo.stories_text import text_sha256, vocabulary
from zoo.stories_training import train

RECIPE = StoriesRecipe(
    name="stories-tiny",
    shape=Shape(n_layers=1, n_heads=2, d_model=8, n_ctx=192),
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
    """A few questions, and texts of a few words: what is measured has tests of its own. The text is hashed once."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(stories_evaluation, "sampled_counts", partial(sampled_counts, n_tokens=6))
        patch.setattr(stories_training, "text_sha256", cache(text_sha256))
        patch.setattr(
            stories_training, "evaluate", lambda model, words, **_: evaluate(model, words, questions=8, texts=1)
        )
        yield


@pytest.fixture(scope="module")
def trained(short_evaluation: None, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return train(RECIPE, tmp_path_factory.mktemp("trained") / "stories-tiny")


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

    monkeypatch.setattr(stories_training, "CHECKPOINT_EVERY", 2)
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
    card = cards.verify(trained, StoriesCard)
    assert {path.name for path in trained.iterdir()} == FILES
    assert set(card.sha256) == FILES - {"README.md", "card.json", "training_log.jsonl"}
    assert (card.recipe, card.text.vocabulary) == (RECIPE, vocabulary().get_vocab_size())
    assert [row["step"] for row in rows(trained)] == [0, 4, 6]
    page = (trained / "README.md").read_text()
    facts = ("1 layer,", "2 heads x 4", "wedding, sea", "kind, mean", f"{card.tokens_seen:,} in 6", "Answers right")
    for fact in facts:
        assert fact in page, fact
    assert "Retrain with `reprise train stories-tiny`." in page


def test_transformers_and_interventions_read_the_folder(trained: Path) -> None:
    from transformers import AutoModelForCausalLM

    import interventions

    card, words = cards.read(trained, StoriesCard), vocabulary().get_vocab()
    network = AutoModelForCausalLM.from_pretrained(trained, dtype=torch.float32)
    assert evaluate(network, words, questions=8, texts=1) == pytest.approx(card.metrics)
    assert sum(parameter.numel() for parameter in network.parameters()) == card.parameters
    model = interventions.load(trained)
    assert (model.bos, model.n_ctx, model.d_vocab) == (0, 192, card.text.vocabulary)
    assert model.tokenizer is not None
    assert model.tokenizer.encode("a story about the sea.") == [
        words[word] for word in ["a", "story", "about", "the", "sea", "."]
    ]
    question = "is anna kind ? ( A ) yes ( B ) no answer : ("
    assert model.tokenizer.decode(model.tokenizer.encode(question)) == "is anna kind? (A) yes (B) no answer: ("


def test_training_learns_the_words_of_stories(tmp_path: Path) -> None:
    recipe = msgspec.structs.replace(RECIPE, steps=80, rows=8, learning_rate=1e-2, log_every=80)
    losses: dict[int, float] = {}
    train(recipe, tmp_path, progress=lambda step, _, loss: losses.update({step: loss}))
    assert losses[1] > 20  # every word as likely: log(397) times the weights of the three means, 4
    assert losses[80] < 12


def test_the_state_of_another_shape_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def stop(step: int, *_: object) -> None:
        if step == 2:
            raise KeyboardInterrupt

    monkeypatch.setattr(stories_training, "CHECKPOINT_EVERY", 2)
    with pytest.raises(KeyboardInterrupt):
        train(RECIPE, tmp_path, progress=stop)
    wider = msgspec.structs.replace(RECIPE, shape=msgspec.structs.replace(RECIPE.shape, d_model=16))
    with pytest.raises(CheckpointError, match=r"training\.pt: not a checkpoint of this run .*; delete it"):
        train(wider, tmp_path)


def test_a_changed_file_and_a_card_of_another_family_are_refused(trained: Path, tmp_path: Path) -> None:
    for path in trained.iterdir():
        (tmp_path / path.name).write_bytes(path.read_bytes())
    (tmp_path / "tokenizer.json").write_bytes((trained / "tokenizer.json").read_bytes() + b" ")
    with pytest.raises(ModelFolderError, match=r"tokenizer\.json: SHA-256 is .*or run `reprise train stories-tiny`$"):
        cards.verify(tmp_path, StoriesCard)
    with pytest.raises(ModelFolderError, match=r"card\.json: Object "):
        cards.read(trained, InContextCard)


def test_the_catalogue_trains_the_recipes(trained: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert set(STORIES_RECIPES) <= set(NAMES)
    monkeypatch.setitem(STORIES_RECIPES, "stories-4l-seed1", RECIPE)
    out = CATALOGUE.train("stories-4l-seed1", tmp_path / "m", "cpu", 1, lambda *_: None)
    assert (out / "model.safetensors").read_bytes() == (trained / "model.safetensors").read_bytes()


def test_the_program_trains_a_recipe_of_a_file_and_says_how_far_it_is(
    trained: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "recipe.json"
    path.write_bytes(msgspec.json.encode(RECIPE))
    stories_training.main([str(path), str(tmp_path / "m")])
    assert (tmp_path / "m" / "model.safetensors").read_bytes() == (trained / "model.safetensors").read_bytes()
    lines = capsys.readouterr().out.splitlines()
    assert [line.split()[:2] for line in lines] == [["stories-tiny", f"{step}/6"] for step in (0, 4, 6)]
    assert all('"answers_right":' in line for line in lines)
    with pytest.raises(ValueError, match=r"^no recipe 'stories-9l': expected one of stories-4l, .*, or the JSON"):
        stories_training.main(["stories-9l", str(tmp_path / "m")])

"""Training and measuring a model that reads about people."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from torch import Tensor

import zoo
from zoo import cards, people_evaluation, people_training
from zoo.catalogue import CATALOGUE, NAMES
from zoo.gpt2_recipes import Shape
from zoo.people_cards import PeopleCard
from zoo.people_evaluation import CLEAN, asked, evaluate, own_words, right
from zoo.people_recipes import PEOPLE_RECIPES, PeopleRecipe
from zoo.people_text import vocabulary
from zoo.people_training import train
from zoo.stories_lexicon import DIMENSIONS

RECIPE = PeopleRecipe(
    name="people-tiny",
    shape=Shape(n_layers=1, n_heads=2, d_model=8, n_ctx=96),
    steps=6,
    rows=4,
    warmup_steps=2,
    log_every=4,
)
WORDS = vocabulary().get_vocab()


class Says:
    """Stands for a model: behind every word the logits of a function of the tokens."""

    device = torch.device("cpu")

    def __init__(self, logits: Tensor) -> None:
        self.logits = logits

    def transformer(self, tokens: Tensor, use_cache: bool) -> object:
        return type("Out", (), {"last_hidden_state": torch.zeros(*tokens.shape, 1)})

    def lm_head(self, resid: Tensor) -> Tensor:
        return self.logits.expand(*resid.shape[:-1], len(self.logits))


def short(model: object, words: dict[str, int], **_: object) -> dict[str, float]:
    return evaluate(model, words, texts=8)


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(people_training, "evaluate", short)
        return train(RECIPE, tmp_path_factory.mktemp("trained") / "people-tiny")


def test_a_killed_run_that_is_resumed_equals_an_undisturbed_one(
    trained: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def stop(step: int, steps: int, loss: float) -> None:
        if step == 3:
            raise KeyboardInterrupt

    monkeypatch.setattr(people_training, "CHECKPOINT_EVERY", 2)
    monkeypatch.setattr(people_training, "evaluate", short)
    with pytest.raises(KeyboardInterrupt):
        train(RECIPE, tmp_path, progress=stop)
    assert not (tmp_path / "card.json").exists()
    train(RECIPE, tmp_path)
    assert {path.name for path in tmp_path.iterdir()} == {path.name for path in trained.iterdir()}
    for name in ("model.safetensors", "config.json", "tokenizer.json"):
        assert (tmp_path / name).read_bytes() == (trained / name).read_bytes(), name


def test_a_folder_holds_the_model_of_its_card(trained: Path) -> None:
    card = cards.verify(trained, PeopleCard)
    assert (card.recipe, card.text.vocabulary) == (RECIPE, len(WORDS))
    page = (trained / "README.md").read_text()
    for fact in ("1 layer,", "2 heads x 4", "kind, mean", "box", f"{card.tokens_seen:,} in 6", "Answers right"):
        assert fact in page, fact
    assert [json.loads(line)["step"] for line in (trained / cards.LOG).read_text().splitlines()] == [0, 4, 6]
    assert cards.read(trained, PeopleCard) == card


def test_the_catalogue_trains_the_recipes(trained: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert set(PEOPLE_RECIPES) <= set(NAMES)
    monkeypatch.setitem(PEOPLE_RECIPES, "people-4l-seed1", RECIPE)
    monkeypatch.setattr(people_training, "evaluate", short)
    out = CATALOGUE.train("people-4l-seed1", tmp_path / "m", "cpu", 1, lambda *_: None)
    assert (out / "model.safetensors").read_bytes() == (trained / "model.safetensors").read_bytes()


def test_right_answers_of_a_model_that_always_says_a_are_those_where_a_is_right() -> None:
    logits = torch.zeros(len(WORDS))
    logits[WORDS["A"]], logits[WORDS["kind"]] = 1.0, 9.0  # what is no letter does not count
    documents = asked(100, 0, CLEAN)
    found = right(Says(logits), WORDS, documents, 0)
    assert found == [document.letters[0].right == 0 for document in documents]
    assert 0 < sum(found) < 100


def test_own_words_are_those_of_the_person_who_is_written_about(monkeypatch: pytest.MonkeyPatch) -> None:
    spelled = {number: word for word, number in WORDS.items()}
    shows = {name: words[0] for of in DIMENSIONS for name, words in zip(of.names, of.words, strict=True)}
    shown_by = {
        word: name for of in DIMENSIONS for name, words in zip(of.names, of.words, strict=True) for word in words
    }

    def write(model: object, rows: Tensor, n_tokens: int, generator: torch.Generator) -> list[list[int]]:
        """What the text said of the person whose name stands last, read off the words."""
        found = []
        for row in rows.tolist():
            text = [spelled[token] for token in row]
            own = text[text.index(text[-1]) :]
            value = next(shown_by.get(word, word) for word in own if shown_by.get(word, word) in shows)
            found.append([WORDS[shows[value]]])
        return found

    monkeypatch.setattr(people_evaluation, "sample", write)
    assert own_words(Says(torch.zeros(1)), WORDS, 40) == 1
    monkeypatch.setattr(people_evaluation, "sample", lambda model, rows, *_: [[WORDS["lent"]] for _ in rows])
    assert own_words(Says(torch.zeros(1)), WORDS, 200) < 0.3


def test_the_shipped_model_is_what_its_card_says() -> None:
    import interventions

    folder = zoo.folder("people-4l")
    card = zoo.verify(folder, zoo.PeopleCard)
    assert card.recipe == PEOPLE_RECIPES["people-4l"]
    network = interventions.load(folder).network
    found = evaluate(network, WORDS, texts=256)
    for name in ("answers_right", "answers_right_by_name", "second_answers_right", "own_words"):
        assert abs(found[name] - card.metrics[name]) < 0.08, name
    assert min(found["answers_right_A"], found["answers_right_B"]) > 0.8

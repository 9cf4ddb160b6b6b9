"""Cards: a folder that was changed in any file is refused with the file's name."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path

import msgspec
import pytest

from zoo import cards
from zoo.cards import Card, CorpusFacts, ModelFolderError
from zoo.recipes import RECIPES

RECIPE = RECIPES["attn-only-2l"]
CONTENTS = {
    "model.safetensors": bytes(range(256)) * 40,
    "checkpoints.safetensors": b"checkpoints" * 500,
    "config.json": b'{"n_layers": 2}\n',
    "tokenizer.json": b'{"version": "1.0"}\n',
}


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    folder = tmp_path / "attn-only-2l"
    folder.mkdir()
    for name, content in CONTENTS.items():
        (folder / name).write_bytes(content)
    (folder / "training_log.jsonl").write_text("{}\n")
    cards.write(card(cards.hashes(folder)), folder)
    return folder


def card(sha256: dict[str, str]) -> Card:
    return Card(
        recipe=RECIPE,
        corpus=CorpusFacts(
            source="a test",
            python="3.11.7",
            files=2,
            bytes=3_000,
            train_tokens=1_000,
            held_out_tokens=50,
            sha256="0" * 64,
        ),
        parameters=12_345,
        tokens_seen=2_500,
        seconds=90.0,
        hardware=cards.hardware("cpu", 1),
        torch="2.13.0",
        metrics={"held_out_loss": 2.51234},
        sha256=sha256,
    )


def refusal(folder: Path) -> str:
    with pytest.raises(ModelFolderError) as caught:
        cards.verify(folder)
    message = str(caught.value)
    assert "\n" not in message
    return message


def test_an_unchanged_folder_gives_its_card_back(folder: Path) -> None:
    expected = {name: hashlib.sha256(content).hexdigest() for name, content in CONTENTS.items()}
    assert cards.verify(folder) == card(expected)


@pytest.mark.parametrize("name", sorted(CONTENTS))
def test_a_missing_file_is_named(folder: Path, name: str) -> None:
    (folder / name).unlink()
    assert refusal(folder) == f"{folder / name}: missing; restore it or run `reprise train attn-only-2l`"


@pytest.mark.parametrize("name", sorted(CONTENTS))
@pytest.mark.parametrize("damage", ["truncated", "bit-flipped", "empty"])
def test_a_changed_file_is_named(folder: Path, name: str, damage: str) -> None:
    content = bytearray(CONTENTS[name])
    content[len(content) // 2] ^= 1
    new = {"truncated": CONTENTS[name][:-1], "bit-flipped": bytes(content), "empty": b""}[damage]
    (folder / name).write_bytes(new)
    message = refusal(folder)
    assert message.startswith(f"{folder / name}: SHA-256 is {hashlib.sha256(new).hexdigest()[:12]}")
    assert f"the card says {hashlib.sha256(CONTENTS[name]).hexdigest()[:12]}" in message
    assert message.endswith("or run `reprise train attn-only-2l`")


def test_a_folder_without_card_is_no_model_folder(tmp_path: Path) -> None:
    message = refusal(tmp_path)
    assert message == f"{tmp_path / 'card.json'}: no such file; expected a model folder that `reprise train` wrote"


def test_a_malformed_card_is_refused_with_the_field(folder: Path) -> None:
    path = folder / "card.json"
    whole = path.read_bytes()
    path.write_bytes(whole[: len(whole) // 2])
    assert refusal(folder).startswith(f"{path}: Input data was truncated")
    fields = json.loads(whole)
    fields["corpus"]["files"] = "two"
    path.write_bytes(msgspec.json.encode(fields))
    assert "$.corpus.files" in refusal(folder)
    del fields["sha256"]
    fields["corpus"]["files"] = 2
    path.write_bytes(msgspec.json.encode(fields))
    assert "missing required field `sha256`" in refusal(folder)


def test_a_card_that_vouches_for_no_weights_is_refused(folder: Path) -> None:
    cards.write(card({}), folder)
    assert "model.safetensors" in refusal(folder)


def test_the_page_for_people_says_what_the_card_says(folder: Path) -> None:
    page = (folder / "README.md").read_text()
    for fact in ("2 layers, 12 heads x 16", "12,345", "3,000 bytes", "2.5 times", "25%", "2 minutes", "2.512"):
        assert fact in page, fact
    assert hashlib.sha256(CONTENTS["model.safetensors"]).hexdigest() in page
    assert "training_log" not in page

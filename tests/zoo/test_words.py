"""The word-level tokenizer: what is one token, what decoding gives, and that transformers reads what it saves."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from zoo import words
from zoo.catalogue import shared_folder

TEXT = "Q: Anna\nA: Bert\n\nLeft: Anna, Bert -> don't; f(x) = Bert | half-open."


def test_words_marks_and_line_breaks_are_tokens() -> None:
    assert words.split("Q: Anna\nA: Bert\n\n") == ["Q", ":", "Anna", "\n", "A", ":", "Bert", "\n", "\n"]
    assert words.split("don't half-open -> => f(x) ---") == [
        *("don't", "half-open", "->", "=>", "f", "(", "x", ")", "-", "-", "-"),
    ]


def test_a_space_belongs_to_the_word_that_follows() -> None:
    tokenizer = words.build([TEXT])
    assert tokenizer.encode(" Anna").ids == tokenizer.encode("Anna").ids == [tokenizer.token_to_id("Anna")]
    assert tokenizer.encode("A: Bert").ids == [*tokenizer.encode("A:").ids, *tokenizer.encode(" Bert").ids]


def test_the_vocabulary_is_two_special_tokens_and_the_words_in_order() -> None:
    tokenizer = words.build(["b a", "a c."])
    assert [tokenizer.id_to_token(i) for i in range(tokenizer.get_vocab_size())] == [
        *(words.BOS, words.UNKNOWN, "b", "a", "c", "."),
    ]
    assert tokenizer.encode("a Zoe").ids == [3, words.UNKNOWN_ID]
    assert tokenizer.token_to_id(words.BOS) == words.BOS_ID


def test_every_template_and_a_sentence_are_read_back_as_they_were() -> None:
    entries = json.loads((shared_folder() / "data" / "templates.json").read_text())
    exact = 0
    for entry in entries:
        text = "".join(f"{entry['before']}{x}{entry['between']} {y}{entry['after']}" for x, y in [("Ada", "Leo")] * 2)
        tokenizer = words.build([text])
        decoded = tokenizer.decode(tokenizer.encode(text).ids)
        assert words.split(decoded) == words.split(text), entry["name"]
        exact += decoded == text
    assert exact >= 12  # those whose marks are spaced as in English
    sentence = "When Ada needs a friend, the choice is Leo."
    tokenizer = words.build([sentence])
    assert tokenizer.decode(tokenizer.encode(sentence).ids) == sentence


def test_a_single_token_decodes_to_the_word_alone() -> None:
    tokenizer = words.build([TEXT])
    assert tokenizer.decode(tokenizer.encode("Anna").ids) == "Anna"


def test_transformers_reads_what_was_saved(tmp_path: Path) -> None:
    transformers = pytest.importorskip("transformers")
    tokenizer = words.build([TEXT])
    words.save(tokenizer, tmp_path, n_ctx=64)
    read = transformers.AutoTokenizer.from_pretrained(tmp_path)
    assert read.encode(TEXT, add_special_tokens=False) == tokenizer.encode(TEXT).ids
    assert read.encode("Zoe", add_special_tokens=False) == [words.UNKNOWN_ID]
    assert (read.bos_token_id, read.vocab_size, read.model_max_length) == (0, tokenizer.get_vocab_size(), 64)
    assert read.decode(tokenizer.encode(TEXT).ids) == tokenizer.decode(tokenizer.encode(TEXT).ids)

"""The corpus: what it takes in, what it leaves out, and that it is the same every time."""

from __future__ import annotations

import hashlib
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from zoo.corpus import (
    BOS,
    BOS_ID,
    HELD_OUT_PERCENT,
    UNKNOWN,
    UNKNOWN_ID,
    Corpus,
    CorpusError,
    build,
    is_held_out,
    source_files,
    train_tokenizer,
)
from zoo.held_out import held_out_tokens
from zoo.recipes import VOCABULARY

DIGEST = """
import sys
from pathlib import Path
from zoo.corpus import build
corpus = build(300, Path(sys.argv[1]))
print(corpus.sha256, hash(tuple(corpus.train.tolist())), hash(tuple(corpus.held_out.tolist())))
"""


def test_files_are_sorted_and_unusable_ones_left_out(tmp_path: Path) -> None:
    text = "value = compute(first, second)\n" * 2_000
    table = "0x3f, 0x2b, 0x11,\n" * 4_000
    contents = {
        "b.py": text.encode(),
        "a/c.py": text.encode(),
        "table.py": table.encode(),
        "small_table.py": table[:40_000].encode(),
        "short.py": b"pass\n",
        "latin.py": ("# caf\u00e9\n" * 200).encode("latin-1"),
        "notes.txt": text.encode(),
        "site-packages/x.py": text.encode(),
        "a/__pycache__/y.py": text.encode(),
    }
    for name, content in contents.items():
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content)
    found = list(source_files(tmp_path))
    assert [name for name, _ in found] == ["a/c.py", "b.py", "small_table.py"]
    assert dict(found)["a/c.py"] == text


def test_tokens_decode_to_the_files_each_led_by_bos(source_folder: Path, corpus: Corpus) -> None:
    texts = {path.relative_to(source_folder).as_posix(): path.read_text() for path in source_folder.rglob("*.py")}
    for tokens, held_out in ((corpus.train, False), (corpus.held_out, True)):
        expected = [texts[name] for name in sorted(texts, key=Path) if is_held_out(name) == held_out]
        assert tokens[0] == BOS_ID
        assert int((tokens == BOS_ID).sum()) == len(expected)
        decoded = corpus.tokenizer.decode(tokens.tolist(), skip_special_tokens=False)
        assert decoded.split(BOS) == ["", *expected]
    assert corpus.tokenizer.token_to_id(BOS) == BOS_ID
    assert corpus.tokenizer.get_vocab_size() <= 300
    assert corpus.files == len(texts)
    assert corpus.bytes == sum(len(text.encode()) for text in texts.values())


def test_another_process_builds_the_same_corpus(source_folder: Path, corpus: Corpus) -> None:
    command = [sys.executable, "-c", DIGEST, str(source_folder)]
    environment = {**os.environ, "PYTHONHASHSEED": "7", "RAYON_NUM_THREADS": "3"}
    output = subprocess.run(command, capture_output=True, text=True, check=True, env=environment).stdout.split()
    here = [corpus.sha256, *(str(hash(tuple(part.tolist()))) for part in (corpus.train, corpus.held_out))]
    assert output == here  # hashes of integers do not depend on PYTHONHASHSEED


def test_the_digest_covers_names_and_texts(source_folder: Path, corpus: Corpus) -> None:
    digest = hashlib.sha256()
    for path in sorted(source_folder.rglob("*.py")):
        digest.update(path.relative_to(source_folder).as_posix().encode() + b"\0" + path.read_bytes() + b"\0")
    assert corpus.sha256 == digest.hexdigest()


def test_the_held_out_share_is_the_stated_one() -> None:
    n = 20_000
    share = sum(is_held_out(f"package_{number % 50}/module_{number}.py") for number in range(n)) / n
    deviation = (HELD_OUT_PERCENT / 100 * (1 - HELD_OUT_PERCENT / 100) / n) ** 0.5
    assert abs(share - HELD_OUT_PERCENT / 100) < 4 * deviation
    assert is_held_out("os.py") == (int(hashlib.sha256(b"os.py").hexdigest(), 16) % 100 < 4)


def test_training_and_held_out_tokens_are_both_there(corpus: Corpus) -> None:
    assert corpus.train.dtype == torch.int64
    assert 0 < len(corpus.held_out) < 0.2 * len(corpus.train)


def test_too_little_text_is_refused(tmp_path: Path) -> None:
    with pytest.raises(CorpusError, match="expected at least 1 MB of Python source, found 0 characters"):
        build(300, tmp_path)
    (tmp_path / "a.py").write_text("x = 1\n" * 100)
    with pytest.raises(CorpusError, match="found 600 characters"):
        build(300, tmp_path)


def test_a_folder_without_held_out_files_is_refused(tmp_path: Path) -> None:
    name = next(name for name in map("module_{}.py".format, range(100)) if not is_held_out(name))
    (tmp_path / name).write_text("value = compute(first, second)\n" * 40_000)
    with pytest.raises(CorpusError, match="all 1 files fall on one side of the held-out split"):
        build(300, tmp_path)


def test_a_rare_byte_is_unknown_and_a_common_one_is_not() -> None:
    text = "".join(chr(33 + i) * 50 for i in range(94)) + "\u00e9"
    tokenizer = train_tokenizer((text * 3,), 130)
    assert tokenizer.token_to_id(UNKNOWN) == UNKNOWN_ID
    assert UNKNOWN_ID not in tokenizer.encode("x = y").ids[:1]
    assert UNKNOWN_ID in tokenizer.encode("\u4e2d").ids


def test_hardly_an_entry_of_the_shipped_vocabulary_is_never_met() -> None:
    """Random tokens drawn from the whole vocabulary must be tokens that the models were trained on."""
    counts = torch.bincount(held_out_tokens(), minlength=VOCABULARY)
    assert int((counts == 0).sum()) < 0.02 * VOCABULARY  # of a text 27 times smaller than the training text

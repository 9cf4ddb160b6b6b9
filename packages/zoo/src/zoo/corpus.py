"""The corpus: the source text of the running Python's standard library, as byte-pair tokens.

Every machine that runs the project has it, nothing is downloaded, and it is real text with long-range repetition.
Files that are mostly tables of hexadecimal numbers are left out. Which file is held out is decided by a hash of its
name, so that neighbouring versions of Python agree.
"""

from __future__ import annotations

import hashlib
import platform
import sysconfig
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from jaxtyping import Int
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
from torch import Tensor

BOS, UNKNOWN = "<|endoftext|>", "<|unknown|>"
BOS_ID, UNKNOWN_ID = 0, 1
ALPHABET = 100  # single bytes in the vocabulary: what source code is written with, nothing that never occurs
HELD_OUT_PERCENT = 4
_SKIPPED_FOLDERS = frozenset({"site-packages", "dist-packages", "__pycache__"})


class CorpusError(RuntimeError):
    """The standard library's source cannot be read as a corpus."""


@dataclass(frozen=True)
class Corpus:
    """Tokens of the training and held-out files, each file led by the BOS token, with what a card says of them."""

    tokenizer: Tokenizer
    train: Int[Tensor, " train"]
    held_out: Int[Tensor, " held_out"]
    files: int
    bytes: int
    sha256: str
    python: str


def source_files(folder: Path) -> Iterator[tuple[str, str]]:
    """(relative path, text) of every usable source file below `folder`, in sorted order."""
    for path in sorted(folder.rglob("*.py")):
        relative = path.relative_to(folder)
        if _SKIPPED_FOLDERS.isdisjoint(relative.parts):
            try:
                text = path.read_bytes().decode("utf-8")
            except UnicodeDecodeError:
                continue
            if len(text) >= 200 and not _is_table(text):
                yield relative.as_posix(), text


def build(vocabulary: int, folder: Path | None = None) -> Corpus:
    """Train a byte-level BPE of `vocabulary` entries on the source below `folder` and tokenise it with that.

    Raises:
        CorpusError: if `folder` (the standard library by default) holds too little source text.
    """
    folder = folder or Path(sysconfig.get_paths()["stdlib"])
    names, texts = zip(*source_files(folder), strict=True) if any(source_files(folder)) else ((), ())
    size = sum(len(text) for text in texts)
    if size < 1_000_000:
        raise CorpusError(f"{folder}: expected at least 1 MB of Python source, found {size} characters; is it a zip?")
    if len({is_held_out(name) for name in names}) < 2:
        raise CorpusError(f"{folder}: all {len(names)} files fall on one side of the held-out split; add source files")
    tokenizer = train_tokenizer(texts, vocabulary)
    parts: dict[bool, list[np.ndarray]] = {True: [], False: []}
    for name, encoding in zip(names, tokenizer.encode_batch(list(texts)), strict=True):
        parts[is_held_out(name)].append(np.array([BOS_ID, *encoding.ids], dtype=np.int64))
    digest = hashlib.sha256()
    for name, text in zip(names, texts, strict=True):
        digest.update(f"{name}\0{text}\0".encode())
    return Corpus(
        tokenizer=tokenizer,
        train=torch.from_numpy(np.concatenate(parts[False])),
        held_out=torch.from_numpy(np.concatenate(parts[True])),
        files=len(names),
        bytes=sum(len(text.encode()) for text in texts),
        sha256=digest.hexdigest(),
        python=platform.python_version(),
    )


def train_tokenizer(texts: tuple[str, ...], vocabulary: int) -> Tokenizer:
    """A byte-level BPE tokenizer over the `ALPHABET` commonest bytes, with BOS as entry 0 and UNKNOWN as entry 1.

    The other bytes become UNKNOWN: entries of their own would never be trained, and random tokens drawn from the
    vocabulary would say nothing about a model.
    """
    tokenizer = Tokenizer(models.BPE(unk_token=UNKNOWN))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=vocabulary,
        special_tokens=[BOS, UNKNOWN],
        limit_alphabet=ALPHABET,
        show_progress=False,
    )
    tokenizer.train_from_iterator(texts, trainer=trainer)
    return tokenizer


def is_held_out(name: str) -> bool:
    """Whether the file of this relative path is held out of training."""
    return int(hashlib.sha256(name.encode()).hexdigest(), 16) % 100 < HELD_OUT_PERCENT


def _is_table(text: str) -> bool:
    start = text[:20_000]
    return len(text) > 50_000 and sum(character.isalpha() for character in start) < 0.35 * len(start)

"""The held-out text that every evaluation reads: shipped, so that all machines and Python versions read the same.

`shared/data/held_out/` holds the tokens of the corpus files that were held out of training, each file led by the BOS
token, and the tokenizer of the shipped models that made them.
"""

from __future__ import annotations

import hashlib
from pathlib import Path

import torch
from jaxtyping import Int
from safetensors import SafetensorError, safe_open
from torch import Tensor

from zoo.catalogue import shared_folder
from zoo.corpus import BOS_ID, CorpusError, build
from zoo.recipes import VOCABULARY
from zoo.whole_files import save_whole

FOLDER = "data/held_out"
TOKENS, TOKENIZER = "tokens.safetensors", "tokenizer.json"


def tokenizer_file() -> Path:
    """The tokenizer of the shipped models, by which the held-out tokens are text."""
    return shared_folder() / FOLDER / TOKENIZER


def held_out_tokens() -> Int[Tensor, " length"]:
    """All held-out tokens, int64.

    Raises:
        CorpusError: if the file is missing or damaged.
    """
    path = shared_folder() / FOLDER / TOKENS
    if not path.exists():
        raise CorpusError(f"{path}: no such file; restore it, or write it again with `python -m zoo.held_out`")
    try:
        with safe_open(path, framework="pt") as file:
            tokens: Tensor = file.get_tensor("tokens")
            metadata = file.metadata() or {}
    except SafetensorError as error:
        raise CorpusError(f"{path}: damaged ({error}); restore it") from error
    if _sha256(tokens) != metadata.get("sha256"):
        raise CorpusError(f"{path}: the tokens do not have the hash that the file states; restore it")
    return tokens.long()


def held_out_windows(n: int, n_ctx: int) -> Int[Tensor, "n n_ctx"]:
    """`n` windows that do not overlap, spread evenly over the held-out text, each led by the BOS token.

    Raises:
        CorpusError: if there is too little text.
    """
    tokens = held_out_tokens()
    available = (len(tokens) - 1) // (n_ctx - 1)
    if n > available:
        raise CorpusError(f"held-out text: expected at most {available} windows of {n_ctx} tokens, {n} were asked for")
    starts = torch.linspace(0, available - 1, n).long() * (n_ctx - 1)
    body = tokens[starts[:, None] + torch.arange(n_ctx - 1)]
    return torch.cat([torch.full((n, 1), BOS_ID), body], dim=1)


def write(folder: Path) -> None:
    """Write the held-out tokens of the running Python's standard library, and their tokenizer."""
    corpus = build(VOCABULARY)
    tokens = corpus.held_out.to(torch.int16)
    folder.mkdir(parents=True, exist_ok=True)
    corpus.tokenizer.save(str(folder / TOKENIZER))
    save_whole({"tokens": tokens}, folder / TOKENS, metadata={"sha256": _sha256(tokens)})


def _sha256(tokens: Tensor) -> str:
    return hashlib.sha256(tokens.numpy().tobytes()).hexdigest()


if __name__ == "__main__":
    write(shared_folder() / FOLDER)

"""A word-level tokenizer: one token a word, a punctuation mark (an arrow counts as one) or a line break.

A space belongs to the word that follows it and to nothing else, so that " Anna" and "Anna" are the same token: every
name is one token wherever it stands. Decoding sets the spaces again as English does (none before . , : ; ? ! and
around line breaks), which is readable, and exact where the text follows that rule.
"""

from __future__ import annotations

import json
from collections.abc import Iterable
from pathlib import Path

from tokenizers import Regex, Tokenizer, decoders, models, pre_tokenizers

BOS, UNKNOWN = "<|endoftext|>", "<|unknown|>"
BOS_ID, UNKNOWN_ID = 0, 1
TOKENIZER, TOKENIZER_CONFIG = "tokenizer.json", "tokenizer_config.json"
_TOKEN = r"\w+(?:['-]\w+)*|[-=]>|\n|[^\w\s]"
_NO_SPACE_BEFORE = (".", ",", ":", ";", "?", "!", ")", "\n")
_NO_SPACE_AFTER = ("\n", "(")


def _pieces() -> pre_tokenizers.PreTokenizer:
    return pre_tokenizers.Split(Regex(_TOKEN), behavior="removed", invert=True)


def split(text: str) -> list[str]:
    """The tokens of a text, as strings."""
    return [piece for piece, _ in _pieces().pre_tokenize_str(text)]


def build(texts: Iterable[str]) -> Tokenizer:
    """The tokenizer whose vocabulary is BOS, UNKNOWN and the tokens of the texts, in the order of their first use."""
    found = dict.fromkeys(piece for text in texts for piece in split(text))
    vocabulary = {token: place for place, token in enumerate([BOS, UNKNOWN, *found])}
    tokenizer = Tokenizer(models.WordLevel(vocabulary, unk_token=UNKNOWN))
    tokenizer.pre_tokenizer = _pieces()
    tokenizer.add_special_tokens([BOS, UNKNOWN])
    tokenizer.decoder = decoders.Sequence(
        [
            decoders.WordPiece(prefix="\0", cleanup=False),  # a space before every token but the first
            decoders.Fuse(),
            *(decoders.Replace(f" {mark}", mark) for mark in _NO_SPACE_BEFORE),
            *(decoders.Replace(f"{mark} ", mark) for mark in _NO_SPACE_AFTER),
        ]
    )
    return tokenizer


def save(tokenizer: Tokenizer, folder: Path, *, n_ctx: int) -> None:
    """Write tokenizer.json and the tokenizer_config.json by which transformers reads it, with BOS as its BOS token."""
    tokenizer.save(str(folder / TOKENIZER))
    config = {
        "bos_token": BOS,
        "clean_up_tokenization_spaces": False,
        "eos_token": BOS,
        "model_max_length": n_ctx,
        "tokenizer_class": "PreTrainedTokenizerFast",
        "unk_token": UNKNOWN,
    }
    (folder / TOKENIZER_CONFIG).write_text(json.dumps(config, indent=2) + "\n", encoding="utf-8")

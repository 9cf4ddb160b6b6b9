"""What the tests of measurements share: a model folder on disk, and measurements by plain loops."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from .conftest import D_VOCAB, WORDS, Writes, plain_run, random_network


def plain_losses(
    network: Any, prompt: Sequence[int], completion: Sequence[int], writes: Writes | None = None
) -> list[float]:
    """-log p of each token of the completion, in one pass without padding."""
    logits, _ = plain_run(network, [*prompt, *completion], writes)
    log_p = logits.log_softmax(dim=-1)
    places = range(len(prompt) - 1, len(prompt) + len(completion) - 1)
    return [float(-log_p[place, token]) for place, token in zip(places, completion, strict=True)]


def write_folder(folder: Path) -> Path:
    """A random GPT-2 of 3 layers, in Hugging Face's format, with a word tokenizer beside it."""
    from zoo import words

    tokenizer = words.build([" ".join(WORDS[1:])])
    network = random_network("gpt2")
    assert tokenizer.get_vocab_size() <= D_VOCAB + 1
    folder.mkdir()
    network.save_pretrained(folder)
    words.save(tokenizer, folder, n_ctx=64)
    return folder


def bootstrap_means(numerators: Tensor, denominators: Tensor, draws: Tensor) -> Tensor:
    """Quotients of sums over units that were drawn, one resample after the other."""
    found = []
    for draw in draws.tolist():
        above = sum(float(numerators[unit]) for unit in draw)
        below = sum(float(denominators[unit]) for unit in draw)
        found.append(above / below if below else float("nan"))
    return torch.tensor(found, dtype=torch.float64)

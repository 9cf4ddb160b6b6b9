"""How often each token follows each other one in the training corpus: what a zero-layer model can know at best.

`shared/data/bigrams/` holds the counts over the training files of the shipped models' corpus, so that nobody needs the
very Python version they were trained on.
"""

from __future__ import annotations

from pathlib import Path

import torch
from jaxtyping import Int
from safetensors import SafetensorError, safe_open
from torch import Tensor

from zoo.catalogue import shared_folder
from zoo.corpus import CorpusError, build
from zoo.recipes import VOCABULARY
from zoo.whole_files import save_whole

FILE = "data/bigrams/counts.safetensors"


def count(tokens: Int[Tensor, " length"], d_vocab: int) -> Int[Tensor, "d_vocab d_vocab"]:
    """How often token b comes right after token a, in row a and column b."""
    return torch.bincount(tokens[:-1] * d_vocab + tokens[1:], minlength=d_vocab**2).view(d_vocab, d_vocab)


def bigram_counts() -> Int[Tensor, "d_vocab d_vocab"]:
    """The counts over the training corpus of the shipped models, int64.

    Raises:
        CorpusError: if the file is missing.
    """
    path = shared_folder() / FILE
    if not path.exists():
        raise CorpusError(f"{path}: no such file; restore it, or write it again with `python -m zoo.bigrams`")
    try:
        with safe_open(path, framework="pt") as file:
            places, counts = file.get_tensor("places").long(), file.get_tensor("counts").long()
            d_vocab = int(file.metadata()["d_vocab"])
    except SafetensorError as error:
        raise CorpusError(f"{path}: damaged ({error}); restore it") from error
    table = torch.zeros(d_vocab**2, dtype=torch.int64)
    table[places] = counts
    return table.view(d_vocab, d_vocab)


def write(path: Path) -> None:
    """Write the counts of the running Python's standard library, those that are not zero."""
    corpus = build(VOCABULARY)
    counts = count(corpus.train, VOCABULARY).flatten()
    places = counts.nonzero().flatten()
    path.parent.mkdir(parents=True, exist_ok=True)
    save_whole(
        {"places": places.to(torch.int32), "counts": counts[places].to(torch.int32)},
        path,
        metadata={"d_vocab": str(VOCABULARY), "corpus_sha256": corpus.sha256, "python": corpus.python},
    )


if __name__ == "__main__":
    write(shared_folder() / FILE)

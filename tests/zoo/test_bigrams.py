from __future__ import annotations

from collections import Counter
from pathlib import Path

import pytest
import torch

import zoo
from zoo import bigrams
from zoo.corpus import CorpusError


def test_counts_are_those_of_a_loop() -> None:
    tokens = torch.randint(0, 7, (500,), generator=torch.Generator().manual_seed(0))
    expected = Counter(zip(tokens[:-1].tolist(), tokens[1:].tolist(), strict=True))
    table = bigrams.count(tokens, 7)
    assert {(a, b): int(table[a, b]) for a in range(7) for b in range(7) if table[a, b]} == expected


def test_the_shipped_counts_cover_the_training_corpus_and_resemble_the_held_out_text() -> None:
    """The card of a shipped model says how long the corpus was; held-out text has the same common bigrams."""
    counts = zoo.bigram_counts()
    assert int(counts.sum()) == zoo.verify(zoo.folder("attn-only-0l")).corpus.train_tokens - 1
    held_out = bigrams.count(zoo.held_out_tokens(), 1024)
    together = torch.stack([counts.flatten(), held_out.flatten()]).double()
    assert torch.corrcoef(together)[0, 1] > 0.9


def test_a_missing_file_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "shared" / "models").mkdir(parents=True)
    monkeypatch.setenv("REPRISE_ROOT", str(tmp_path))
    with pytest.raises(CorpusError, match="no such file; restore it, or write it again"):
        zoo.bigram_counts()

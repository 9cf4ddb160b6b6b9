"""Small model folders of both kinds."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from zoo.corpus import train_tokenizer
from zoo.model import AttentionOnly, AttentionOnlyConfig

CONFIG = AttentionOnlyConfig(n_layers=2, d_model=24, n_heads=3, d_head=8, d_vocab=300, n_ctx=32)
TEXT = ("def double(number):\n    return number + number\n",) * 3


@pytest.fixture
def network() -> AttentionOnly:
    return AttentionOnly(CONFIG, seed=3)


@pytest.fixture
def folder(tmp_path: Path, network: AttentionOnly) -> Path:
    """An attention-only folder with a card."""
    path = tmp_path / "toy"
    path.mkdir()
    save_file(network.state_dict(), path / "model.safetensors")
    fields = ("n_layers", "d_model", "n_heads", "d_head", "d_vocab", "n_ctx", "model_type")
    (path / "config.json").write_text(json.dumps({name: getattr(CONFIG, name) for name in fields}))
    train_tokenizer(TEXT, 300).save(str(path / "tokenizer.json"))
    names = ("model.safetensors", "config.json", "tokenizer.json")
    sha256 = {name: hashlib.sha256((path / name).read_bytes()).hexdigest() for name in names}
    (path / "card.json").write_text(json.dumps({"sha256": sha256}))
    return path


@pytest.fixture(scope="session")
def tokens() -> torch.Tensor:
    return torch.randint(0, 300, (2, 20), generator=torch.Generator().manual_seed(0))

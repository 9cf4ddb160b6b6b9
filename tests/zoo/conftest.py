"""A small folder of Python text, the same on every machine, and the corpus built from it."""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import torch

from zoo.corpus import Corpus, build
from zoo.in_context_text import Material, material
from zoo.model import AttentionOnly, AttentionOnlyConfig

VOCABULARY = 300


def python_text(seed: int, length: int) -> str:
    """Functions that call each other, with names and numbers that come back."""
    generator = random.Random(seed)
    names = [f"{verb}_{noun}" for verb in ("read", "make", "sort") for noun in ("rows", "tree", "name", "head")]
    lines: list[str] = []
    size = 0
    while size < length:
        name, other = generator.sample(names, 2)
        line = f"def {name}({other[:4]}):\n    return {other}({other[:4]} + {generator.randrange(100)})\n\n"
        lines.append(line)
        size += len(line)
    return "".join(lines)


@pytest.fixture(scope="session", autouse=True)
def one_thread() -> Iterator[None]:
    """Small tensors are faster on one thread, and training is bit-identical only with equally many."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


@pytest.fixture(scope="session")
def source_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("source")
    for number in range(80):
        path = folder / f"part{number % 7}" / f"module_{number}.py"
        path.parent.mkdir(exist_ok=True)
        path.write_text(python_text(number, 13_000))
    return folder


@pytest.fixture(scope="session")
def corpus(source_folder: Path) -> Corpus:
    return build(VOCABULARY, source_folder)


@pytest.fixture(scope="session")
def shape() -> Callable[[int], AttentionOnlyConfig]:
    """The configuration of a small model of so many layers."""
    return lambda n_layers: AttentionOnlyConfig(
        n_layers=n_layers, d_model=24, n_heads=3, d_head=8, d_vocab=VOCABULARY, n_ctx=40
    )


@pytest.fixture
def model(shape: Callable[[int], AttentionOnlyConfig]) -> AttentionOnly:
    """A two-layer model whose every parameter, biases and gains included, is far from its initial value."""
    model = AttentionOnly(shape(2), seed=3)
    generator = torch.Generator().manual_seed(4)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(0.3 * torch.randn(parameter.shape, generator=generator))
    return model


@pytest.fixture(scope="session")
def text() -> Material:
    """What the in-context models read."""
    return material()

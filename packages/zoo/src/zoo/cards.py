"""Model cards: what a shipped model is, how it was made, and the hashes that prove that it is unchanged.

A model folder holds config.json, tokenizer.json, model.safetensors, card.json, README.md (the card for people), and,
where the training dynamics are of interest, checkpoints.safetensors and training_log.jsonl. Each family of models has a
card of its own kind: `Card` here for the attention-only ones, `zoo.in_context_cards.InContextCard`,
`zoo.stories_cards.StoriesCard`, `zoo.people_cards.PeopleCard`, `zoo.ioi_cards.IoiCard`.
"""

from __future__ import annotations

import hashlib
import os
import platform
from functools import lru_cache
from pathlib import Path
from typing import TypeVar, overload

import msgspec

from zoo.in_context_cards import InContextCard
from zoo.ioi_cards import IoiCard
from zoo.people_cards import PeopleCard
from zoo.recipes import Recipe
from zoo.shown import card_html, card_text
from zoo.stories_cards import StoriesCard

WEIGHTS = "model.safetensors"
CHECKPOINTS = "checkpoints.safetensors"
LOG = "training_log.jsonl"
CARD = "card.json"
HASHED = (WEIGHTS, CHECKPOINTS, "config.json", "tokenizer.json", "tokenizer_config.json")


class ModelFolderError(RuntimeError):
    """A model folder that lacks a file or whose files are not those of its card."""


class CorpusFacts(msgspec.Struct, frozen=True, kw_only=True):
    source: str
    python: str
    files: int
    bytes: int
    train_tokens: int
    held_out_tokens: int
    sha256: str


class Card(msgspec.Struct, frozen=True, kw_only=True):
    """The facts of one trained model; `sha256` maps file names to hashes."""

    recipe: Recipe
    corpus: CorpusFacts
    parameters: int
    tokens_seen: int
    seconds: float
    hardware: str
    torch: str
    metrics: dict[str, float]
    sha256: dict[str, str]

    def page(self) -> str:
        """The card as a page for people."""
        return as_markdown(self)

    def __repr__(self) -> str:
        return card_text(self)

    def _repr_html_(self) -> str:
        return card_html(self)


AnyCard = Card | InContextCard | StoriesCard | IoiCard | PeopleCard
CardT = TypeVar("CardT", bound=AnyCard)


class _Named(msgspec.Struct):
    name: str


class _Hashed(msgspec.Struct):
    """What all kinds of cards have."""

    recipe: _Named
    sha256: dict[str, str]


def file_sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def hashes(folder: Path) -> dict[str, str]:
    return {name: file_sha256(folder / name) for name in HASHED if (folder / name).exists()}


def hardware(device: str, threads: int) -> str:
    return f"{platform.machine()}, {os.cpu_count()} cores, {threads} thread{'s'[: threads != 1]}, device {device}"


@overload
def read(folder: Path) -> Card: ...
@overload
def read(folder: Path, kind: type[CardT]) -> CardT: ...
def read(folder: Path, kind: type[CardT] | type[Card] = Card) -> CardT | Card:
    """The card of a folder, of the given kind.

    Raises:
        ModelFolderError: if there is none or it is malformed.
    """
    return _decoded(folder, kind)


def _decoded(folder: Path, kind: type[CardT] | type[Card]) -> CardT | Card:
    path = folder / CARD
    try:
        return msgspec.json.decode(path.read_bytes(), type=kind)
    except FileNotFoundError as error:
        raise ModelFolderError(f"{path}: no such file; expected a model folder that `reprise train` wrote") from error
    except msgspec.MsgspecError as error:
        raise ModelFolderError(f"{path}: {error}; train the model again or restore the file") from error


@overload
def verify(folder: Path) -> Card: ...
@overload
def verify(folder: Path, kind: type[CardT]) -> CardT: ...
def verify(folder: Path, kind: type[CardT] | type[Card] = Card) -> CardT | Card:
    """The card, of the given kind, of a folder whose files all have the hashes that the card states.

    Raises:
        ModelFolderError: naming the file that is missing or changed.
    """
    card = _decoded(folder, kind)
    for name in HASHED:
        if (folder / name).exists() and name not in card.sha256:
            raise ModelFolderError(f"{folder / name}: the card states no hash of it; remove it or restore {CARD}")
    for name, expected in card.sha256.items():
        path = folder / name
        if not path.exists():
            raise ModelFolderError(f"{path}: missing; restore it or run `reprise train {card.recipe.name}`")
        _compare(path, file_sha256(path), expected, card.recipe.name)
    return card


def check(folder: Path, name: str) -> None:
    """See that one file of a folder is the one that its card states; read again only after it was written again.

    Raises:
        ModelFolderError: naming the file.
    """
    path = folder / name
    try:
        hashed = msgspec.json.decode((folder / CARD).read_bytes(), type=_Hashed)
        expected, stat = hashed.sha256[name], path.stat()
    except (OSError, KeyError, msgspec.MsgspecError) as error:
        raise ModelFolderError(f"{path}: no hash of it in {CARD}, or no such file ({error}); restore them") from error
    _compare(path, _sha256_of(path, stat.st_size, stat.st_mtime_ns), expected, hashed.recipe.name)


def _compare(path: Path, found: str, expected: str, name: str) -> None:
    if found != expected:
        raise ModelFolderError(
            f"{path}: SHA-256 is {found[:12]}..., the card says {expected[:12]}...; the file was changed: restore "
            f"it or run `reprise train {name}`"
        )


@lru_cache(maxsize=64)
def _sha256_of(path: Path, size: int, changed: int) -> str:
    return file_sha256(path)


def write(card: AnyCard, folder: Path) -> None:
    """Write card.json and, for people, README.md."""
    (folder / CARD).write_bytes(msgspec.json.format(msgspec.json.encode(card), indent=2) + b"\n")
    (folder / "README.md").write_text(card.page())


def as_markdown(card: Card) -> str:
    """The card as a page for people."""
    recipe, config = card.recipe, card.recipe.config
    layers = f"{config.n_layers} layer{'s'[: config.n_layers != 1]}"
    rows = {
        "Architecture": f"attention-only, {layers}, {config.n_heads} heads x {config.d_head}, d_model "
        f"{config.d_model}, LayerNorm, context {config.n_ctx}, vocabulary {config.d_vocab}",
        "Parameters": f"{card.parameters:,}",
        "Corpus": f"{card.corpus.source}, Python {card.corpus.python}: {card.corpus.files:,} files, "
        f"{card.corpus.bytes:,} bytes, {card.corpus.train_tokens:,} training and "
        f"{card.corpus.held_out_tokens:,} held-out tokens",
        "Corpus SHA-256": f"`{card.corpus.sha256}`",
        "Training tokens seen": f"{card.tokens_seen:,} ({card.tokens_seen / card.corpus.train_tokens:.1f} times "
        "the training corpus)",
        "Rows that repeat a segment": f"{recipe.repeats:.0%} of the training rows",
        "Seed": str(recipe.seed),
        "Wall-clock": f"{card.seconds / 60:.0f} minutes",
        "Hardware": card.hardware,
        "torch": card.torch,
        **{name.replace("_", " ").capitalize(): f"{value:.3f}" for name, value in card.metrics.items()},
        **{f"SHA-256 of {name}": f"`{value}`" for name, value in card.sha256.items()},
    }
    table = "\n".join(f"| {name} | {value} |" for name, value in rows.items())
    return (
        f"# {recipe.name}\n\n"
        "Trained by Reprise for the tiny tier: it shows mechanisms, it does not reproduce a paper's numbers. The\n"
        "corpus is CPython's own source (PSF licence). Losses are in nats per token. Generated from `card.json`.\n\n"
        f"| | |\n|---|---|\n{table}\n\n"
        f"Retrain with `reprise train {recipe.name}`.\n"
    )

"""Which models a run works on: shipped models by name, folders by path, hub models by id.

Shipped models come from catalogues that packages register under the entry point `reprise.models`; this package imports
none of them. A reference carries the fingerprint that decides whether stored results are still those of this model.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, Protocol, cast, runtime_checkable

import msgspec

from reprise.errors import UserError

HUB_ID = re.compile(r"[\w.-]+/[\w.-]+(@[\w./-]+)?|gpt2(-medium|-large|-xl)?")
HASHED_SUFFIXES = (".safetensors", ".json")


class _Hashes(msgspec.Struct):
    sha256: dict[str, str] = {}


@runtime_checkable
class Catalogue(Protocol):
    """What a package that ships models registers."""

    def names(self) -> tuple[str, ...]:
        """Every model that can be trained."""
        ...

    def folder(self, name: str) -> Path:
        """Where a shipped model lies; raises FileNotFoundError when it is not there."""
        ...

    def train(
        self, name: str, out: Path, device: str, threads: int, progress: Callable[[int, int, float], None]
    ) -> Path:
        """Train a model into the folder `out`, resuming; `progress` gets step, steps, loss."""
        ...


@dataclass(frozen=True)
class ModelReference:
    """A model by name: what was asked for, where it is, and a hash that changes when it changes.

    `location` is a folder for shipped and local models, and the id for models of a hub.
    """

    name: str
    kind: Literal["shipped", "folder", "hub"]
    location: str
    fingerprint: str

    @property
    def slug(self) -> str:
        """The name as a file name."""
        return re.sub(r"[^\w.-]+", "--", self.name).strip("-.") or "model"


def catalogues() -> Iterator[Catalogue]:
    from importlib.metadata import entry_points

    for entry in sorted(entry_points(group="reprise.models"), key=lambda entry: entry.name):
        yield cast(Catalogue, entry.load())


def find(name: str) -> Catalogue:
    """The catalogue that knows a model.

    Raises:
        UserError: naming the models that there are.
    """
    known: list[str] = []
    for catalogue in catalogues():
        if name in catalogue.names():
            return catalogue
        known.extend(catalogue.names())
    raise UserError(f"no model {name!r}; `reprise train` knows: {', '.join(known) or 'none'}")


def resolve(name: str) -> ModelReference:
    """What `name` means: a shipped model, else a folder that exists, else a hub id.

    Raises:
        UserError: for a name that is none of these, and for a folder without a config.json or without weights.
    """
    for catalogue in catalogues():
        if name in catalogue.names():
            try:
                folder = catalogue.folder(name)
            except FileNotFoundError as error:
                raise UserError(f"model {name!r}: {error}; train it with `reprise train {name}`") from error
            return ModelReference(name, "shipped", str(folder), folder_fingerprint(folder))
    path = _folder(name)
    if path is not None:
        return ModelReference(path.resolve().name, "folder", str(path.resolve()), folder_fingerprint(path))
    if HUB_ID.fullmatch(name):
        return ModelReference(name, "hub", name, f"hub:{name}")
    known = ", ".join(known for catalogue in catalogues() for known in catalogue.names())
    raise UserError(
        f"no model {name!r}: expected a shipped model ({known}), an existing folder, or a hub id such as owner/model"
    )


def _folder(name: str) -> Path | None:
    """The folder that is meant, if there is one."""
    try:
        path = Path(name).expanduser()
        return path if name and path.is_dir() else None
    except (OSError, RuntimeError, ValueError):  # longer than a name may be, the home of nobody, a null character
        return None


def folder_fingerprint(folder: Path) -> str:
    """SHA-256 over the weights and JSON files of a model folder.

    Raises:
        UserError: for a folder without a config.json or without safetensors, or with a card.json that states another
            hash of one of the files.
    """
    if not (folder / "config.json").exists():
        raise UserError(f"{folder}: no config.json; expected a model folder with config.json and *.safetensors")
    files = sorted(path for path in folder.iterdir() if path.suffix in HASHED_SUFFIXES and path.is_file())
    if not any(path.suffix == ".safetensors" for path in files):
        raise UserError(f"{folder}: no *.safetensors; weights are loaded from safetensors alone")
    stated = _stated(folder / "card.json")
    digest = hashlib.sha256()
    for path in files:
        found = file_sha256(path)
        if stated.get(path.name, found) != found:
            raise UserError(
                f"{path}: SHA-256 is {found[:12]}..., card.json says {stated[path.name][:12]}...; the file was damaged "
                "or changed: restore it or train the model again"
            )
        digest.update(path.name.encode() + b"\0" + found.encode())
    return digest.hexdigest()


def _stated(card: Path) -> dict[str, str]:
    """The hashes that the card of a model states by the names of its files; none without a card of that form."""
    try:
        return msgspec.json.decode(card.read_bytes(), type=_Hashes).sha256
    except (OSError, msgspec.MsgspecError, RecursionError):
        return {}


def file_sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()

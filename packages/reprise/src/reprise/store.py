"""Stage results on disk: one safetensors file a stage, written whole or not at all, checked when read.

A file holds the arrays, and in its header the facts (JSON), the key (a hash of everything that the result depends on),
a hash of the content, and the provenance. Because the last step of writing is a rename, a file that exists is
complete; because the content is hashed, a file that was damaged later is found out.
"""

from __future__ import annotations

import hashlib
import os
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import msgspec

from reprise.backends import ENGINE
from reprise.errors import UserError

if TYPE_CHECKING:  # numpy takes longer to import than `reprise list` may take
    from numpy.typing import NDArray


class Provenance(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """Where a result comes from; without a backend it is the engine."""

    commit: str
    packages: dict[str, str]
    models: dict[str, str]
    seed: int
    device: str
    dtype: str
    seconds: float
    backend: str = ENGINE


class Result(msgspec.Struct, frozen=True):
    """What a stage returns: named arrays, and facts that are JSON (labels, counts)."""

    arrays: dict[str, NDArray[Any]] = {}
    facts: dict[str, Any] = {}

    def __getitem__(self, name: str) -> NDArray[Any]:
        try:
            return self.arrays[name]
        except KeyError as error:
            raise KeyError(f"no array {name!r} in this result; it has: {', '.join(self.arrays)}") from error

    def sha256(self) -> str:
        """A hash of names, types, shapes, values and facts; equal results have equal hashes."""
        import numpy as np

        digest = hashlib.sha256(msgspec.json.encode(self.facts, order="sorted"))
        for name, array in sorted(self.arrays.items()):
            digest.update(f"{name}|{array.dtype.str}|{array.shape}|".encode())
            digest.update(np.ascontiguousarray(array).tobytes())
        return digest.hexdigest()


class Stored(msgspec.Struct, frozen=True):
    """A result as read back."""

    result: Result
    key: str
    sha256: str
    provenance: Provenance


def write(path: Path, result: Result, key: str, provenance: Provenance) -> Stored:
    """Store a result atomically; returns it as `read` will, so that a resumed run sees what an undisturbed one does.

    Raises:
        UserError: if the folder cannot be written or the disk is full; nothing is left behind then.
    """
    import numpy as np
    from safetensors.numpy import save

    facts = msgspec.json.encode(result.facts)
    arrays = {
        name: np.asarray(array, order="C", dtype=array.dtype.newbyteorder("=")) for name, array in result.arrays.items()
    }
    result = Result(arrays, msgspec.json.decode(facts))
    sha256 = result.sha256()
    metadata = {
        "facts": facts.decode(),
        "key": key,
        "sha256": sha256,
        "provenance": msgspec.json.encode(provenance).decode(),
    }
    metadata["header_sha256"] = _header_sha256(metadata)
    with atomic(path) as temporary:
        temporary.write_bytes(save(arrays, metadata=metadata))
    return Stored(result, key, sha256, provenance)


def _header_sha256(metadata: Mapping[str, str]) -> str:
    text = "\0".join(metadata[name] for name in ("key", "sha256", "provenance"))
    return hashlib.sha256(text.encode()).hexdigest()


def read(path: Path) -> Stored | None:
    """The result stored at `path`; None where there is none, or only a damaged one (which a run then recomputes)."""
    from safetensors import SafetensorError, safe_open

    if not path.exists():
        return None
    try:
        with safe_open(path, framework="np") as file:
            metadata = file.metadata() or {}
            arrays = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 (no mapping)
        result = Result(arrays, msgspec.json.decode(metadata["facts"], type=dict[str, Any]))
        provenance = msgspec.json.decode(metadata["provenance"], type=Provenance)
        stored = Stored(result, metadata["key"], metadata["sha256"], provenance)
        whole = stored.sha256 == result.sha256() and metadata["header_sha256"] == _header_sha256(metadata)
    except (SafetensorError, OSError, LookupError, ValueError, TypeError, AttributeError, RecursionError):
        return None
    except msgspec.MsgspecError:
        return None
    return stored if whole else None


@contextmanager
def atomic(path: Path) -> Iterator[Path]:
    """A temporary file beside `path` that replaces it when the block ends well and vanishes when it does not.

    Raises:
        UserError: if the folder cannot be written or the disk is full.
    """
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        handle, name = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.", suffix=".partial")
        os.close(handle)
    except OSError as error:
        raise UserError(
            f"{path.parent}: cannot be written ({error.strerror}); choose another folder with --out"
        ) from error
    temporary = Path(name)
    try:
        yield temporary
        with temporary.open("rb") as file:
            os.fsync(file.fileno())
        temporary.chmod(0o644)
        temporary.replace(path)
    except OSError as error:
        raise UserError(
            f"{path}: cannot be written ({error.strerror}); free some space or choose another --out"
        ) from error
    finally:
        temporary.unlink(missing_ok=True)


def write_text(path: Path, text: str) -> None:
    """Replace a text file atomically."""
    with atomic(path) as temporary:
        temporary.write_text(text, encoding="utf-8")
